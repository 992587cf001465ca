"""The mailboxes of a partition, with their resident aggregates; the idle ones are evicted."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from engine.clock import Clock
from engine.cqrs.aggregate import AggregateType
from engine.cqrs.command_side.mailbox import Mailbox
from engine.errors import StreamKey


class Residents:
    """Least recently used order, oldest first.

    `aggregates_max` bounds how many stay in memory, busy ones excepted: those with commands
    queued, being replayed or halted are never evicted. `idle_seconds` evicts what nobody used for so long,
    whenever the partition has something to do.
    """

    def __init__(self, aggregates_max: int, idle_seconds: float, clock: Clock) -> None:
        self._aggregates_max = aggregates_max
        self._idle_seconds = idle_seconds
        self._clock = clock
        self._mailboxes: dict[StreamKey, Mailbox] = {}

    def __iter__(self) -> Iterator[Mailbox]:
        return iter(self._mailboxes.values())

    def __len__(self) -> int:
        return len(self._mailboxes)

    def mailbox(self, aggregate: AggregateType[Any], stream: StreamKey) -> Mailbox:
        """Return the mailbox of `stream`, new when there is none."""
        mailbox = self._mailboxes.get(stream)
        if mailbox is None:
            mailbox = self._mailboxes[stream] = Mailbox(aggregate, stream)
            mailbox.used_at = self._clock.monotonic()
        return mailbox

    def find(self, stream: StreamKey) -> Mailbox | None:
        """Return the mailbox of `stream` if there is one."""
        return self._mailboxes.get(stream)

    def touch(self, mailbox: Mailbox, now: float) -> None:
        """Make `mailbox` the most recently used one."""
        mailbox.used_at = now
        self._mailboxes[mailbox.stream] = self._mailboxes.pop(mailbox.stream)

    def evict(self) -> None:
        """Drop idle aggregates. Call it only while no commit is in flight."""
        excess = len(self._mailboxes) - self._aggregates_max
        idle_since = self._clock.monotonic() - self._idle_seconds
        victims: list[StreamKey] = []
        for stream, mailbox in self._mailboxes.items():
            if len(victims) >= excess and mailbox.used_at > idle_since:
                break
            # A halted one would sell again as if nothing had been wrong.
            if not mailbox.queue and not mailbox.loading and mailbox.halted is None:
                victims.append(stream)
        for stream in victims:
            del self._mailboxes[stream]

    def clear(self) -> None:
        self._mailboxes.clear()
