"""The door: who gives up waiting takes back what is queued, and nothing else."""

from __future__ import annotations

import asyncio

import pytest

from engine.cqrs.messages import Command
from engine.stores.memory import MemoryStore
from engine.testing.faulty_store import FaultyStore
from engine.testing.virtual_clock import VirtualClock, settle
from tests.cqrs.bank_account import Deposit, Increment, Incremented
from tests.cqrs.test_command_side import running

LIST: list[Command] = [
    Increment("1", "c"),
    Increment("2", "c"),
    Increment("3", "c"),
    Increment("4", "d"),
    Deposit("5", "e", 5),
]


async def test_a_cancelled_list_takes_back_what_is_queued_and_not_what_is_in_flight() -> None:
    store = FaultyStore(MemoryStore(), ["hang"])
    async with running(store, VirtualClock(), batch__size_max=2, batch__aggregates_max=1) as side:
        asked = asyncio.create_task(side.bus.execute_many(LIST))
        await settle()
        waiting = side.statistics().queue_depth
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked
        store.released.set()
        await settle()
        # The first two were in flight, the rest was waiting in three mailboxes.
        assert (waiting, side.statistics().queue_depth) == (3, 0)
        versions = {each.aggregate_id: each.version for each in await store.read_streams()}
        assert versions == {"c": 2}
        # Asked again with the same ids: each is executed once, whatever had become of it.
        outcomes = await side.bus.execute_many(LIST)
        assert outcomes[:4] == [(Incremented(f"{n}"),) for n in (1, 2, 3, 4)]
        assert side.statistics().repeated == 2
    versions = {each.aggregate_id: each.version for each in await store.read_streams()}
    assert versions == {"c": 3, "d": 1, "e": 1}


async def test_a_list_cancelled_after_part_of_it_was_answered_takes_back_the_rest() -> None:
    store = FaultyStore(MemoryStore(), ["ok", "hang"])
    async with running(store, VirtualClock(), batch__size_max=3, batch__aggregates_max=1) as side:
        asked = asyncio.create_task(side.bus.execute_many(LIST))
        await settle()
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked
        store.released.set()
        await settle()
        assert store.taken == {"ok": 1, "hang": 1}
        assert side.statistics().queue_depth == 0
    versions = {each.aggregate_id: each.version for each in await store.read_streams()}
    assert versions == {"c": 3, "d": 1}


async def test_a_list_that_one_caller_gives_up_does_not_take_others_with_it() -> None:
    store = FaultyStore(MemoryStore(), ["hang"])
    async with running(store, VirtualClock()) as side:
        flying = asyncio.create_task(side.bus.execute(Increment("0", "c")))
        await settle()
        leaving = asyncio.create_task(side.bus.execute_many(LIST))
        await settle()
        staying = asyncio.create_task(side.bus.execute(Increment("6", "c")))
        await settle()
        leaving.cancel()
        await settle()
        store.released.set()
        assert await flying == (Incremented("0"),)
        assert await staying == (Incremented("6"),)
    versions = {each.aggregate_id: each.version for each in await store.read_streams()}
    assert versions == {"c": 2}
