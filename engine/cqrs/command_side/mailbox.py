"""One FIFO per aggregate: what waits for it, in the order it arrived."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

from engine.cqrs.aggregate import AggregateType
from engine.cqrs.command_side.repository import Resident
from engine.cqrs.messages import Command, Outcome
from engine.errors import AggregateHalted, StreamKey


class Request:
    """Commands that one caller handed over together for one aggregate, and where it waits.

    `future` resolves with one outcome for each command, once all of them are known or the deadline
    passed. Times are seconds of the engine's monotonic clock. `aggregate_type` names what the commands
    are for where that is not to be seen from them, empty elsewhere.
    """

    __slots__ = (
        "aggregate_type",
        "commands",
        "deadline",
        "future",
        "outcomes",
        "queued_at",
        "unanswered",
    )

    def __init__(
        self,
        commands: Sequence[Command],
        future: asyncio.Future[list[Outcome]],
        queued_at: float,
        deadline: float,
    ) -> None:
        self.commands = commands
        self.future = future
        self.queued_at = queued_at
        self.deadline = deadline
        self.unanswered = len(commands)
        self.outcomes: list[Any] | None = None
        self.aggregate_type = ""

    def answer(self, start: int, outcomes: list[Outcome]) -> None:
        """Note the outcomes of the commands from `start` on; the last ones wake the caller.

        A caller that left (cancelled, or answered at its deadline) is not answered again.
        """
        if self.future.done():
            return
        count = len(self.commands)
        if len(outcomes) == count:
            self.future.set_result(outcomes)
            return
        # Only a list that several batches share is gathered piece by piece.
        if self.outcomes is None:
            self.outcomes = [None] * count
        self.outcomes[start : start + len(outcomes)] = outcomes
        self.unanswered -= len(outcomes)
        if not self.unanswered:
            self.future.set_result(self.outcomes)


Slice: TypeAlias = tuple[Request, int, int]
"""The commands `start` to `stop` (exclusive) of a request."""


class Fifo:
    """Requests in the order they came; `depth` is how many commands of theirs wait."""

    __slots__ = ("depth", "queue")

    def __init__(self) -> None:
        self.queue: deque[Slice] = deque()
        self.depth = 0

    def put(self, request: Request) -> None:
        self.queue.append((request, 0, len(request.commands)))
        self.depth += len(request.commands)

    def put_back(self, slices: Iterable[Slice]) -> None:
        """Put what was taken back at the front, in its old order."""
        taken = list(slices)
        self.queue.extendleft(reversed(taken))
        self.depth += sum(stop - start for _, start, stop in taken)

    def take(self, size_max: int) -> list[Slice]:
        """Take up to `size_max` commands, oldest first, dropping those whose caller left."""
        taken: list[Slice] = []
        room = size_max
        queue = self.queue
        while queue and room:
            request, start, stop = queue[0]
            if request.future.done():
                queue.popleft()
                self.depth -= stop - start
            elif stop - start <= room:
                taken.append(queue.popleft())
                room -= stop - start
            else:
                queue[0] = (request, start + room, stop)
                taken.append((request, start, start + room))
                room = 0
        self.depth -= size_max - room
        return taken

    def drop_finished(self) -> int:
        """Drop what belongs to callers that left; return how many commands that were."""
        before = self.depth
        self.queue = deque(each for each in self.queue if not each[0].future.done())
        self.depth = sum(stop - start for _, start, stop in self.queue)
        return before - self.depth


class Mailbox(Fifo):
    """The queue of one aggregate, and the aggregate itself while it is resident.

    `has_turn` while it stands in the partition's round, since round `turn_since`; `loading` while its events are being
    replayed; `halted` once a broken invariant stopped it; `conflicts` counts lost version races in
    a row.
    """

    __slots__ = (
        "aggregate",
        "conflicts",
        "halted",
        "has_turn",
        "loading",
        "resident",
        "stream",
        "turn_since",
        "used_at",
    )

    def __init__(self, aggregate: AggregateType[Any], stream: StreamKey) -> None:
        super().__init__()
        self.aggregate = aggregate
        self.stream = stream
        self.resident: Resident | None = None
        self.has_turn = False
        self.turn_since = 0
        self.loading = False
        self.halted: AggregateHalted | None = None
        self.conflicts = 0
        self.used_at = 0.0
