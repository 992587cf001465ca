"""What became of a command is told after everything before the question is clear."""

from __future__ import annotations

import asyncio

import pytest

from engine.cqrs.messages import Found, Rejected
from engine.errors import AggregateHalted, InvalidCommand, OutcomeUnknown
from engine.stores.memory import MemoryStore
from engine.testing.faulty_store import FaultyStore
from engine.testing.virtual_clock import VirtualClock, settle
from tests.cqrs.bank_account import (
    Corrupt,
    Deposit,
    Deposited,
    FeeCharged,
    Increment,
    Incremented,
    Withdraw,
    Withdrawn,
)
from tests.cqrs.test_command_side import running


async def test_the_answer_a_command_got_is_found_and_asking_changes_nothing() -> None:
    async with running(MemoryStore()) as side:
        bus = side.bus
        await bus.execute(Deposit("1", "a", 10))
        await bus.execute(Withdraw("2", "a", 5))
        await bus.execute(Withdraw("3", "a", 50))
        before = side.statistics()
        assert await bus.ask("account", "a", "1") == Found((Deposited("1", 10),))
        assert await bus.ask("account", "a", "2") == Found((Withdrawn("2", 5), FeeCharged("2", 1)))
        assert await bus.ask("account", "a", "3") == Found(Rejected("insufficient_balance"))
        assert await bus.ask("account", "a", "4") == Found(None)
        assert await bus.ask("account", "b", "1") == Found(None)
        after = side.statistics()
        assert (after.accepted, after.repeated, after.failed, after.transactions) == (
            before.accepted,
            before.repeated,
            before.failed,
            before.transactions,
        )
        # An unknown command may still be sent.
        assert await bus.execute(Deposit("4", "a", 1)) == (Deposited("4", 1),)


async def test_a_question_waits_for_what_is_queued_and_for_what_is_being_committed() -> None:
    store = FaultyStore(MemoryStore(), ["hang"])
    async with running(store) as side:
        flying = asyncio.create_task(side.bus.execute(Increment("flying", "c")))
        await settle()
        queued = asyncio.create_task(side.bus.execute(Increment("queued", "c")))
        await settle()
        asked = [
            asyncio.create_task(side.bus.ask("counter", "c", name))
            for name in ("flying", "queued", "never")
        ]
        await settle()
        pending = [task.done() for task in asked]
        store.released.set()
        await asyncio.gather(flying, queued)
        assert pending == [False] * 3
        assert [await task for task in asked] == [
            Found((Incremented("flying"),)),
            Found((Incremented("queued"),)),
            Found(None),
        ]


async def test_while_a_commit_is_in_doubt_nothing_is_claimed() -> None:
    clock, store = VirtualClock(), FaultyStore(MemoryStore(), ["commit_then_raise"])
    async with running(store, clock, queue__deadline_ms=100) as side:
        store.acquire_failures = 3
        flying = asyncio.create_task(side.bus.execute(Increment("1", "c")))
        await settle()
        asked = asyncio.create_task(side.bus.ask("counter", "c", "1", timeout_ms=60_000))
        await settle()
        clock.advance(0.1)
        with pytest.raises(OutcomeUnknown):
            await flying
        assert not asked.done()
        for _ in range(20):
            clock.advance(1.0)
            await settle()
        assert await asked == Found((Incremented("1"),))


async def test_a_question_that_names_nothing_is_refused_at_the_door() -> None:
    async with running(MemoryStore()) as side:
        with pytest.raises(InvalidCommand, match="command id must have 1 to 64 characters"):
            await side.bus.ask("account", "a", "")
        with pytest.raises(InvalidCommand, match="timeout_ms must be above 0"):
            await side.bus.ask("account", "a", "1", timeout_ms=0)


async def test_a_halted_aggregate_answers_no_questions() -> None:
    async with running(MemoryStore()) as side:
        with pytest.raises(AggregateHalted):
            await side.bus.execute(Corrupt("1", "a"))
        with pytest.raises(AggregateHalted):
            await side.bus.ask("account", "a", "1")
