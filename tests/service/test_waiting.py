"""However many buyers ask where they stand, one question at a time is asked for a SKU."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from typing import cast

from engine.cqrs.messages import Command
from engine.inventory.commands import Reserve
from engine.live_stock import LiveStock
from engine.service.waiting import LOOK_SECONDS, Place, Waiting
from engine.testing.virtual_clock import VirtualClock, settle


class FarQueue:
    """What `Waiting` needs of a LiveStock: the queue of another node, which answers when it may."""

    sees_all_waiting = False

    def __init__(self) -> None:
        self.asked: list[set[str]] = []
        self.answers = asyncio.Event()

    def row(self, sku: str) -> object | None:
        return None if sku == "MADE-UP" else object()

    async def waiting(self, sku: str, wanted: Collection[str]) -> Mapping[str, tuple[int, Command]]:
        self.asked.append(set(wanted))
        await self.answers.wait()
        return {each: (int(each), Reserve(each, sku, "alice", 1)) for each in wanted}


def looking() -> tuple[FarQueue, Waiting, VirtualClock]:
    queue, clock = FarQueue(), VirtualClock()
    return queue, Waiting(cast(LiveStock, queue), clock), clock


async def test_who_asks_while_a_question_is_on_its_way_waits_and_is_in_the_next_one() -> None:
    queue, waiting, clock = looking()
    asking = []
    for n in range(30):
        asking.append(asyncio.create_task(waiting.find("PHONE", str(n))))
        await settle()
        # Slower than the time that a look is good for.
        clock.advance(LOOK_SECONDS / 2)
    assert queue.asked == [{"0"}]
    queue.answers.set()
    places = await asyncio.gather(*asking)
    assert places == [Place(n, "alice") for n in range(30)]
    assert len(queue.asked) == 2


async def test_who_leaves_does_not_take_the_question_away_from_the_others() -> None:
    queue, waiting, _ = looking()
    first = asyncio.create_task(waiting.find("PHONE", "1"))
    second = asyncio.create_task(waiting.find("PHONE", "2"))
    await settle()
    first.cancel()
    await settle()
    queue.answers.set()
    assert await second == Place(2, "alice")
    assert queue.asked == [{"1", "2"}]


async def test_who_asked_a_moment_ago_is_asked_for_with_the_first_one_who_comes_again() -> None:
    queue, waiting, clock = looking()
    queue.answers.set()
    for n in "123":
        await waiting.find("PHONE", n)
    clock.advance(LOOK_SECONDS)
    before = len(queue.asked)
    for n in "123":
        assert await waiting.find("PHONE", n) == Place(int(n), "alice")
    assert queue.asked[before:] == [{"1", "2", "3"}]


async def test_no_other_node_is_asked_about_a_name_that_nobody_sells() -> None:
    queue, waiting, _ = looking()
    assert await waiting.find("MADE-UP", "1") is None
    assert queue.asked == []
