"""When a batch closes, and which commands are in it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, Protocol, TypeAlias

from engine.cqrs.command_side.mailbox import Mailbox, Slice
from engine.cqrs.command_side.repository import Resident
from engine.cqrs.messages import Command

CloseReason: TypeAlias = Literal["size", "delay", "idle"]
"""`size`: full. `delay`: its oldest command waited long enough. `idle`: the writer was free, and nobody
else was expected."""

ROUNDING_SECONDS: Final = 1e-6
"""A batch is due when its timer rings, whatever adding up its time and taking it apart again lost."""


@dataclass(frozen=True)
class BatchLimits:
    """Both flush limits, and how many aggregates share a transaction.

    `size_max` commands of one aggregate, at least 1. `delay_seconds_max` after the oldest queued
    command; 0 never waits, and the batch is what arrived while the writer was busy. `aggregates_max`
    batches, one an aggregate, go into one transaction. `size_enough` queued commands end the delay
    early: nobody else is expected.
    """

    size_max: int
    delay_seconds_max: float
    aggregates_max: int = 1
    size_enough: int | None = None


class Pacer(Protocol):
    """Sets the limits of every round of one partition. `now` is seconds of the monotonic clock."""

    def limits(self, waiting: int, aggregates: int, now: float) -> BatchLimits:
        """The limits for `waiting` commands of so many `aggregates`; asked while no round runs."""

    def round_over(self, commands: int, seconds: float, now: float, *, wrote: bool) -> None:
        """A round of `commands` took `seconds`; `wrote` when all its events became durable."""


class FixedPacer:
    """The same limits always."""

    def __init__(self, limits: BatchLimits) -> None:
        self._limits = limits

    def limits(self, waiting: int, aggregates: int, now: float) -> BatchLimits:  # noqa: ARG002
        return self._limits

    def round_over(self, commands: int, seconds: float, now: float, *, wrote: bool) -> None:
        pass


def close_reason(
    limits: BatchLimits, depth: int, waited_seconds: float, *, draining: bool
) -> CloseReason | None:
    """Tell why a batch of `depth` queued commands closes now, or None while it should wait.

    It is asked only when no commit of the partition is in flight. A draining engine waits for
    nobody.
    """
    if depth >= limits.size_max:
        return "size"
    if limits.delay_seconds_max <= 0 or draining:
        return "idle"
    if limits.size_enough is not None and depth >= limits.size_enough:
        return "idle"
    return "delay" if waited_seconds >= limits.delay_seconds_max else None


class Batch:
    """The commands taken from one mailbox for one transaction, in arrival order.

    `queue_depth` is how many were left waiting when it closed, `rounds_waited` how many
    transactions of other aggregates went before it while its aggregate waited for a turn.
    """

    __slots__ = ("commands", "mailbox", "queue_depth", "reason", "rounds_waited", "slices")

    def __init__(self, mailbox: Mailbox, slices: list[Slice], reason: CloseReason) -> None:
        self.mailbox = mailbox
        self.slices = slices
        self.reason: CloseReason = reason
        self.queue_depth = mailbox.depth
        self.rounds_waited = 0
        commands: list[Command] = []
        for request, start, stop in slices:
            if stop - start == 1:
                commands.append(request.commands[start])
            else:
                commands.extend(request.commands[start:stop])
        self.commands = commands

    @property
    def resident(self) -> Resident:
        """The aggregate, while it is in memory."""
        found = self.mailbox.resident
        assert found is not None, "a mailbox takes turns only while its aggregate is loaded"
        return found


def close_batch(
    mailbox: Mailbox, limits: BatchLimits, now: float, *, draining: bool
) -> Batch | None:
    """Close a batch of `mailbox` if it is due; `now` is seconds of the monotonic clock."""
    while mailbox.queue and mailbox.queue[0][0].future.done():
        _, start, stop = mailbox.queue.popleft()
        mailbox.depth -= stop - start
    if not mailbox.queue:
        return None
    waited = now - mailbox.queue[0][0].queued_at + ROUNDING_SECONDS
    reason = close_reason(limits, mailbox.depth, waited, draining=draining)
    if reason is None:
        return None
    return Batch(mailbox, mailbox.take(limits.size_max), reason)
