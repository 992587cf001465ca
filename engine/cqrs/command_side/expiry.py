"""Answer callers whose deadline passed.

What is still queued was not executed, and is told so. What is in flight is in doubt until its
commit is durable: its caller learns the answer by repeating the command.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Protocol

from engine.cqrs.command_side.mailbox import Fifo, Slice
from engine.errors import DeadlineExceeded, OutcomeUnknown


class InFlight(Protocol):
    """Commands that were taken from their queue together."""

    @property
    def slices(self) -> Sequence[Slice]: ...


def expire_in_flight(batches: Iterable[InFlight], now: float) -> int:
    """Answer OutcomeUnknown where the deadline passed; return for how many commands."""
    count = 0
    for batch in batches:
        for request, start, stop in batch.slices:
            if request.deadline <= now and not request.future.done():
                commands = request.commands[start:stop]
                request.answer(start, [OutcomeUnknown(each.id) for each in commands])
                count += len(commands)
    return count


def expire_queued(mailbox: Fifo, now: float) -> int:
    """Answer DeadlineExceeded where the deadline passed; return for how many commands.

    They stay in the queue, as those of callers that left do, until `drop_finished`.
    """
    count = 0
    late = [each for each in mailbox.queue if each[0].deadline <= now]
    for request, start, stop in late:
        request.answer(
            start,
            [
                DeadlineExceeded(f"command {each.id!r} waited too long; it was not executed")
                for each in request.commands[start:stop]
            ],
        )
        count += stop - start
    return count


def next_deadline(batches: Iterable[InFlight], mailboxes: Iterable[Fifo]) -> float:
    """The earliest deadline of a caller in flight that still waits, or of anything queued; else inf.

    A queued caller that left keeps its place in the bounded queue until then.
    """
    deadlines = [
        request.deadline
        for batch in batches
        for request, _, _ in batch.slices
        if not request.future.done()
    ]
    deadlines += [request.deadline for mailbox in mailboxes for request, _, _ in mailbox.queue]
    return min(deadlines, default=math.inf)
