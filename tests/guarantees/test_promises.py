"""One test a promise of docs/guarantees.md, each red as soon as its safeguard is removed.

Every test runs on the memory store and on a real SQLite file, through the public engine.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest

from engine.clock import SystemClock
from engine.config import Settings, load_settings
from engine.cqrs.codec import Codec, checksum
from engine.cqrs.command_side.command_side import CommandSide
from engine.cqrs.event_store import EventStore, Lease, NewCommit
from engine.cqrs.messages import Commit, Rejected
from engine.cqrs.partitioning import partition_of
from engine.engine import Engine
from engine.errors import (
    CommandIdReused,
    CommitOutcomeUnknown,
    Fenced,
    OutcomeUnknown,
    PartitionLost,
    StoreUnavailable,
    WrongExpectedVersion,
)
from engine.inventory.audit import audit
from engine.inventory.commands import Reserve
from engine.inventory.events import Reserved
from engine.inventory.sale import sale_registry
from engine.inventory.stock import STOCK
from engine.inventory.stock_table import stock_changes
from engine.stores.layout import Layout
from engine.stores.memory import MemoryStore
from engine.stores.mysql import MysqlStore
from engine.stores.mysql_schema import initialise
from engine.stores.mysql_url import parse_mysql_url
from engine.stores.sqlite import SqliteStore
from engine.testing.bare_engine import bare_engine

CODEC = Codec(STOCK.events)
HOME, OTHER = partition_of("A", 2), 1 - partition_of("A", 2)
NEIGHBOUR = next(f"B{n}" for n in range(9) if partition_of(f"B{n}", 2) == HOME)
"""A SKU that shares its partition, and so its transactions, with A."""


class Racing:
    """A store that lets a test do something just before an append."""

    def __init__(self, inner: EventStore) -> None:
        self._inner = inner
        self.before_append: Callable[[], Awaitable[None]] | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def append(
        self, lease: Lease, commits: Sequence[NewCommit], *more: Any, **named: Any
    ) -> None:
        hook, self.before_append = self.before_append, None
        if hook is not None:
            await hook()
        await self._inner.append(lease, commits)


@dataclass
class Faults:
    """Makes steps of the store's `append` fail: `steps` names them, each fails once per entry."""

    steps: list[str] = field(default_factory=list)
    taken: int = 0

    def __call__(self, step: str) -> None:
        if step in self.steps:
            self.steps.remove(step)
            self.taken += 1
            raise OSError(f"injected at {step}")


@dataclass
class Lab:
    store: EventStore
    faults: Faults
    settings: Settings

    @asynccontextmanager
    async def engine(self) -> AsyncIterator[Engine]:
        """Start the command side anew on the same store, as after a crash."""
        side = await CommandSide.open(self.store, sale_registry(), self.settings, SystemClock())
        try:
            yield bare_engine(self.store, side, self.settings, SystemClock())
        finally:
            await side.close()

    async def sold(self) -> list[str]:
        """The buyers in the store, one an order, and an audit that finds nothing wrong."""
        report = await audit(self.store)
        assert report.ok, report.checks
        commits = [
            commit
            for partition in range(self.store.partitions)
            for commit in await self.store.read_partition(partition, 0, 1_000)
        ]
        events = [event for commit in commits for event in CODEC.decode(commit)]
        return [event.buyer for event in events if isinstance(event, Reserved)]

    def raced(self) -> tuple[Racing, Lab]:
        """The same lab with a store that lets a test act just before an append."""
        racing = Racing(self.store)
        return racing, Lab(cast(EventStore, racing), self.faults, self.settings)


@pytest.fixture(params=["memory", "sqlite", "mysql"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The kind of store, or the place of one that has a place."""
    if request.param == "mysql":
        return str(request.getfixturevalue("mariadb_url"))
    return str(tmp_path / "sale.db") if request.param == "sqlite" else ""


@pytest.fixture
async def lab(place: str) -> AsyncIterator[Lab]:
    faults = Faults()
    tables = sale_registry().tables
    store: EventStore
    if not place:
        store = MemoryStore(2, tables, failpoint=faults)
    elif place.startswith("mysql:"):
        address = parse_mysql_url(place)
        await initialise(address, Layout(2, tables))
        store = await MysqlStore.open(address, partitions=2, tables=tables, failpoint=faults)
    else:
        store = await SqliteStore.open(place, partitions=2, tables=tables, failpoint=faults)
    # A deadline that no test lives to see, unless it names one of its own.
    yield Lab(store, faults, load_settings(environ={}, overrides={"queue.deadline_ms": 600_000}))
    await store.close()


async def test_a_repeated_command_is_sold_once_and_answered_alike(lab: Lab) -> None:
    """Deduplication: same instant, later, and after a restart."""
    async with lab.engine() as engine:
        await engine.open_sale("A", stock=10)
        order = Reserve("id-1", "A", "alice", 2)
        first, second = await engine.reserve_many([order, order])
        later = await engine.reserve("A", buyer="alice", quantity=2, command_id="id-1")
        assert first == second == later == Reserved("id-1", "alice", 2)
    async with lab.engine() as engine:
        assert await engine.reserve("A", buyer="alice", quantity=2, command_id="id-1") == first
        with pytest.raises(CommandIdReused):
            await engine.reserve("A", buyer="alice", quantity=1, command_id="id-1")
    assert await lab.sold() == ["alice"]


async def test_no_buyer_gets_more_than_the_limit(lab: Lab) -> None:
    async with lab.engine() as engine:
        await engine.open_sale("A", stock=10, limit_per_buyer=2)
        outcomes = await engine.reserve_many([Reserve(f"{n}", "A", "alice") for n in range(4)])
    async with lab.engine() as engine:
        late = await engine.reserve("A", buyer="alice")
    assert [type(each) for each in outcomes] == [Reserved, Reserved, Rejected, Rejected]
    assert isinstance(late, Rejected)
    assert late.reason == "over_limit"
    assert await lab.sold() == ["alice", "alice"]


async def test_the_last_units_go_to_those_who_came_first(lab: Lab) -> None:
    async with lab.engine() as engine:
        await engine.open_sale("A", stock=3)
        outcomes = await engine.reserve_many(
            [Reserve(f"{n}", "A", f"b{n}", quantity) for n, quantity in enumerate([2, 2, 1, 1])]
        )
    assert [isinstance(each, Reserved) for each in outcomes] == [True, False, True, False]
    assert await lab.sold() == ["b0", "b2"]


async def test_a_lost_reply_to_commit_is_cleared_up_and_sold_once(lab: Lab) -> None:
    """Unknown outcome, durable: the buyer gets the true answer, and nothing is written twice."""
    async with lab.engine() as engine:
        await engine.open_sale("A", stock=10)
        lab.faults.steps.append("after-commit")
        outcome = await engine.reserve("A", buyer="alice", command_id="id-1")
        assert outcome == Reserved("id-1", "alice", 1)
        statistics = engine.statistics()
        assert (statistics.recoveries, statistics.conflicts) == (1, 0)
        assert isinstance(await engine.reserve("A", buyer="bob"), Reserved)
    assert lab.faults.taken == 1
    assert await lab.sold() == ["alice", "bob"]


async def test_a_commit_lost_on_its_way_is_written_again(lab: Lab) -> None:
    """Unknown outcome, not durable: looked up, found missing, written once."""
    racing, raced = lab.raced()
    async with raced.engine() as engine:
        await engine.open_sale("A", stock=10)

        async def lose() -> None:
            raise CommitOutcomeUnknown("the connection broke before COMMIT arrived")

        racing.before_append = lose
        assert isinstance(await engine.reserve("A", buyer="alice"), Reserved)
        assert engine.statistics().recoveries == 1
    assert await lab.sold() == ["alice"]


async def test_a_commit_that_never_happened_is_written_again(lab: Lab) -> None:
    """Rolled back before COMMIT: tried again, sold once."""
    async with lab.engine() as engine:
        await engine.open_sale("A", stock=10)
        lab.faults.steps += ["before-commit", "insert"]
        assert isinstance(await engine.reserve("A", buyer="alice"), Reserved)
    assert lab.faults.taken == 2
    assert await lab.sold() == ["alice"]


@pytest.mark.parametrize("step", ["begin", "fence", "insert", "change", "before-commit"])
async def test_a_rolled_back_batch_leaves_no_trace_in_memory(lab: Lab, step: str) -> None:
    """Rollback: what memory knew beyond the disk is thrown away, and the unit is sold to another."""
    async with lab.engine() as engine:
        await engine.open_sale("A", stock=1)
        lab.faults.steps += [step] * 3
        with pytest.raises(StoreUnavailable):
            await engine.reserve("A", buyer="alice", command_id="id-1")
        row = await engine.stock("A")
        assert row is not None
        assert (row.available, row.version) == (1, 1)
        assert isinstance(await engine.reserve("A", buyer="bob"), Reserved)
        refused = await engine.reserve("A", buyer="alice", command_id="id-1")
        assert isinstance(refused, Rejected)
    assert await lab.sold() == ["bob"]


async def test_a_fenced_engine_sells_nothing_more(lab: Lab) -> None:
    """Fence: the engine that was taken over writes nothing and tells its buyers."""
    async with lab.engine() as old:
        await old.open_sale("A", stock=1)
        assert await old.stock("A") is not None
        async with lab.engine() as new:
            with pytest.raises(PartitionLost):
                await old.reserve("A", buyer="alice")
            assert isinstance(await new.reserve("A", buyer="bob"), Reserved)
        with pytest.raises(PartitionLost):
            await old.reserve("A", buyer="carol")
    assert await lab.sold() == ["bob"]


async def test_a_commit_on_a_wrong_version_is_refused_by_the_store(lab: Lab) -> None:
    """Version guard: a gap and an overlap are refused, and nothing of them is written."""
    async with lab.engine() as engine:
        await engine.open_sale("A", stock=1)
    lease = await lab.store.acquire(HOME)
    for first, last in ((1, 1), (1, 2), (3, 3)):
        with pytest.raises(WrongExpectedVersion):
            await lab.store.append(lease, [NewCommit("stock", "A", first, last, b"[]", 0)])
    assert len(await lab.store.read_partition(HOME, 0, 10)) == 1


async def test_an_old_lease_writes_nothing(lab: Lab) -> None:
    old = await lab.store.acquire(HOME)
    new = await lab.store.acquire(HOME)
    with pytest.raises(Fenced):
        await lab.store.append(old, [NewCommit("stock", "A", 1, 1, b"[]", 0)])
    ahead = Lease(new.partition, new.epoch, new.position + 1)
    with pytest.raises(Fenced):
        await lab.store.append(ahead, [NewCommit("stock", "A", 1, 1, b"[]", 0)])
    assert await lab.store.read_partition(HOME, 0, 10) == []


async def test_a_lost_version_race_is_decided_again_and_harms_no_other(lab: Lab) -> None:
    """Conflict: a foreign commit for A makes A reload; its neighbour in the batch is unharmed."""
    racing, raced = lab.raced()
    async with raced.engine() as engine:
        await engine.open_sale("A", stock=2)
        await engine.open_sale(NEIGHBOUR, stock=1)
        assert isinstance(await engine.reserve("A", buyer="first"), Reserved)

        async def sell_behind_the_back() -> None:
            # Only another partition's writer gets past the fence, as after a routing mistake.
            lease = await lab.store.acquire(OTHER)
            commit = Commit("stock", "A", 3, [Reserved("foreign", "thief", 1)])
            events = CODEC.encode(commit.events)
            foreign = NewCommit("stock", "A", 3, 3, events, checksum(events), stock_changes(commit))
            await lab.store.append(lease, [foreign])

        racing.before_append = sell_behind_the_back
        late, neighbour = await asyncio.gather(
            engine.reserve("A", buyer="late"), engine.reserve(NEIGHBOUR, buyer="bob")
        )
        assert engine.statistics().conflicts == 1
    assert isinstance(late, Rejected)
    assert late.reason == "sold_out"
    assert isinstance(neighbour, Reserved)


async def test_a_deadline_in_flight_is_unknown_and_the_retry_tells_the_truth(lab: Lab) -> None:
    racing, raced = lab.raced()
    async with raced.engine() as engine:
        await engine.open_sale("A", stock=1)
        released = asyncio.Event()

        async def wait() -> None:
            await released.wait()

        racing.before_append = wait
        with pytest.raises(OutcomeUnknown):
            await engine.reserve("A", buyer="alice", command_id="id-1", timeout_ms=1)
        released.set()
        again = await engine.reserve("A", buyer="alice", command_id="id-1")
    assert again == Reserved("id-1", "alice", 1)
    assert await lab.sold() == ["alice"]


async def test_nobody_is_answered_before_the_commit_is_durable(lab: Lab) -> None:
    racing, raced = lab.raced()
    async with raced.engine() as engine:
        await engine.open_sale("A", stock=1)
        held, released = asyncio.Event(), asyncio.Event()

        async def hold() -> None:
            held.set()
            await released.wait()

        racing.before_append = hold
        orders = [
            asyncio.create_task(engine.reserve("A", buyer=buyer)) for buyer in ("alice", "bob")
        ]
        await held.wait()
        for _ in range(20):
            await asyncio.sleep(0)
        # Not even the refusal: it stands on the sale before it, which is not durable yet.
        assert [each.done() for each in orders] == [False, False]
        released.set()
        outcomes = await asyncio.gather(*orders)
    assert [type(each) for each in outcomes] == [Reserved, Rejected]
