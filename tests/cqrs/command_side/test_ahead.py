"""A batch that is decided while the one before it is written: nobody can tell, whatever happens to it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeAlias

import msgspec
import pytest

from engine.cqrs.command_side import ahead, rounds
from engine.cqrs.command_side.command_side import CommandSide
from engine.cqrs.command_side.commit import ATTEMPTS_MAX
from engine.cqrs.command_side.decide import Decision, decide
from engine.cqrs.event_store import Lease, NewCommit, StoredCommit, StoredSnapshot
from engine.cqrs.messages import Command, Outcome, Rejected
from engine.errors import (
    AggregateHalted,
    CommandIdReused,
    DeadlineExceeded,
    Fenced,
    OutcomeUnknown,
    PartitionLost,
    SeckillError,
    StoreError,
    StoreUnavailable,
    StreamKey,
    WrongExpectedVersion,
)
from engine.stores.memory import MemoryStore
from engine.testing.virtual_clock import VirtualClock, settle
from tests.cqrs.bank_account import (
    Corrupt,
    Deposit,
    Deposited,
    Increment,
    Withdraw,
)
from tests.cqrs.test_command_side import running

Sending: TypeAlias = asyncio.Task[list[Outcome | SeckillError]]

POOR = Rejected("insufficient_balance")
A = ("account", "a")


class RemoteStore(MemoryStore):
    """Each transaction waits at its gate, and fails with the error that is written for it."""

    is_remote = True

    def __init__(self) -> None:
        super().__init__()
        self.gates = [asyncio.Event() for _ in range(20)]
        self.errors: dict[int, SeckillError] = {}
        self.transactions: list[list[str]] = []
        self.replayed = 0
        self.readable = asyncio.Event()
        self.readable.set()
        self.snapshots: list[tuple[int, int]] = []
        self.loads = 0

    async def append(
        self, lease: Lease, commits: Sequence[NewCommit], *more: Any, **named: Any
    ) -> None:
        number = len(self.transactions)
        self.transactions.append([each.aggregate_id for each in commits])
        await self.gates[number].wait()
        if number in self.errors:
            raise self.errors[number]
        await super().append(lease, commits, *more, **named)

    async def read_stream(
        self, stream: StreamKey, after_version: int, limit: int
    ) -> list[StoredCommit]:
        self.replayed += after_version == 0
        await self.readable.wait()
        return await super().read_stream(stream, after_version, limit)

    async def load_snapshot(self, stream: StreamKey) -> StoredSnapshot | None:
        self.loads += 1
        return await super().load_snapshot(stream)

    async def save_snapshot(self, snapshot: StoredSnapshot, *more: Any, **named: Any) -> None:
        (durable,) = await self.read_streams()
        self.snapshots.append((snapshot.version, durable.version))
        await super().save_snapshot(snapshot, *more, **named)

    def open(self) -> None:
        for gate in self.gates:
            gate.set()

    async def stored(self, stream: StreamKey = A) -> list[str]:
        """The ids of the commands whose events are there, in their order."""
        commits = await super().read_stream(stream, 0, 99)
        return [
            event["command_id"] for each in commits for event in msgspec.json.decode(each.events)
        ]


@pytest.fixture(autouse=True)
def decided(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The ids of the commands in the order in which they were decided, one by one."""
    ids: list[str] = []

    def note(resident: Any, commands: Sequence[Command], *more: Any) -> Decision:
        ids.extend(each.id for each in commands)
        return decide(resident, commands, *more)

    monkeypatch.setattr(rounds, "decide", note)
    monkeypatch.setattr(rounds, "COMMANDS_AT_ONCE", 1)
    monkeypatch.setattr(ahead, "COMMANDS_MIN", 2)
    return ids


@asynccontextmanager
async def selling(
    store: RemoteStore, clock: VirtualClock | None = None, **settings: object
) -> AsyncIterator[CommandSide]:
    """In batches of two; a test that fails must not wait for a gate."""
    async with running(store, clock, batch__size_max=2, **settings) as side:
        try:
            yield side
        finally:
            store.open()


def deposits(*ids: str, amount: int = 1) -> list[Command]:
    return [Deposit(each, "a", amount) for each in ids]


def send(side: CommandSide, commands: list[Command], timeout_ms: int = 60_000) -> Sending:
    return asyncio.create_task(side.bus.execute_many(commands, timeout_ms=timeout_ms))


async def test_a_full_batch_is_decided_meanwhile_and_answered_when_its_own_events_are_durable(
    decided: list[str],
) -> None:
    store = RemoteStore()
    async with selling(store) as side:
        first = send(side, deposits("1", "2"))
        second = send(side, deposits("3", "4"))
        third = send(side, deposits("5"))
        await settle()
        assert decided == ["1", "2", "3", "4"]
        assert (store.transactions, side.statistics().queue_depth) == ([["a"]], 1)
        places = await side.waiting(A, {"1", "3", "4", "5"})
        assert sorted(place for place, _ in places.values()) == [0, 0, 0, 0, 1]
        store.gates[0].set()
        await settle()
        assert (first.done(), second.done(), third.done()) == (True, False, False)
        assert side.statistics().queue_depth == 1
        store.open()
        assert await second == [(Deposited("3", 1),), (Deposited("4", 1),)]
        await third
    assert await store.stored() == ["1", "2", "3", "4", "5"]
    assert store.transactions == [["a"]] * 3
    assert store.replayed == 1


@pytest.mark.parametrize(
    "why_not", ["not full", "another waits", "small", "a store of this process", "snapshot is due"]
)
async def test_what_is_not_decided_ahead(
    why_not: str, decided: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = RemoteStore()
    settings: dict[str, object] = {"batch__aggregates_max": 1}
    following = deposits("3", "4")
    match why_not:
        case "not full":
            following = deposits("3")
        case "small":
            monkeypatch.setattr(ahead, "COMMANDS_MIN", 3)
        case "a store of this process":
            monkeypatch.setattr(RemoteStore, "is_remote", False)
        case "snapshot is due":
            settings["residents__snapshot_events_min"] = 2
    async with selling(store, None, **settings) as side:
        sent = [send(side, deposits("1", "2")), send(side, following)]
        if why_not == "another waits":
            sent.append(send(side, [Increment("c", "c")]))
        await settle()
        assert store.transactions == [["a"]]
        before = list(decided)
        store.open()
        await asyncio.gather(*sent)
    assert before == ["1", "2"]


async def test_who_comes_meanwhile_waits_for_one_transaction_more_at_most() -> None:
    store = RemoteStore()
    async with selling(store, batch__aggregates_max=1) as side:
        sent = [send(side, deposits(*map(str, range(10))))]
        await settle()
        sent.append(send(side, [Increment("c", "c")]))
        await settle()
        store.open()
        await asyncio.gather(*sent)
    assert store.transactions == [["a"], ["a"], ["c"], ["a"], ["a"], ["a"]]


async def test_a_repeated_command_is_refused_as_in_the_batch_that_is_being_written(
    decided: list[str],
) -> None:
    store = RemoteStore()
    async with selling(store) as side:
        refused = Withdraw("w", "a", 5)
        first = send(side, [refused, Deposit("1", "a", 90)])
        second = send(side, [refused, Withdraw("w", "a", 7)])
        await settle()
        assert decided == ["w", "1", "w", "w"]
        store.open()
        assert (await first)[0] == POOR
        again, reused = await second
        assert again == POOR
        assert isinstance(reused, CommandIdReused)


@pytest.mark.parametrize("error", [StoreUnavailable("away"), WrongExpectedVersion(frozenset({A}))])
async def test_when_a_transaction_fails_what_was_decided_on_it_is_decided_anew(
    error: StoreError, decided: list[str]
) -> None:
    store, clock = RemoteStore(), VirtualClock()
    store.errors = dict.fromkeys(
        range(ATTEMPTS_MAX if isinstance(error, StoreUnavailable) else 1), error
    )
    async with selling(store, clock) as side:
        first = send(side, [Withdraw("w", "a", 5), Deposit("1", "a", 90)])
        second = send(side, [Withdraw("2", "a", 80), Deposit("w", "a", 7)])
        await settle()
        assert decided == ["w", "1", "2", "w"]
        store.open()
        outcomes = await clock.run(asyncio.wait_for(asyncio.gather(first, second), None))
        assert side.statistics().queue_depth == 0
    if isinstance(error, StoreUnavailable):
        # Neither the deposit nor the refusal ever were.
        assert [type(each) for each in outcomes[0]] == [StoreUnavailable] * 2
        assert outcomes[1] == [POOR, (Deposited("w", 7),)]
        assert await store.stored() == ["w"]
    else:
        assert outcomes[0] == [POOR, (Deposited("1", 90),)]
        assert [type(each) for each in outcomes[1]] == [tuple, CommandIdReused]
        assert await store.stored() == ["1", "2", "2"]
    assert store.replayed == 2


@pytest.mark.parametrize("fails", [False, True])
async def test_whose_deadline_passes_meanwhile_is_in_doubt_and_holds_nobody_up(
    fails: bool, decided: list[str]
) -> None:
    store, clock = RemoteStore(), VirtualClock()
    async with selling(store, clock) as side:
        first = send(side, deposits("1", "2", amount=50))
        late = send(side, deposits("3"), timeout_ms=500)
        other = send(side, deposits("4"))
        left = send(side, deposits("0"), timeout_ms=300)
        await settle()
        assert decided == ["1", "2", "3", "4"]
        clock.advance(0.3)
        assert [type(each) for each in await left] == [DeadlineExceeded]
        clock.advance(0.2)
        assert [type(each) for each in await late] == [OutcomeUnknown]
        if fails:
            store.errors = dict.fromkeys(range(ATTEMPTS_MAX), StoreUnavailable("away"))
        store.open()
        await clock.run(asyncio.wait_for(asyncio.gather(first, other), None))
        assert (await other) == [(Deposited("4", 1),)]
        counted = side.statistics()
        assert (counted.queue_depth, counted.unknown, counted.conflicts) == (0, 1, 0)
    # Whoever was in doubt is not executed once it has been queued again.
    assert await store.stored() == (["4"] if fails else ["1", "2", "3", "4"])
    assert store.replayed == (2 if fails else 1)


async def test_a_batch_that_needs_to_read_keeps_nobody_waiting(decided: list[str]) -> None:
    store, clock = RemoteStore(), VirtualClock()
    store.gates[0].set()
    async with running(store, clock, residents__snapshot_events_min=1) as side:
        await send(side, deposits("old"))
    decided.clear()
    async with selling(store, clock) as side:
        await send(side, [Withdraw("load", "a", 900)])
        first = send(side, deposits("1", "2"))
        second = send(side, deposits("old", "3"))
        await settle()
        assert decided == ["load", "1", "2"]
        store.readable.clear()
        store.gates[1].set()
        await settle()
        assert first.done()
        store.readable.set()
        store.open()
        assert await second == [(Deposited("old", 1),), (Deposited("3", 1),)]
        assert side.statistics().queue_depth == 0
    assert await store.stored() == ["old", "1", "2", "3"]
    assert store.loads == 2


async def test_what_cannot_be_decided_halts_its_aggregate_once_the_batch_before_is_durable() -> (
    None
):
    store = RemoteStore()
    async with selling(store) as side:
        first = send(side, deposits("1", "2"))
        second = send(side, [Deposit("3", "a", 1), Corrupt("4", "a")])
        await settle()
        assert not second.done()
        store.open()
        assert [type(each) for each in await second] == [AggregateHalted] * 2
        assert await first == [(Deposited("1", 1),), (Deposited("2", 1),)]
        assert side.statistics().halted == 1
    assert await store.stored() == ["1", "2"]


@pytest.mark.parametrize("error", [Fenced(0, 1), PartitionLost("another owner wrote to it")])
async def test_when_the_partition_is_lost_nothing_of_it_is_in_doubt(error: SeckillError) -> None:
    store = RemoteStore()
    store.errors[0] = error
    async with selling(store) as side:
        first, second = send(side, deposits("1", "2")), send(side, deposits("3", "4"))
        await settle()
        store.open()
        written = PartitionLost if isinstance(error, Fenced) else OutcomeUnknown
        assert [type(each) for each in await first] == [written] * 2
        assert [type(each) for each in await second] == [PartitionLost] * 2
        assert side.statistics().queue_depth == 0
    assert await store.stored() == []


async def test_what_could_not_be_decided_leaves_no_trace_in_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    failures = ["4"]

    def fail_once(resident: Any, commands: Sequence[Command], *more: Any) -> Decision:
        if failures and commands[0].id == failures[0]:
            raise MemoryError(failures.pop())
        return decide(resident, commands, *more)

    monkeypatch.setattr(rounds, "decide", fail_once)
    store = RemoteStore()
    async with selling(store) as side:
        sent = [send(side, deposits("1", "2")), send(side, deposits("3", "4"))]
        await settle()
        assert not failures
        store.open()
        assert await sent[1] == [(Deposited("3", 1),), (Deposited("4", 1),)]
        assert side.statistics().conflicts == 0
    assert await store.stored() == ["1", "2", "3", "4"]
    assert store.replayed == 2


async def test_snapshots_are_taken_under_endless_load_and_only_of_what_is_durable() -> None:
    store = RemoteStore()
    store.open()
    async with selling(store, residents__snapshot_events_min=6) as side:
        await asyncio.gather(*(send(side, deposits(f"{n}", f"{n}x")) for n in range(12)))
    assert [version for version, _ in store.snapshots] == [6, 12, 18, 24]
    assert all(version == durable for version, durable in store.snapshots)


async def test_an_aggregate_that_is_busy_without_a_pause_is_not_idle() -> None:
    store, clock = RemoteStore(), VirtualClock()
    async with selling(store, clock, residents__idle_seconds=5) as side:
        sent = [send(side, deposits(*map(str, range(20))))]
        for gate in store.gates[:10]:
            await settle()
            clock.advance(1)
            gate.set()
        await asyncio.gather(*sent)
        store.open()
        await send(side, deposits("later"))
    assert store.replayed == 1


async def test_who_closes_waits_for_it() -> None:
    store = RemoteStore()
    async with selling(store) as side:
        sent = [send(side, deposits("1", "2")), send(side, deposits("3", "4"))]
        await settle()
        closing = asyncio.create_task(side.close())
        await settle()
        assert not closing.done()
        store.open()
        await closing
        assert [len(each) for each in await asyncio.gather(*sent)] == [2, 2]
    assert await store.stored() == ["1", "2", "3", "4"]
