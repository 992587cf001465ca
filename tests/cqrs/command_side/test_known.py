"""A hint from outside may be believed only for a command that was surely never queued."""

from __future__ import annotations

import asyncio

import pytest

from engine.cqrs.command_side.command_side import CommandSide
from engine.cqrs.messages import Rejected
from engine.stores.memory import MemoryStore
from engine.testing.faulty_store import FaultyStore
from engine.testing.virtual_clock import VirtualClock, settle
from tests.cqrs.bank_account import Deposit, Increment, Withdraw
from tests.cqrs.test_command_side import running

ACCOUNT = ("account", "a")
COUNTER = ("counter", "c")


async def test_what_was_executed_or_refused_is_known_and_what_never_came_is_not() -> None:
    async with running(MemoryStore()) as side:
        await side.bus.execute(Deposit("1", "a", 10))
        assert isinstance(await side.bus.execute(Withdraw("2", "a", 50)), Rejected)
        assert [side.may_know(ACCOUNT, each) for each in "123"] == [True, True, False]


async def test_of_an_aggregate_that_is_not_loaded_anything_may_be_known() -> None:
    store = MemoryStore()
    async with running(store) as side:
        assert side.may_know(ACCOUNT, "1")
        await side.bus.execute(Deposit("1", "a", 10))
    async with running(store) as side:
        assert side.may_know(ACCOUNT, "1")
        assert side.may_know(ACCOUNT, "2")
        await side.bus.execute(Deposit("3", "a", 10))
        assert [side.may_know(ACCOUNT, each) for each in "123"] == [True, False, True]


@pytest.mark.parametrize("events_min", [1, 10])
async def test_what_was_answered_before_a_snapshot_is_known(events_min: int) -> None:
    store = MemoryStore()
    names = [f"d{number}" for number in range(40)]
    async with running(store, residents__snapshot_events_min=events_min) as side:
        for name in names:
            await side.bus.execute(Deposit(name, "a", 1))
    async with running(store, residents__snapshot_events_min=events_min) as side:
        await side.bus.execute(Deposit("now", "a", 1))
        assert all(side.may_know(ACCOUNT, name) for name in names)
        # The filter lets few others through.
        others = [side.may_know(ACCOUNT, f"other-{number}") for number in range(1_000)]
        assert sum(others) < 500


async def test_what_is_queued_or_being_written_is_known() -> None:
    store = FaultyStore(MemoryStore(), ["ok", "hang"])
    async with running(store) as side:
        await side.bus.execute(Increment("0", "c"))
        flying = asyncio.create_task(side.bus.execute(Increment("flying", "c")))
        await settle()
        assert side.may_know(COUNTER, "flying")
        queued = asyncio.create_task(side.bus.execute(Increment("queued", "c")))
        await settle()
        assert side.may_know(COUNTER, "queued")
        store.released.set()
        await asyncio.gather(flying, queued)
        assert [side.may_know(COUNTER, each) for each in ("flying", "queued", "other")] == [
            True,
            True,
            False,
        ]


async def test_what_will_be_refused_is_known_while_its_batch_is_being_written() -> None:
    store = FaultyStore(MemoryStore(), ["ok", "hang"])
    async with running(store) as side:
        await side.bus.execute(Deposit("0", "a", 1))
        both = [Deposit("taken", "a", 1), Withdraw("refused", "a", 50)]
        flying = asyncio.create_task(side.bus.execute_many(both))
        await settle()
        assert side.may_know(ACCOUNT, "refused")
        store.released.set()
        await flying
        assert side.may_know(ACCOUNT, "refused")


async def test_what_waits_for_its_batch_to_fill_is_known() -> None:
    clock = VirtualClock()
    async with running(MemoryStore(), clock, batch__delay_ms_max=62.5) as side:
        await clock.run(side.bus.execute(Increment("0", "c")))
        waiting = asyncio.create_task(side.bus.execute(Increment("1", "c")))
        await settle()
        assert not waiting.done()
        assert side.may_know(COUNTER, "1")
        clock.advance(0.0625)
        await waiting


async def test_what_is_in_doubt_is_known() -> None:
    clock, store = VirtualClock(), FaultyStore(MemoryStore(), ["ok", "commit_then_raise"])
    async with running(store, clock) as side:
        await side.bus.execute(Increment("0", "c"))
        store.acquire_failures = 3
        doubted = asyncio.create_task(side.bus.execute(Increment("1", "c")))
        await settle()
        assert side.may_know(COUNTER, "1")
        await clock.run(_ended(doubted))
        assert side.may_know(COUNTER, "1")


async def _ended(task: asyncio.Task[object]) -> None:
    await asyncio.wait((task,))


async def test_who_waits_is_told_in_the_order_of_the_queue_with_what_is_being_written_at_zero() -> (
    None
):
    store = FaultyStore(MemoryStore(), ["hang"])
    async with running(store) as side:
        assert await side.waiting(COUNTER, ()) == {}
        tasks = [asyncio.create_task(side.bus.execute(Increment("0", "c")))]
        await settle()
        assert await _places(side) == [(0, "0")]
        tasks += [asyncio.create_task(side.bus.execute(Increment(each, "c"))) for each in "12"]
        await settle()
        assert await _places(side) == [(0, "0"), (1, "1"), (2, "2")]
        assert await side.waiting(("counter", "other"), ()) == {}
        store.released.set()
        await asyncio.gather(*tasks)
        assert await side.waiting(COUNTER, ()) == {}


async def _places(side: CommandSide) -> list[tuple[int, str]]:
    found = await side.waiting(COUNTER, ())
    return [(place, each.id) for place, each in found.values()]
