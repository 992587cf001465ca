"""Which messages of a partition are decided, and which of them may be told.

A reply goes out only once two things are durable: the events of the message, and that the message is
decided. Else the next owner would execute a command again whose buyer was told "sold out" already, and
the buyer would own units they know nothing of.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from engine.cqrs.command_side.batch import Batch
from engine.cqrs.command_side.mailbox import Request
from engine.cqrs.event_store import Source

logger = logging.getLogger(__name__)


class Delivery:
    """One message. `tell` is called once, when its outcomes may be told.

    `unresolved` requests have no outcome yet. `is_covered` once a durable mark says that it is decided.
    """

    __slots__ = ("is_covered", "requests", "sequence", "tell", "unresolved")

    def __init__(self, sequence: int, tell: Callable[[], None]) -> None:
        self.sequence = sequence
        self.tell = tell
        self.requests: list[Request] = []
        self.unresolved = 0
        self.is_covered = False

    def ends_with(self, taken: Mapping[Request, int]) -> bool:
        """Whether every command of it is answered, or is one of those `taken`, counted by request."""
        return not self.unresolved or all(
            each.future.done() or taken.get(each, 0) == each.unanswered for each in self.requests
        )


class Deliveries:
    """The messages of one partition that are under way. A CommandSource.

    `nudge` has the partition's loop look at `is_due`.
    """

    def __init__(self, source: Source, nudge: Callable[[], None]) -> None:
        """`source` is what the partition's row says."""
        self._durable = self._base = source
        self._nudge = nudge
        self._received = source.done
        self._open: dict[int, Delivery] = {}
        self._marking: list[Delivery] = []
        self._untold = 0

    @property
    def source(self) -> Source:
        """What is decided for good, in the life of the stream that is read."""
        return self._base

    @property
    def under_way(self) -> int:
        """Messages that are not below the mark yet."""
        return len(self._open)

    def begin(self, life: str, last_sequence: int) -> int:
        """Read from that life of the stream, which ends at `last_sequence`; returns the first to read."""
        if life != self._base.stream:
            self._forget(Source(life))
        elif last_sequence < self._received:
            logger.error(
                "the broker lost messages %d..%d of %s; nothing that was answered is lost, but look at "
                "its sync_interval",
                *(last_sequence + 1, self._received, life),
            )
            self._forget(Source(life, last_sequence))
        return self._received + 1

    def receive(self, sequence: int) -> bool:
        """Note that a message was read; false when it was decided or read before."""
        if sequence <= self._received:
            return False
        self._received = sequence
        return not any(first <= sequence <= last for first, last in self._base.ahead)

    def add(self, delivery: Delivery) -> None:
        """A message to be decided. `resolved` is to be called for each of its requests."""
        self._open[delivery.sequence] = delivery
        if not delivery.unresolved:
            self._answered(delivery)

    def resolved(self, delivery: Delivery) -> None:
        """One request of `delivery` has its outcomes."""
        delivery.unresolved -= 1
        if not delivery.unresolved:
            self._answered(delivery)

    def _answered(self, delivery: Delivery) -> None:
        if delivery.is_covered:
            delivery.tell()
        else:
            self._untold += 1
            self._nudge()

    # -- for the partition's loop

    @property
    def is_due(self) -> bool:
        return self._untold > 0

    def mark(self, batches: Sequence[Batch]) -> Source | None:
        taken: Counter[Request] = Counter()
        for batch in batches:
            for request, start, stop in batch.slices:
                taken[request] += stop - start
        ended: list[Delivery] = []
        runs: list[tuple[int, int]] = []
        first_open: int | None = None
        is_run = False
        for sequence, delivery in self._open.items():
            if not (delivery.is_covered or delivery.ends_with(taken)):
                first_open = sequence if first_open is None else first_open
                is_run = False
                continue
            if not delivery.is_covered:
                ended.append(delivery)
            if first_open is None:
                continue
            if is_run:
                runs[-1] = (runs[-1][0], sequence)
            else:
                runs.append((sequence, sequence))
            is_run = True
        self._marking = ended
        done = self._received if first_open is None else first_open - 1
        mark = Source(self._base.stream, done, _merge(runs, self._base.ahead, done))
        return None if mark == self._durable else mark

    def stored(self, source: Source) -> None:
        self._durable = self._base = source
        marked, self._marking = self._marking, []
        for delivery in marked:
            self._cover(delivery)
        for sequence in [each for each in self._open if each <= source.done]:
            del self._open[sequence]

    def _cover(self, delivery: Delivery) -> None:
        if delivery.is_covered:
            return
        delivery.is_covered = True
        if not delivery.unresolved:
            self._untold -= 1
            delivery.tell()

    def _forget(self, source: Source) -> None:
        """Begin anew: nothing that is open comes again, so none of it needs a mark."""
        self._base, self._received = source, source.done
        for delivery in self._open.values():
            self._cover(delivery)
        self._open.clear()


def _merge(
    runs: list[tuple[int, int]], before: Sequence[tuple[int, int]], done: int
) -> tuple[tuple[int, int], ...]:
    """The ranges above `done` of both, in order, those that touch as one."""
    found: list[tuple[int, int]] = []
    for first, last in sorted([*runs, *before]):
        if last <= done:
            continue
        if found and first <= found[-1][1] + 1:
            found[-1] = (found[-1][0], max(found[-1][1], last))
        else:
            found.append((max(first, done + 1), last))
    return tuple(found)
