"""One writer serves many aggregates: the queue, races and memory stay right over a long life."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from engine.cqrs.command_side.partition import CONFLICTS_MAX
from engine.cqrs.command_side.publish import ANSWERS_AT_ONCE
from engine.cqrs.event_store import Lease, NewCommit, StoredCommit, StoredSnapshot
from engine.errors import (
    AggregateHalted,
    CommandIdReused,
    DeadlineExceeded,
    OutcomeUnknown,
    StoreUnavailable,
    StreamKey,
    WrongExpectedVersion,
)
from engine.stores.memory import MemoryStore
from engine.testing.faulty_store import FaultyStore
from engine.testing.virtual_clock import VirtualClock, settle
from tests.cqrs.bank_account import Deposit, Deposited, Increment, Incremented
from tests.cqrs.test_command_side import running


class WatchedStore(MemoryStore):
    """Loses version races on demand, hides commits, notes replays and snapshots."""

    def __init__(self) -> None:
        super().__init__()
        self.races = 0
        self.hidden: set[tuple[StreamKey, int]] = set()
        self.replayed: list[str] = []
        self.snapshots: list[tuple[int, int]] = []
        self.unreadable = False

    async def append(
        self, lease: Lease, commits: Sequence[NewCommit], *more: Any, **named: Any
    ) -> None:
        if self.races:
            self.races -= 1
            raise WrongExpectedVersion(frozenset(each.stream for each in commits))
        await super().append(lease, commits, *more, **named)

    async def read_stream(
        self, stream: StreamKey, after_version: int, limit: int
    ) -> list[StoredCommit]:
        if self.unreadable:
            raise StoreUnavailable("injected")
        if after_version == 0:
            self.replayed.append(stream[1])
        commits = await super().read_stream(stream, after_version, limit)
        return [each for each in commits if (stream, each.first_version) not in self.hidden]

    async def save_snapshot(self, snapshot: StoredSnapshot, *more: Any, **named: Any) -> None:
        (durable,) = await self.read_streams()
        self.snapshots.append((snapshot.version, durable.version))
        await super().save_snapshot(snapshot, *more, **named)


async def test_what_expired_leaves_its_place_in_the_queue_to_others() -> None:
    clock, store = VirtualClock(), FaultyStore(MemoryStore(), ["hang"])
    depths, outcomes = [], []
    async with running(store, clock, batch__size_max=2) as side:
        flying = asyncio.create_task(side.bus.execute(Increment("0", "c")))
        await settle()
        for turn in "abc":
            commands = [Increment(f"{turn}{n}", "c") for n in range(2)]
            late = asyncio.create_task(side.bus.execute_many(commands, timeout_ms=500))
            await settle()
            depths.append(side.statistics().queue_depth)
            clock.advance(0.5)
            depths.append(side.statistics().queue_depth)
            outcomes += await late
        # Released before anything is compared, so that closing has nothing to wait for.
        store.released.set()
        assert await flying == (Incremented("0"),)
        assert [type(each) for each in outcomes] == [DeadlineExceeded] * 6
        assert depths == [2, 0] * 3


async def test_a_caller_that_left_gives_its_place_back_at_its_deadline_at_the_latest() -> None:
    clock, store = VirtualClock(), FaultyStore(MemoryStore(), ["hang"])
    async with running(store, clock, queue__depth_max=1, batch__size_max=1) as side:
        flying = asyncio.create_task(side.bus.execute(Increment("0", "c")))
        await settle()
        leaving = asyncio.create_task(side.bus.execute(Increment("1", "c"), timeout_ms=500))
        await settle()
        leaving.cancel()
        await settle()
        clock.advance(0.5)
        waiting = asyncio.create_task(side.bus.execute(Increment("2", "c")))
        await settle()
        store.released.set()
        assert await flying == (Incremented("0"),)
        assert await waiting == (Incremented("2"),)


class GatedStore(MemoryStore):
    """Every transaction waits for its gate; `third` is set when the third one arrives."""

    def __init__(self) -> None:
        super().__init__()
        self.gates = [asyncio.Event() for _ in range(4)]
        self.seen = 0
        self.third = asyncio.Event()

    async def append(
        self, lease: Lease, commits: Sequence[NewCommit], *more: Any, **named: Any
    ) -> None:
        gate = self.gates[self.seen]
        self.seen += 1
        if self.seen == 3:
            self.third.set()
        await gate.wait()
        await super().append(lease, commits, *more, **named)


@pytest.mark.parametrize(("first", "second"), [(5, 5), (1, 9)])
async def test_a_list_that_expires_while_its_first_part_is_being_answered_keeps_that_answer(
    first: int, second: int
) -> None:
    clock, store = VirtualClock(), GatedStore()
    crowd = 5 * ANSWERS_AT_ONCE
    async with running(store, clock, batch__size_max=crowd + first) as side:
        tasks = [asyncio.create_task(side.bus.execute(Increment("first", "c")))]
        await settle()
        crowded = [side.bus.execute(Increment(f"{n}", "c")) for n in range(crowd)]
        tasks += [asyncio.create_task(each) for each in crowded]
        await settle()
        commands = [Increment(f"m{n}", "c") for n in range(first + second)]
        late = asyncio.create_task(side.bus.execute_many(commands, timeout_ms=500))
        await settle()
        store.gates[0].set()
        await settle()
        store.gates[1].set()
        # The first part is durable, and its caller stands behind the crowd; the rest is in flight.
        await store.third.wait()
        assert not all(task.done() for task in tasks)
        clock.advance(0.5)
        clock.advance(0.0)
        for gate in store.gates:
            gate.set()
        await asyncio.gather(*tasks)
        outcomes = await late
        assert outcomes[:first] == [(Incremented(f"m{n}"),) for n in range(first)]
        assert [type(each) for each in outcomes[first:]] == [OutcomeUnknown] * second
        assert side.statistics().unknown == second


async def test_races_that_were_won_in_the_end_are_not_held_against_later_ones() -> None:
    store, turns = WatchedStore(), 2 * CONFLICTS_MAX
    async with running(store) as side:
        for n in range(turns):
            store.races = 1
            assert await side.bus.execute(Deposit(f"{n}", "a", 1)) == (Deposited(f"{n}", 1),)
        assert side.statistics().conflicts == turns


async def test_a_batch_that_loses_every_race_is_given_up_as_not_executed() -> None:
    store = WatchedStore()
    async with running(store) as side:
        store.races = CONFLICTS_MAX
        with pytest.raises(WrongExpectedVersion, match="account 'a'"):
            await side.bus.execute(Deposit("1", "a", 1))
        assert await store.read_streams() == []
        # The next one has all its tries before it.
        store.races = CONFLICTS_MAX - 1
        assert await side.bus.execute(Deposit("1", "a", 1)) == (Deposited("1", 1),)
        assert side.statistics().queue_depth == 0


async def test_a_missing_commit_halts_its_aggregate_and_it_alone() -> None:
    store = WatchedStore()
    async with running(store) as side:
        for n in range(3):
            for name in "ab":
                await side.bus.execute(Deposit(f"{n}", name, 1))
    store.hidden = {(("account", "a"), 2)}
    async with running(store) as side:
        for command_id in ("0", "new"):
            with pytest.raises(AggregateHalted, match=r"events 2\.\.2 are missing"):
                await side.bus.execute(Deposit(command_id, "a", 1))
        assert await side.bus.execute(Deposit("new", "b", 1)) == (Deposited("new", 1),)
        assert side.statistics().halted == 1
    assert [(each.aggregate_id, each.version) for each in await store.read_streams()] == [
        ("a", 3),
        ("b", 4),
    ]


async def test_a_snapshot_is_kept_of_what_is_durable_every_so_many_events_and_at_closing() -> None:
    store = WatchedStore()
    async with running(store, residents__snapshot_events_min=2) as side:
        for n in range(9):
            await side.bus.execute(Deposit(f"{n}", "a", 1))
    assert store.snapshots == [(2, 2), (4, 4), (6, 6), (8, 8), (9, 9)]


async def test_without_snapshots_none_is_written_at_closing_either() -> None:
    store = WatchedStore()
    async with running(store, residents__snapshot_events_min=0) as side:
        await side.bus.execute(Deposit("1", "a", 1))
    assert store.snapshots == []


async def test_a_commit_that_failed_leaves_no_snapshot_of_what_it_would_have_been() -> None:
    store = WatchedStore()
    async with running(store, residents__snapshot_events_min=2) as side:
        await side.bus.execute(Deposit("1", "a", 1))
        store.races = 99
        with pytest.raises(WrongExpectedVersion):
            await side.bus.execute(Deposit("2", "a", 1))
        assert store.snapshots == []
    assert store.snapshots == []


async def test_after_a_restart_an_old_id_gets_its_first_answer_and_a_reused_one_is_told_apart() -> (
    None
):
    store = WatchedStore()
    async with running(store, residents__snapshot_events_min=3) as side:
        for n in range(3):
            await side.bus.execute(Deposit(f"{n}", "a", 1 + n))
    async with running(store, residents__snapshot_events_min=3) as side:
        await side.bus.execute(Deposit("late", "a", 9))
        # Nothing that the snapshot covers was replayed.
        assert store.replayed == ["a"]
        for n in range(3):
            assert await side.bus.execute(Deposit(f"{n}", "a", 1 + n)) == (
                Deposited(f"{n}", 1 + n),
            )
            with pytest.raises(CommandIdReused):
                await side.bus.execute(Deposit(f"{n}", "a", 77))
        assert side.statistics().repeated == 3
    assert [each.version for each in await store.read_streams()] == [4]


async def test_while_an_old_answer_cannot_be_read_its_command_fails_alone_and_is_not_sold_anew() -> (
    None
):
    store = WatchedStore()
    async with running(store, residents__snapshot_events_min=1) as side:
        await side.bus.execute(Deposit("old", "a", 1))
    async with running(store, residents__snapshot_events_min=1) as side:
        await side.bus.execute(Deposit("new", "a", 1))
        store.unreadable = True
        with pytest.raises(StoreUnavailable, match="injected"):
            await side.bus.execute(Deposit("old", "a", 1))
        await side.bus.execute(Deposit("other", "a", 1))
        store.unreadable = False
        assert await side.bus.execute(Deposit("old", "a", 1)) == (Deposited("old", 1),)


async def test_an_old_answer_that_is_gone_halts_its_aggregate() -> None:
    store = WatchedStore()
    async with running(store, residents__snapshot_events_min=1) as side:
        for n in range(2):
            await side.bus.execute(Deposit(f"{n}", "a", 1))
    store.hidden = {(("account", "a"), 1)}
    async with running(store, residents__snapshot_events_min=1) as side:
        with pytest.raises(AggregateHalted, match=r"events 1\.\.1 are missing"):
            await side.bus.execute(Deposit("0", "a", 1))


async def test_the_aggregate_used_last_stays_in_memory_and_the_one_idle_longest_leaves() -> None:
    store = WatchedStore()
    async with running(store, residents__aggregates_max=2) as side:
        for n, name in enumerate(["old", "idle", "old", "new", "old"]):
            await side.bus.execute(Deposit(f"{n}", name, 1))
            await settle()
        assert store.replayed == ["old", "idle", "new"]
        await side.bus.execute(Deposit("again", "idle", 1))
        assert store.replayed == ["old", "idle", "new", "idle"]
