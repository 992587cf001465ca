"""The command side with a bank account and a counter: general, ordered, bounded."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.clock import SystemClock
from engine.config import load_settings
from engine.cqrs.codec import checksum
from engine.cqrs.command_side import ahead
from engine.cqrs.command_side.command_side import CommandSide
from engine.cqrs.event_store import StoredSnapshot
from engine.cqrs.messages import Outcome, Rejected
from engine.errors import (
    AggregateHalted,
    CommandFailed,
    DeadlineExceeded,
    EngineClosed,
    InvalidCommand,
    OutcomeUnknown,
    Overloaded,
    SeckillError,
)
from engine.stores.memory import MemoryStore
from engine.testing.faulty_store import FaultyStore
from engine.testing.virtual_clock import VirtualClock, settle
from tests.cqrs.bank_account import (
    Audit,
    Corrupt,
    Deposit,
    Deposited,
    FeeCharged,
    Increment,
    Incremented,
    Withdraw,
    Withdrawn,
    bank_registry,
)


@asynccontextmanager
async def running(
    store: MemoryStore | FaultyStore, clock: VirtualClock | None = None, **overrides: object
) -> AsyncIterator[CommandSide]:
    """A command side; overrides use `__` for the dot of a setting."""
    settings = load_settings(
        environ={}, overrides={key.replace("__", "."): value for key, value in overrides.items()}
    )
    side = await CommandSide.open(store, bank_registry(), settings, clock or SystemClock())
    try:
        yield side
    finally:
        await side.close()


async def test_commands_of_one_aggregate_are_decided_in_order_each_on_the_last() -> None:
    async with running(MemoryStore()) as side:
        outcomes = await side.bus.execute_many(
            [Deposit("1", "a", 10), Withdraw("2", "a", 8), Withdraw("3", "a", 8), Audit("4", "a")]
        )
        assert outcomes[:3] == [
            (Deposited("1", 10),),
            (Withdrawn("2", 8), FeeCharged("2", 1)),
            Rejected("insufficient_balance"),
        ]
        assert isinstance(outcomes[3], CommandFailed)
        assert isinstance(outcomes[3].__cause__, ZeroDivisionError)
        # A command of two events is repeated as a whole, also after a restart.
        assert await side.bus.execute(Withdraw("2", "a", 8)) == outcomes[1]


async def test_two_types_may_share_an_id() -> None:
    async with running(MemoryStore()) as side:
        assert await side.bus.execute(Deposit("1", "a", 5)) == (Deposited("1", 5),)
        assert await side.bus.execute(Increment("1", "a")) == (Incremented("1"),)


async def test_an_event_that_cannot_be_applied_stops_its_aggregate_alone() -> None:
    store = MemoryStore()
    async with running(store) as side:
        await side.bus.execute(Deposit("1", "a", 5))
        with pytest.raises(AggregateHalted):
            await side.bus.execute(Corrupt("2", "a"))
        with pytest.raises(AggregateHalted):
            await side.bus.execute(Deposit("3", "a", 5))
        assert await side.bus.execute(Deposit("1", "b", 5)) == (Deposited("1", 5),)
    assert len(await store.read_partition(0, 0, 9)) == 2


async def test_a_list_keeps_its_order_over_aggregates_and_batches() -> None:
    commands = [Increment(f"{n}", f"c{n % 3}") for n in range(50)]
    async with running(MemoryStore(), batch__size_max=4) as side:
        outcomes = await side.bus.execute_many(commands)
        assert outcomes == [(Incremented(f"{n}"),) for n in range(50)]
        assert side.statistics().closed_by["size"] >= 12


async def test_a_malformed_command_in_a_list_is_named_and_nothing_happens() -> None:
    store = MemoryStore()
    async with running(store) as side:
        with pytest.raises(InvalidCommand, match="command 1 of the list"):
            await side.bus.execute_many([Increment("1", "c"), Increment("", "c")])
    assert await store.read_partition(0, 0, 9) == []


async def test_a_full_queue_refuses_at_once_and_queues_nothing() -> None:
    store = FaultyStore(MemoryStore(), ["hang"])
    async with running(store, queue__depth_max=3, batch__size_max=1) as side:
        first = asyncio.create_task(side.bus.execute(Increment("0", "c")))
        await settle()
        waiting = asyncio.create_task(
            side.bus.execute_many([Increment(f"{n}", "c") for n in (1, 2)])
        )
        await settle()
        with pytest.raises(Overloaded) as caught:
            await side.bus.execute_many([Increment(f"{n}", "d") for n in (3, 4)])
        assert caught.value.retry_after_seconds > 0
        store.released.set()
        assert len(await waiting) == 2
        await first
    assert side.statistics().overloaded == 2
    assert [each.aggregate_id for each in await store.read_streams()] == ["c"]


async def test_deadlines_tell_what_was_not_executed_from_what_is_in_doubt() -> None:
    clock, store = VirtualClock(), FaultyStore(MemoryStore(), ["hang"])
    async with running(store, clock) as side:
        flying = asyncio.create_task(side.bus.execute(Increment("1", "c"), timeout_ms=1_000))
        await settle()
        queued = asyncio.create_task(side.bus.execute(Increment("2", "c"), timeout_ms=500))
        await settle()
        clock.advance(0.6)
        with pytest.raises(DeadlineExceeded):
            await queued
        assert not flying.done()
        clock.advance(0.6)
        with pytest.raises(OutcomeUnknown):
            await flying
        store.released.set()
        assert await side.bus.execute(Increment("1", "c")) == (Incremented("1"),)
    assert [each.version for each in await store.read_streams()] == [1]
    statistics = side.statistics()
    assert (statistics.expired, statistics.unknown, statistics.repeated) == (1, 1, 1)


async def test_a_delayed_batch_waits_for_its_time_or_its_size() -> None:
    clock = VirtualClock()
    async with running(MemoryStore(), clock, batch__delay_ms_max=50, batch__size_max=3) as side:
        lonely = asyncio.create_task(side.bus.execute(Increment("1", "c")))
        await settle()
        clock.advance(0.049)
        await settle()
        assert not lonely.done()
        clock.advance(0.002)
        await lonely
        await side.bus.execute_many([Increment(f"{n}", "c") for n in (2, 3, 4)])
        assert side.statistics().closed_by == {"delay": 1, "size": 1}


async def test_a_hot_aggregate_does_not_starve_another() -> None:
    store = FaultyStore(MemoryStore(), ["hang"])
    async with running(store, batch__size_max=2) as side:
        hot = asyncio.create_task(
            side.bus.execute_many([Increment(f"{n}", "hot") for n in range(100)])
        )
        await settle()
        cold = asyncio.create_task(side.bus.execute(Increment("x", "cold")))
        await settle()
        store.released.set()
        await cold
        assert not hot.done()
        await hot


async def test_a_caller_that_leaves_the_queue_is_not_executed() -> None:
    store = FaultyStore(MemoryStore(), ["hang"])
    async with running(store) as side:
        flying = asyncio.create_task(side.bus.execute(Increment("1", "c")))
        await settle()
        queued = asyncio.create_task(side.bus.execute(Increment("2", "c")))
        await settle()
        queued.cancel()
        await settle()
        store.released.set()
        await flying
    assert [each.version for each in await store.read_streams()] == [1]
    assert side.statistics().queue_depth == 0


async def test_closing_finishes_what_is_queued_and_takes_no_more() -> None:
    store = FaultyStore(MemoryStore(), ["hang"])
    async with running(store) as side:
        tasks = [asyncio.create_task(side.bus.execute(Increment(f"{n}", "c"))) for n in range(3)]
        await settle()
        closing = asyncio.create_task(side.close())
        await settle()
        with pytest.raises(EngineClosed):
            await side.bus.execute(Increment("9", "c"))
        store.released.set()
        await closing
        assert await asyncio.gather(*tasks) == [(Incremented(f"{n}"),) for n in range(3)]


async def test_when_closing_returns_everybody_has_the_answer() -> None:
    async with running(MemoryStore()) as side:
        requests = [side.bus.execute(Increment(f"{n}", "c")) for n in range(5_000)]
        tasks = [asyncio.ensure_future(each) for each in requests]
        await asyncio.sleep(0)
        await side.close()
        # What is answered wakes up in one more turn of the loop.
        await asyncio.sleep(0)
        assert all(task.done() for task in tasks)


async def test_an_evicted_aggregate_answers_as_before() -> None:
    async with running(MemoryStore(), residents__aggregates_max=1) as side:
        for name in ("a", "b", "c"):
            await side.bus.execute(Deposit("1", name, 5))
        assert side.statistics().residents <= 2
        assert await side.bus.execute(Deposit("1", "a", 5)) == (Deposited("1", 5),)
        assert side.statistics().repeated == 1


@pytest.mark.parametrize("damage", ["none", "checksum", "version", "code version", "bytes"])
async def test_a_snapshot_saves_the_replay_and_is_never_trusted_when_damaged(damage: str) -> None:
    store = MemoryStore()
    async with running(store, residents__snapshot_events_min=2) as side:
        for n in range(3):
            await side.bus.execute(Deposit(f"{n}", "a", 10))
    snapshot = await store.load_snapshot(("account", "a"))
    assert snapshot is not None
    state, check, code = snapshot.state, snapshot.checksum, snapshot.code_version
    version = snapshot.version
    if damage == "checksum":
        check += 1
    elif damage == "version":
        version += 1
    elif damage == "code version":
        code += 1
    elif damage == "bytes":
        state = b"\xc1"
        check = checksum(state)
    changed = StoredSnapshot("account", "a", version, code, state, check)
    await store.save_snapshot(changed)
    async with running(store, residents__snapshot_events_min=0) as side:
        assert await side.bus.execute(Deposit("0", "a", 10)) == (Deposited("0", 10),)
        assert await side.bus.execute(Withdraw("w", "a", 29)) == (
            Withdrawn("w", 29),
            FeeCharged("w", 1),
        )


@given(
    seed=st.integers(0, 2**32),
    faults=st.floats(0, 0.6),
    restarts=st.integers(0, 3),
    mode=st.sampled_from(["fixed", "adaptive"]),
    is_remote=st.booleans(),
)
def test_whatever_fails_the_store_holds_what_was_acknowledged(
    seed: int, faults: float, restarts: int, mode: str, is_remote: bool
) -> None:
    """Random faults and restarts: each acknowledged id once, refused ones never, unknown 0 or 1."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ahead, "COMMANDS_MIN", 1)
        patch.setattr(MemoryStore, "is_remote", is_remote)
        asyncio.run(_torture(seed, faults, restarts, mode))


async def _torture(seed: int, faults: float, restarts: int, mode: str) -> None:
    rng = random.Random(seed)
    inner = MemoryStore(2)
    answers: dict[tuple[str, str], list[Outcome]] = {}
    clock = VirtualClock()
    for _ in range(restarts + 1):
        store = FaultyStore.seeded(inner, rng.randrange(2**32), faults)
        limits = {"batch__size_max": rng.choice([1, 3, 100]), "batch__mode": mode}
        async with running(store, clock, **limits) as side:
            tasks = {}
            for _ in range(30):
                key = (rng.choice("abc"), f"{rng.randrange(40)}")
                command = Increment(key[1], key[0])
                tasks[asyncio.create_task(side.bus.execute(command))] = key
                if rng.random() < 0.3:
                    await settle()
            while not all(task.done() for task in tasks):
                await settle()
                clock.advance(0.05)
            for task, key in tasks.items():
                error = task.exception()
                assert error is None or isinstance(error, SeckillError)
                answers.setdefault(key, []).append(task.result() if error is None else error)
    held: dict[tuple[str, str], int] = {}
    for partition in range(2):
        for each in await inner.read_partition(partition, 0, 10_000):
            for event in command_ids(each.events):
                key = (each.aggregate_id, event)
                held[key] = held.get(key, 0) + 1
    assert set(held) <= set(answers)
    for key, outcomes in answers.items():
        acknowledged = any(isinstance(each, tuple) for each in outcomes)
        unknown = any(isinstance(each, OutcomeUnknown) for each in outcomes)
        assert held.get(key, 0) == 1 if acknowledged else held.get(key, 0) <= int(unknown)


def command_ids(events: bytes) -> list[str]:
    return [str(each["command_id"]) for each in msgspec.json.decode(events)]
