"""The door: who gives up waiting takes back what is queued, and nothing else."""

from __future__ import annotations

import asyncio

import pytest

from engine.cqrs.messages import Command
from engine.cqrs.partitioning import partition_of
from engine.errors import EngineClosed, Overloaded, PartitionLost, SeckillError
from engine.stores.memory import MemoryStore
from engine.testing.faulty_store import FaultyStore
from engine.testing.virtual_clock import VirtualClock, settle
from tests.cqrs.bank_account import Deposit, Deposited, Increment, Incremented
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


LOST, KEPT = partition_of("c", 3), partition_of("e", 3)


@pytest.mark.parametrize("reason", [PartitionLost("gone"), EngineClosed("it broke")])
async def test_a_partition_that_is_stopped_refuses_its_own_commands_of_a_list(
    reason: SeckillError,
) -> None:
    assert LOST != KEPT
    async with running(MemoryStore(3)) as side:
        side._partitions[LOST].stopped = reason
        outcomes = await side.bus.execute_many([Increment("1", "c"), Deposit("2", "e", 5)])
        assert isinstance(outcomes[0], type(reason))
        assert str(outcomes[0]) == str(reason)
        assert outcomes[1] == (Deposited("2", 5),)
        # Each caller has an error of its own: a traceback is written into it.
        alone = await side.bus.execute_many([Increment("4", "c"), Increment("5", "c")])
        assert [type(each) for each in alone] == [type(reason)] * 2
        with pytest.raises(type(reason)):
            await side.bus.execute(Increment("6", "c"))
        lost = isinstance(reason, PartitionLost)
        assert side.statistics().unserved == (4 if lost else 0)
        assert alone[0] is not alone[1]
        assert alone[0] is not reason


async def test_a_queue_that_is_full_refuses_the_whole_list_beside_a_stopped_partition() -> None:
    store = FaultyStore(MemoryStore(3), ["hang"])
    async with running(store, queue__depth_max=2, batch__size_max=1) as side:
        tasks = []
        for n in range(3):
            tasks.append(asyncio.create_task(side.bus.execute(Deposit(f"{n}", "e", 5))))
            await settle()
        side._partitions[LOST].stopped = PartitionLost("gone")
        with pytest.raises(Overloaded):
            await side.bus.execute_many([Increment("8", "c"), Deposit("9", "e", 5)])
        assert (side.statistics().overloaded, side.statistics().unserved) == (1, 0)
        store.released.set()
        await asyncio.gather(*tasks)


async def test_an_engine_that_closes_refuses_the_whole_list() -> None:
    async with running(MemoryStore(3)) as side:
        side._partitions[LOST].stopped = PartitionLost("gone")
        side.bus.close()
        with pytest.raises(EngineClosed):
            await side.bus.execute_many(LIST)
