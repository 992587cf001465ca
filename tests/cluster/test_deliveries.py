"""What an owner has read: told once a durable mark covers it, never given out again after that."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import Future
from functools import partial
from itertools import count
from types import SimpleNamespace
from typing import Any

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


class Partition:
    """A partition's loop and its row, by hand."""

    def __init__(self, source: Source = NO_SOURCE) -> None:
        self.row = source
        self.told: Counter[int] = Counter()
        self.nudges = 0
        self.deliveries = Deliveries(source, self._nudge)

    def _nudge(self) -> None:
        self.nudges += 1

    def receive(self, sequence: int, *requests: Request) -> Delivery | None:
        if not self.deliveries.receive(sequence):
            return None
        delivery = Delivery(sequence, partial(self.told.update, [sequence]))
        delivery.requests = list(requests)
        delivery.unresolved = len(requests)
        self.deliveries.add(delivery)
        for each in requests:
            each.future.add_done_callback(lambda _: self.deliveries.resolved(delivery))
        return delivery

    def store(self, *slices: Slice) -> Source | None:
        """A transaction of the commands in `slices`."""
        mark = self.deliveries.mark([batch(*slices)] if slices else [])
        if mark is not None:
            self.row = mark
            self.deliveries.stored(mark)
        return mark


def whole(each: Request) -> Slice:
    return each, 0, len(each.commands)


def answer(each: Request) -> None:
    each.answer(0, [None for _ in each.commands])  # type: ignore[misc]


def test_a_message_is_told_once_its_events_and_its_mark_are_durable() -> None:
    partition = Partition()
    partition.deliveries.begin("life", 0)
    order = request()
    partition.receive(1, order)
    assert partition.store(whole(order)) == Source("life", 1)
    assert not partition.told
    answer(order)
    assert partition.told == {1: 1}
    assert not partition.deliveries.is_due


def test_what_is_answered_without_a_batch_asks_for_a_mark_and_waits_for_it() -> None:
    partition = Partition(Source("life", 0))
    partition.deliveries.begin("life", 3)
    order = request()
    partition.receive(3, order)
    answer(order)
    assert partition.deliveries.is_due
    assert partition.nudges
    assert not partition.told
    assert partition.store() == Source("life", 3)
    assert partition.told == {3: 1}
    assert partition.store() is None


def test_a_message_of_several_batches_ends_with_the_last_of_them() -> None:
    partition = Partition(Source("life", 0))
    partition.deliveries.begin("life", 9)
    large, other = request(3), request()
    partition.receive(1, large, other)
    assert partition.store((large, 0, 2), whole(other)) is None
    # Decided, but its callers are not answered yet: the next mark does not know that.
    assert partition.store((large, 2, 3)) is None
    large.answer(0, [None, None])  # type: ignore[list-item]
    large.answer(2, [None])  # type: ignore[list-item]
    answer(other)
    assert partition.deliveries.is_due
    assert partition.store() == Source("life", 1)
    assert partition.told == {1: 1}


def test_messages_decided_out_of_order_are_ranges_ahead_until_the_gap_closes() -> None:
    partition = Partition(Source("life", 0))
    partition.deliveries.begin("life", 9)
    first, *rest = requests = [request() for _ in range(4)]
    for sequence, each in zip((1, 3, 4, 9), requests, strict=True):
        partition.receive(sequence, each)
    assert partition.store(whole(rest[0]), whole(rest[2])) == Source("life", 0, ((2, 3), (5, 9)))
    assert partition.store(whole(rest[1])) == Source("life", 0, ((2, 9),))
    assert partition.store(whole(first)) == Source("life", 9)
    assert partition.deliveries.under_way == 0


def test_a_new_owner_skips_what_is_decided_ahead_and_a_touching_range_joins() -> None:
    partition = Partition(Source("life", 5, ((7, 9),)))
    assert partition.deliveries.begin("life", 12) == 6
    order = request()
    assert partition.receive(6, order)
    assert partition.receive(8) is None
    assert partition.store(whole(order)) == Source("life", 9)
    # Also when the stream is read once more from where the mark says.
    assert partition.deliveries.begin("life", 12) == 10
    assert partition.receive(9) is None


def test_another_life_of_the_stream_begins_at_its_first_message_and_is_noted_at_once() -> None:
    partition = Partition(Source("life", 500, ((700, 700),)))
    assert partition.deliveries.begin("next life", 3) == 1
    assert partition.deliveries.source == Source("next life")
    assert partition.deliveries.is_due
    assert partition.store() == Source("next life")
    assert partition.store() is None
    assert partition.receive(1, request()) is not None


def test_what_was_read_of_a_life_that_is_over_is_told_nobody() -> None:
    partition = Partition(Source("life", 0))
    partition.deliveries.begin("life", 1)
    answered, late = request(), request()
    partition.receive(1, answered)
    partition.receive(2, late)
    answer(answered)
    partition.deliveries.begin("next life", 0)
    assert not partition.told
    answer(late)
    assert not partition.told
    assert partition.deliveries.under_way == 0


def test_a_mark_that_becomes_durable_after_a_new_life_began_is_none_of_that_life() -> None:
    partition = Partition(Source("life", 0))
    partition.deliveries.begin("life", 9)
    old, new = request(), request()
    partition.receive(9, old)
    mark = partition.deliveries.mark([batch(whole(old))])
    partition.deliveries.begin("next life", 2)
    partition.receive(2, new)
    assert mark == Source("life", 9)
    partition.row = mark
    partition.deliveries.stored(mark)
    assert partition.deliveries.source == Source("next life")
    assert partition.deliveries.under_way == 1
    answer(old)
    answer(new)
    assert not partition.told
    assert partition.store() == Source("next life", 2)
    assert partition.told == {2: 1}


def test_a_stream_that_lost_its_end_is_read_from_there_and_nothing_before_is_forgotten() -> None:
    partition = Partition(Source("life", 3))
    partition.deliveries.begin("life", 9)
    kept, lost = request(), request()
    partition.receive(5, kept)
    partition.receive(9, lost)
    assert partition.deliveries.is_cut("life", 7)
    assert not partition.deliveries.is_cut("life", 9)
    assert not partition.deliveries.is_cut("next life", 0)
    assert partition.deliveries.begin("life", 7) == 8
    assert partition.deliveries.source == Source("life", 3)
    answer(lost)
    assert not partition.told
    again = request()
    assert partition.receive(9, again)
    answer(again)
    assert partition.store(whole(kept)) == Source("life", 9)
    answer(kept)
    assert partition.told == {9: 1, 5: 1}


def test_a_new_owner_notices_that_what_was_decided_ahead_is_lost() -> None:
    partition = Partition(Source("life", 3, ((5, 6), (8, 20), (30, 30))))
    assert partition.deliveries.is_cut("life", 10)
    assert partition.deliveries.begin("life", 10) == 4
    assert partition.deliveries.source == Source("life", 3, ((5, 6), (8, 10)))
    assert partition.receive(11, request())


def test_a_stream_that_came_as_far_again_gets_a_mark_of_its_own() -> None:
    partition = Partition(Source("life", 9))
    partition.deliveries.begin("life", 7)
    order = request()
    partition.receive(9, order)
    answer(order)
    assert partition.store() == Source("life", 9)
    assert partition.told == {9: 1}
    assert not partition.deliveries.is_due
