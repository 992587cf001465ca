"""Which messages of a partition are decided, and which of them may be told.

A reply goes out only once two things are durable: the events of the message, and that the message is
decided. Else the next owner would execute a command again whose buyer was told "sold out" already, and
the buyer would own units they know nothing of.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise

from engine.cluster.lives import check_not_older
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

    def ids(self) -> set[str]:
        """Of its commands."""
        return {command.id for each in self.requests for command in each.commands}

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
        self._marking: list[Delivery] | None = None
        self._is_answered = self._is_answered_since = self._is_anew = False

    @property
    def source(self) -> Source:
        """What is decided for good, in the life of the stream that is read."""
        return self._base

    @property
    def received(self) -> int:
        """The newest message that was read."""
        return self._received

    @property
    def under_way(self) -> int:
        """Messages that no durable mark covers yet."""
        return len(self._open)

    def is_cut(self, life: str, last_sequence: int) -> bool:
        """Whether a stream that ends there has lost what was read from it before."""
        return life == self._base.stream and last_sequence < self._newest

    def begin(self, life: str, last_sequence: int) -> int:
        """Read from that life of the stream, which ends at `last_sequence`; returns the first to read.

        The end must be asked for after everything that is known of the stream, by whoever owned the
        partition before as well: what lies beyond it is taken for lost, and its numbers for those of
        other messages, which are yet to come. Raises OlderStream, and changes nothing.
        """
        if life != self._base.stream:
            check_not_older(life, self._base.stream)
            self._forget(Source(life), 0)
        elif last_sequence < self._newest:
            logger.error(
                "the broker lost messages up to %d of %s, which ends at %d; nothing that was answered is "
                "lost, but look at its sync_interval",
                *(self._newest, life, last_sequence),
            )
            base = self._base
            ahead = tuple(
                (first, min(last, last_sequence))
                for first, last in base.ahead
                if first <= last_sequence
            )
            self._forget(Source(life, min(base.done, last_sequence), ahead), last_sequence)
        return self._received + 1

    @property
    def _newest(self) -> int:
        """The newest message that is known to have been in the stream."""
        return max(self._received, *(last for _, last in self._base.ahead), self._base.done)

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
        elif delivery.sequence in self._open:
            self._is_answered = self._is_answered_since = True
            self._nudge()

    # -- for the partition's loop

    @property
    def is_due(self) -> bool:
        return self._is_answered or self._is_anew

    def mark(self, batches: Sequence[Batch]) -> Source | None:
        taken: Counter[Request] = Counter()
        for batch in batches:
            for request, start, stop in batch.slices:
                taken[request] += stop - start
        self._is_answered_since = False
        ended: list[Delivery] = []
        undecided: list[int] = []
        is_ending = [each.ends_with(taken) for each in self._open.values()]
        last = max((n for n, each in enumerate(is_ending) if each), default=-1)
        waiting: set[str] = set()
        for n, (sequence, delivery) in enumerate(self._open.items()):
            # Not before an earlier message with the same command: the next owner would decide that one
            # anew, whatever was told of this one. A question has the id of its command.
            if is_ending[n] and (not waiting or waiting.isdisjoint(delivery.ids())):
                ended.append(delivery)
            else:
                undecided.append(sequence)
                if n < last:
                    waiting |= delivery.ids()
        ends = [*undecided, self._received + 1]
        between = [(one + 1, other - 1) for one, other in pairwise(ends) if other > one + 1]
        later = [each for each in self._base.ahead if each[1] > self._received]
        mark = _source(self._base.stream, ends[0] - 1, [*between, *later])
        # A stream that lost its end may have come as far again, with other messages.
        if mark == self._durable and not (ended or self._is_anew):
            self._marking, self._is_answered = None, False
            return None
        self._marking = ended
        return mark

    def stored(self, source: Source) -> None:
        self._durable = source
        marked, self._marking = self._marking, None
        if marked is None:
            # Meanwhile it was begun anew: the mark is of sequences that mean something else now.
            return
        self._base = source
        self._received = max(self._received, source.done)
        self._is_answered, self._is_anew = self._is_answered_since, False
        for delivery in marked:
            del self._open[delivery.sequence]
            delivery.is_covered = True
            if not delivery.unresolved:
                delivery.tell()

    def _forget(self, source: Source, end: int) -> None:
        """Begin anew behind `end`: what is open there is told nobody.

        Whoever waits for it sends it again, as a message of this life; what was refused in the other
        one would be executed then, with nothing to say that it was told.
        """
        self._base, self._received = source, min(self._received, end)
        self._marking, self._is_anew = None, True
        self._nudge()
        for sequence in [each for each in self._open if each > end]:
            del self._open[sequence]


def _source(stream: str, done: int, ranges: Sequence[tuple[int, int]]) -> Source:
    """The source with `ranges` done beside what is up to `done`, in normal form."""
    ahead: list[tuple[int, int]] = []
    for first, last in sorted(ranges):
        if first <= done + 1:
            done = max(done, last)
        elif ahead and first <= ahead[-1][1] + 1:
            ahead[-1] = (ahead[-1][0], max(ahead[-1][1], last))
        else:
            ahead.append((first, last))
    return Source(stream, done, tuple(ahead))
