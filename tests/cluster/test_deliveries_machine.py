"""Messages, batches, crashes and lost streams in any order keep what deliveries promise."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import Future
from functools import partial
from itertools import count
from types import SimpleNamespace
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from engine.cluster.deliveries import Deliveries, Delivery
from engine.cqrs.command_side.mailbox import Request, Slice
from engine.cqrs.event_store import NO_SOURCE, Source
from engine.cqrs.messages import Ask


def covers(source: Source, sequence: int) -> bool:
    return sequence <= source.done or any(first <= sequence <= last for first, last in source.ahead)


def batch(*slices: Slice) -> Any:
    return SimpleNamespace(slices=slices)


NUMBERS = count(1)


def request(commands: int = 1) -> Request:
    future: Any = Future()
    return Request([Ask(f"c-{next(NUMBERS)}", "a") for _ in range(commands)], future, 0.0, 0.0)


class Machine(RuleBasedStateMachine):
    """Messages, batches, crashes and lost streams in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.life, self.last = 0, 0
        self.stream: dict[int, int] = {}
        """Sequence -> content, of this partition in this life of the stream."""
        self.contents = 0
        self.row = NO_SOURCE
        self.covered: set[int] = set()
        """Contents that a durable mark said are decided, while they were in the stream."""
        self.told: Counter[int] = Counter()
        self.in_flight: tuple[Source | None, list[Slice]] | None = None
        self.is_stale = False
        """The transaction under way is of a stream that has lost its end, or is no more, since."""
        self.start()

    # -- the owner

    def start(self) -> None:
        self.held: dict[int, list[Request]] = {}
        """What this owner was given, by content."""
        self.pieces: list[Slice] = []
        self.unpublished: list[Slice] = []
        self.in_flight = None
        self.deliveries = Deliveries(self.row, lambda: None)
        self.connect()

    def connect(self) -> None:
        self.next = self.deliveries.begin(f"life {self.life}", self.last)

    def tell(self, content: int) -> None:
        assert self.all_answered(content)
        if content in self.stream.values():
            assert content in self.covered, "told before a durable mark covers it"
        self.told[content] += 1

    def all_answered(self, content: int) -> bool:
        return all(each.future.done() for each in self.held[content])

    def save(self, mark: Source | None, slices: list[Slice]) -> None:
        """The transaction is durable."""
        if mark is None:
            return
        self.row = mark
        if mark.stream != f"life {self.life}":
            return
        decided = Counter[Request]()
        for each, start, stop in slices:
            decided[each] += stop - start
        for sequence, content in self.stream.items():
            if covers(mark, sequence) and content not in self.covered:
                assert all(
                    each.future.done() or decided[each] == each.unanswered
                    for each in self.held[content]
                ), "marked before it is decided"
                self.covered.add(content)

    def mark_if_due(self) -> None:
        if self.in_flight is None and self.deliveries.is_due:
            mark = self.deliveries.mark([])
            assert mark is not None, "the loop of the partition would turn for nothing"
            self.save(mark, [])
            self.deliveries.stored(mark)

    # -- what happens

    @rule(sizes=st.lists(st.integers(1, 3), min_size=0, max_size=3), gap=st.integers(1, 3))
    def a_message_arrives(self, sizes: list[int], gap: int) -> None:
        self.last += gap
        self.contents += 1
        self.stream[self.last] = self.contents
        self.sizes = {**getattr(self, "sizes", {}), self.contents: sizes}

    @rule()
    def the_owner_reads(self) -> None:
        sequence = min((each for each in self.stream if each >= self.next), default=None)
        if sequence is None:
            return
        self.next = sequence + 1
        content = self.stream[sequence]
        if not self.deliveries.receive(sequence):
            assert content in self.covered or content in self.held, "forgotten"
            return
        assert content not in self.covered, "given out again after it was decided for good"
        assert content not in self.held, "given out twice"
        delivery = Delivery(sequence, partial(self.tell, content))
        requests = self.held[content] = [request(size) for size in self.sizes[content]]
        delivery.requests, delivery.unresolved = requests, len(requests)
        self.deliveries.add(delivery)
        deliveries = self.deliveries
        for each in requests:
            each.future.add_done_callback(lambda _: deliveries.resolved(delivery))
            self.pieces += [(each, n, n + 1) for n in range(len(each.commands))]

    @precondition(lambda self: self.in_flight is None)
    @rule(data=st.data())
    def a_batch_is_decided(self, data: st.DataObject) -> None:
        self.pieces = [each for each in self.pieces if not each[0].future.done()]
        chosen = data.draw(st.sets(st.integers(0, max(0, len(self.pieces) - 1)), max_size=9))
        slices: list[Slice] = []
        blocked: set[Request] = set()
        for index, each in enumerate(self.pieces):
            # Those of one request go in their order.
            if index in chosen and each[0] not in blocked:
                slices.append(each)
            else:
                blocked.add(each[0])
        self.pieces = [each for each in self.pieces if each not in slices]
        self.in_flight = (self.deliveries.mark([batch(*slices)]), slices)
        self.is_stale = False

    @precondition(lambda self: self.in_flight is not None)
    @rule()
    def the_batch_is_durable(self) -> None:
        assert self.in_flight is not None
        (mark, slices), self.in_flight = self.in_flight, None
        if self.is_stale and mark is not None:
            # Of what the stream was; the one of what it is now follows at once.
            self.row = mark
        else:
            self.save(mark, slices)
        if mark is not None:
            self.deliveries.stored(mark)
        self.unpublished += slices
        if self.is_stale:
            self.mark_if_due()

    @precondition(lambda self: self.in_flight is not None)
    @rule()
    def the_batch_is_not_written(self) -> None:
        assert self.in_flight is not None
        (_, slices), self.in_flight = self.in_flight, None
        self.unpublished += slices

    @rule(count=st.integers(1, 9))
    def callers_are_answered(self, count: int) -> None:
        for each, start, stop in self.unpublished[:count]:
            each.answer(start, [None] * (stop - start))  # type: ignore[list-item]
        self.unpublished = self.unpublished[count:]

    @precondition(lambda self: self.pieces)
    @rule(data=st.data())
    def a_deadline_passes(self, data: st.DataObject) -> None:
        each, _, _ = data.draw(st.sampled_from(self.pieces))
        if not each.future.done():
            each.future.set_result([])

    @rule()
    def the_loop_looks(self) -> None:
        self.mark_if_due()

    @rule(durable=st.booleans())
    def the_owner_dies_and_another_takes_over(self, durable: bool) -> None:
        if self.in_flight is not None and durable and not self.is_stale:
            self.save(*self.in_flight)
        self.start()

    @rule()
    def the_connection_breaks(self) -> None:
        self.connect()

    @rule(dies=st.booleans())
    def the_stream_is_made_anew(self, dies: bool) -> None:
        self.life, self.last, self.stream = self.life + 1, 0, {}
        self.is_stale = True
        self.start() if dies else self.connect()
        self.mark_if_due()

    @rule(dies=st.booleans(), data=st.data())
    def the_stream_loses_its_end(self, dies: bool, data: st.DataObject) -> None:
        self.last = data.draw(st.integers(max(0, self.last - 6), self.last))
        self.stream = {key: each for key, each in self.stream.items() if key <= self.last}
        # Nothing may be lost of what was read: then the transaction under way is as good as before.
        self.is_stale = self.deliveries.is_cut(f"life {self.life}", self.last)
        self.start() if dies else self.connect()
        self.mark_if_due()

    @invariant()
    def the_source_is_in_normal_form_and_bounded(self) -> None:
        for source in (self.row, self.deliveries.source):
            end = source.done
            for first, last in source.ahead:
                assert end + 1 < first <= last
                end = last
        assert len(self.deliveries.source.ahead) <= len(self.stream)
        assert all(count == 1 for count in self.told.values())

    def teardown(self) -> None:
        """Whatever happened, everything in the stream comes to its end."""
        for _ in range(len(self.stream) + 1):
            self.the_owner_reads()
        if self.in_flight is not None:
            self.the_batch_is_not_written()
        self.unpublished += self.pieces
        self.callers_are_answered(len(self.unpublished))
        self.mark_if_due()
        assert not self.deliveries.is_due
        assert self.deliveries.under_way == 0
        assert set(self.stream.values()) <= self.covered
        assert self.row.ahead == () or min(first for first, _ in self.row.ahead) > self.last
        # What was lost with the stream is told nobody, unless it was covered before.
        kept = set(self.stream.values())
        assert all(self.told[content] == 1 for content in self.held if content in kept)


Machine.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestDeliveries = Machine.TestCase
