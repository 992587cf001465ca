"""A mailbox is first come, first served, and loses and doubles nothing, however it is emptied."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.cqrs.messages import Rejected
from tests.cqrs.command_side.queued import mailbox, names_of, request


async def test_commands_are_taken_in_the_order_they_came_and_lists_are_cut_to_fit() -> None:
    box = mailbox(request("1"), request("2", "3", "4"), request("5"))
    assert box.depth == 5
    assert names_of(box.take(3)) == ["1", "2", "3"]
    assert box.depth == 2
    assert names_of(box.take(3)) == ["4", "5"]
    assert (box.depth, box.take(3)) == (0, [])


async def test_what_is_put_back_is_taken_next() -> None:
    box = mailbox(request("1", "2", "3"), request("4"))
    taken = box.take(2)
    box.put(request("5"))
    box.put_back(taken)
    assert box.depth == 5
    assert names_of(box.take(9)) == ["1", "2", "3", "4", "5"]


async def test_a_caller_that_left_is_not_taken_and_leaves_room() -> None:
    gone = request("2", "3")
    box = mailbox(request("1"), gone, request("4"))
    gone.future.cancel()
    assert names_of(box.take(2)) == ["1", "4"]
    assert box.depth == 0


async def test_finished_requests_are_dropped_and_counted() -> None:
    gone, waits = request("1", "2"), request("3")
    box = mailbox(gone, waits)
    gone.future.cancel()
    assert box.drop_finished() == 2
    assert box.drop_finished() == 0
    assert (box.depth, names_of(box.take(9))) == (1, ["3"])


@pytest.mark.parametrize("pieces", [[(0, 2), (2, 3)], [(2, 3), (0, 2)], [(0, 3)]])
async def test_a_list_is_answered_when_its_last_piece_is_in_list_order(
    pieces: list[tuple[int, int]],
) -> None:
    asked = request("1", "2", "3")
    outcomes = [Rejected(reason) for reason in "abc"]
    for start, stop in pieces[:-1]:
        asked.answer(start, list(outcomes[start:stop]))
        assert not asked.future.done()
    start, stop = pieces[-1]
    asked.answer(start, list(outcomes[start:stop]))
    assert asked.future.result() == outcomes


async def test_a_caller_is_answered_once() -> None:
    asked = request("1")
    asked.answer(0, [Rejected("first")])
    asked.answer(0, [Rejected("second")])
    assert asked.future.result() == [Rejected("first")]
    left = request("2")
    left.future.cancel()
    left.answer(0, [Rejected("late")])
    assert left.future.cancelled()


@given(
    sizes=st.lists(st.integers(1, 5), max_size=8),
    steps=st.lists(st.tuples(st.sampled_from(["take", "put back", "leave"]), st.integers(1, 6))),
)
def test_nothing_is_lost_doubled_or_overtaken(
    sizes: list[int], steps: list[tuple[str, int]]
) -> None:
    async def run() -> None:
        requests = [
            request(*(f"{number}-{n}" for n in range(size))) for number, size in enumerate(sizes)
        ]
        box = mailbox(*requests)
        served: list[str] = []
        for step, number in steps:
            if step == "leave" and requests:
                requests[number % len(requests)].future.cancel()
                continue
            taken = box.take(number)
            assert sum(stop - start for _, start, stop in taken) <= number
            if step == "put back":
                box.put_back(taken)
            else:
                served += names_of(taken)
        waiting = [each.id for ask, start, stop in box.queue for each in ask.commands[start:stop]]
        assert box.depth == len(waiting)
        there = served + waiting
        everything = [each.id for ask in requests for each in ask.commands]
        # In order and without repeats; only those whose caller left may be missing.
        assert there == [name for name in everything if name in set(there)]
        stayed = {each.id for ask in requests if not ask.future.done() for each in ask.commands}
        assert stayed <= set(there)

    asyncio.run(run())
