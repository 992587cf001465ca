"""The command side where callers, stores and aggregates misbehave."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from engine.config import load_settings
from engine.cqrs.aggregate import AggregateType, Registry
from engine.cqrs.command_side.command_side import CommandSide
from engine.cqrs.command_side.snapshots import SnapshotFormat
from engine.cqrs.event_store import Lease, NewCommit
from engine.cqrs.messages import Answer, Command, Event, Rejected
from engine.errors import CommandFailed, EngineClosed, OutcomeUnknown, StoreUnavailable
from engine.stores.memory import MemoryStore
from engine.testing.faulty_store import FaultyStore
from engine.testing.virtual_clock import VirtualClock, settle
from tests.cqrs.bank_account import Deposit, Deposited, Withdraw, Withdrawn
from tests.cqrs.test_command_side import running


async def test_a_commit_that_keeps_getting_lost_is_given_up_as_not_written() -> None:
    inner, clock = MemoryStore(), VirtualClock()
    store = FaultyStore(inner, ["lost_commit"] * 3)

    async def story() -> None:
        async with running(store, clock) as side:
            with pytest.raises(StoreUnavailable, match="nothing was written"):
                await side.bus.execute(Deposit("1", "a", 10))
            assert await inner.read_partition(0, 0, 10) == []
            # The disk has room again, and the order may be repeated.
            assert await side.bus.execute(Deposit("1", "a", 10)) == (Deposited("1", 10),)
            assert side.statistics().recoveries == 3

    started = clock.monotonic()
    await clock.run(story())
    assert clock.monotonic() > started, "it must not be tried again at once"


async def test_a_refusal_is_remembered_for_its_aggregate_alone() -> None:
    async with running(MemoryStore()) as side:
        refused = await side.bus.execute(Withdraw("1", "a", 5))
        assert refused == Rejected("insufficient_balance")
        assert await side.bus.execute(Withdraw("1", "b", 5)) == refused
        await side.bus.execute(Deposit("d", "a", 100))
        assert await side.bus.execute(Withdraw("1", "a", 5)) == refused
        assert side.statistics().repeated == 1
        await side.bus.execute(Deposit("d", "b", 100))
        assert await side.bus.execute(Withdraw("2", "b", 5)) != refused


async def test_a_snapshot_that_cannot_be_made_stops_nobody(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> bytes:
        raise TypeError("no such format")

    monkeypatch.setattr(SnapshotFormat, "encode", broken)
    async with running(MemoryStore(), residents__snapshot_events_min=1) as side:
        for n in range(3):
            assert await side.bus.execute(Deposit(f"{n}", "a", 1)) == (Deposited(f"{n}", 1),)
    assert "no such format" in caplog.text


class Broken(MemoryStore):
    """A store with a bug."""

    async def append(
        self, lease: Lease, commits: Sequence[NewCommit], *more: Any, **named: Any
    ) -> None:
        raise ZeroDivisionError("a bug in the store")


async def test_a_bug_in_the_store_leaves_those_in_flight_in_doubt_and_refuses_the_rest() -> None:
    async with running(Broken()) as side:
        with pytest.raises(OutcomeUnknown):
            await side.bus.execute(Deposit("1", "a", 1))
        with pytest.raises(EngineClosed, match="a bug in the store"):
            await side.bus.execute(Deposit("2", "a", 1))


class Spend(Command, frozen=True, gc=False):
    how: str


class Spent(Event, frozen=True, gc=False, tag="spent.1"):
    pass


def spender() -> Registry:
    def decide(state: dict[str, int], command: Command, at_us: int) -> Answer:
        assert isinstance(command, Spend)
        if command.how == "undeclared":
            return (Spent(command.id), Withdrawn(command.id, 1))
        if command.how == "nothing":
            return ()
        return (Spent(command.how),)

    def evolve(state: dict[str, int], event: Event) -> dict[str, int]:
        return state

    kind: AggregateType[Any] = AggregateType(
        "purse", dict[str, int], {Spend: (Spent,)}, dict, decide, evolve
    )
    return Registry([kind])


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("undeclared", "Withdrawn is not declared as an event"),
        ("nothing", "answered with no event"),
        ("other-id", "carries the id of another command"),
    ],
)
async def test_events_that_could_not_be_read_back_are_never_stored(how: str, message: str) -> None:
    store = MemoryStore()
    settings = load_settings(None, None, {})
    side = await CommandSide.open(store, spender(), settings, VirtualClock())
    try:
        with pytest.raises(CommandFailed, match=message):
            await side.bus.execute(Spend("1", "a", how))
        assert await side.bus.execute(Spend("1", "a", "1")) == (Spent("1"),)
    finally:
        await side.close()
    assert len(await store.read_partition(0, 0, 10)) == 1


async def test_closing_that_is_given_up_leaves_no_loop_that_writes() -> None:
    store = FaultyStore(MemoryStore(), ["hang"])
    settings = load_settings(None, None, {})
    side = await CommandSide.open(store, spender(), settings, VirtualClock())
    order = asyncio.create_task(side.bus.execute(Spend("1", "a", "1")))
    await settle()
    closing = asyncio.create_task(side.close())
    await asyncio.sleep(0)
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    with pytest.raises(OutcomeUnknown):
        await order
    store.released.set()
    await asyncio.gather(*side._loops, return_exceptions=True)
    assert all(loop.done() for loop in side._loops)
