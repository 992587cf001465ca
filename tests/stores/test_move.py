"""A partition moves to another database whole, or not at all, wherever the command is cut off."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from engine.cqrs.codec import checksum
from engine.cqrs.event_store import (
    Lease,
    NewCommit,
    RowChange,
    SnapshotPart,
    Source,
    StoredCommit,
    StoredSnapshot,
    Value,
)
from engine.cqrs.partitioning import partition_of
from engine.cqrs.query_side.read_model import (
    DeadLetter,
    Progress,
    Put,
    ReadTable,
    Select,
    Step,
)
from engine.errors import ConfigError, Fenced, StoreUnavailable
from engine.stores import move
from engine.stores.move import STEPS, move_partition
from engine.stores.move_copy import Copy
from engine.stores.mysql_url import MysqlAddress
from engine.stores.spread import SpreadReader, SpreadStore
from engine.stores.spread_views import SpreadViews
from engine.testing.mariadb_server import MariadbServer
from tests.stores.several import open_spread

PARTITIONS = 2
P = 0
"""The partition that moves; it lives in db1 at first."""

HERE = [name for name in (f"n{number}" for number in range(40)) if not partition_of(name, 2)]
THERE = next(name for name in (f"n{number}" for number in range(40)) if partition_of(name, 2))
COMMITS = 70
"""More than a page."""

SEEN = ReadTable("seen", ("name", "number"), ("name",), ("number",))
BROKER = Source("stream", 7, ((9, 9),))


def insert(name: str, first: int = 1) -> NewCommit:
    events = b'[{"type":"counted.1","command_id":"c"}]'
    put: dict[str, Value] = {"amount": first, "version": first, "label": "x"}
    change = RowChange("totals", name, insert=first == 1, put=put)
    return NewCommit("counter", name, first, first, events, checksum(events), (change,))


class Cut(Exception):
    """The command ends here."""


class CutAfter:
    def __init__(self, step: str) -> None:
        self.step = step

    def __call__(self, step: str) -> None:
        if step == self.step:
            raise Cut(step)


class Shop:
    """A store of two databases with something of everything in partition P."""

    def __init__(
        self,
        addresses: list[MysqlAddress],
        server: MariadbServer,
        store: SpreadStore,
        views: SpreadViews,
    ) -> None:
        self.addresses = addresses
        self.server = server
        self.store = store
        self.views = views
        self.lease = Lease(P, 0, 0)
        self.history: list[StoredCommit] = []

    async def fill(self) -> None:
        store, views = self.store, self.views
        self.lease = lease = await store.acquire(P)
        commits = [insert(HERE[0], n) for n in range(1, COMMITS)] + [insert(HERE[1])]
        for number, each in enumerate(commits):
            await store.append(
                Lease(P, lease.epoch, number), [each], source=BROKER if number == 5 else None
            )
        self.lease = Lease(P, lease.epoch, COMMITS, lease.owner, BROKER)
        await store.append(await store.acquire(1), [insert(THERE)])
        head = StoredSnapshot("counter", HERE[0], 3, 1, b"\x00head", checksum(b"\x00head"))
        parts = [SnapshotPart(number, b"part %d" % number) for number in range(20)]
        await store.save_snapshot(head, parts)
        generation = await views.prepare("seen", [SEEN], PARTITIONS)
        rows = [(HERE[0], 1), (HERE[1], 1)]
        letter = DeadLetter(P, 3, "counter", HERE[0], "bad")
        assert await views.advance(
            Step(
                *("seen", generation, P, Progress(0), Progress(5), [SEEN]),
                *([Put("seen", rows)], [letter]),
            )
        )
        assert await views.advance(
            Step(
                *("seen", generation, 1, Progress(0), Progress(1), [SEEN]),
                *([Put("seen", [(THERE, 1)])],),
            )
        )
        generation = await views.prepare("manager", [], PARTITIONS)
        step = Step("manager", generation, P, Progress(0), Progress(60, 2), letters=[letter])
        assert await views.advance(step)
        self.history = await store.read_partition(P, 0, 999)

    async def claims(self) -> list[str]:
        """The databases where P may be acquired."""
        found = []
        for number, address in enumerate(self.addresses, 1):
            mark = await self.server.query(
                f"SELECT place FROM partitions WHERE partition_id = {P}", address.database
            )
            if mark.strip() == f"db{number}":
                found.append(f"db{number}")
        return found

    async def move(self, to: str = "db2", cut: str = "") -> str:
        return await move_partition(self.addresses, P, to, failpoint=CutAfter(cut))

    async def check(self, home: str, *, moved: bool) -> None:
        """Everything is there, once, for one who opens the store anew and for one who had it open."""
        assert await self.claims() == [home]
        reader = await SpreadReader.open(self.addresses)
        for each in (reader, self.store):
            assert await each.read_partition(P, 0, 999) == self.history
            assert await each.read_position(P) == COMMITS
            assert [s.aggregate_id for s in await each.read_streams()] == sorted(
                [HERE[0], HERE[1], THERE]
            )
            names = [row["name"] for row in await each.read_rows("totals")]
            assert names == sorted([HERE[0], HERE[1], THERE])
            head = await each.load_snapshot(("counter", HERE[0]))
            assert head is not None
            assert head.state == b"\x00head"
            parts = await each.read_snapshot_parts(("counter", HERE[0]), 0, 99)
            assert [part.data for part in parts] == [b"part %d" % n for n in range(20)]
        await reader.close()
        generation = await self.views.prepare("seen", [SEEN], PARTITIONS)
        rows = await self.views.select(Select("seen"))
        if moved:
            # They are folded again from the first event on.
            assert await self.views.progress("seen", generation, P) == Progress(0)
            assert [row["name"] for row in rows] == [THERE]
            assert await self.views.dead_letters("seen", generation) == []
        else:
            assert len(rows) == 3
        manager = await self.views.prepare("manager", [], PARTITIONS)
        assert await self.views.progress("manager", manager, P) == Progress(60, 2)
        assert [each.reason for each in await self.views.dead_letters("manager", manager)] == [
            "bad"
        ]
        # Its owner goes on, with what a broker's commands came to, and nobody older can.
        lease = await self.store.acquire(P, self.lease)
        assert (lease.position, lease.owner, lease.source) == (COMMITS, self.lease.owner, BROKER)
        with pytest.raises(Fenced):
            await self.store.append(self.lease, [insert(HERE[1], 2)])


@pytest.fixture
async def shop(two_databases: list[MysqlAddress], mariadb: MariadbServer) -> AsyncIterator[Shop]:
    async with opened(two_databases, mariadb) as made:
        yield made


@asynccontextmanager
async def opened(addresses: list[MysqlAddress], server: MariadbServer) -> AsyncIterator[Shop]:
    store = await open_spread(addresses, PARTITIONS)
    views = await SpreadViews.open(addresses)
    try:
        made = Shop(addresses, server, store, views)
        await made.fill()
        yield made
    finally:
        await views.close()
        await store.close()


async def test_a_partition_moves_with_all_it_has_and_its_owner_goes_on(shop: Shop) -> None:
    told: list[str] = []
    reader = await SpreadReader.open(shop.addresses)
    done = await move_partition(
        shop.addresses, P, "db2", lambda what, *_: None if what in told else told.append(what)
    )
    assert done == "partition 0 moved from db1 to db2"
    assert set(told) == {*STEPS}
    await shop.check("db2", moved=True)
    # What is in the place it left is not read, and what is written next is.
    lease = await shop.store.acquire(P, shop.lease)
    await shop.store.append(lease, [insert(HERE[1], 2)])
    # Also by one who looked where it is before it moved.
    assert await reader.read_position(P) == COMMITS + 1
    assert len(await reader.read_partition(P, 0, 999)) == COMMITS + 1
    await reader.close()
    assert await shop.store.read_position(P) == COMMITS + 1
    assert (await shop.store.read_row("totals", HERE[1]) or {})["version"] == 2


@pytest.mark.parametrize("step", STEPS)
async def test_a_list_that_lacks_the_partition_that_moves_is_an_error(
    shop: Shop, step: str
) -> None:
    whole, own, others = Select("seen"), Select("seen", {"name": HERE[0]}), {"name": THERE}
    assert len(await shop.views.select(whole)) == 3
    with pytest.raises(Cut):
        await shop.move(cut=step)
    opened_now = await SpreadViews.open(shop.addresses)
    try:
        await opened_now.prepare("seen", [SEEN], PARTITIONS)
        for views in (shop.views, opened_now):
            for query in (whole, own):
                if step in ("claim", "settle"):
                    # Behind, by what `progress` shows.
                    assert HERE[0] not in {row["name"] for row in await views.select(query)}
                else:
                    with pytest.raises(StoreUnavailable, match="partition 0 is being moved to db2"):
                        await views.select(query)
            assert len(await views.select(Select("seen", others))) == 1
    finally:
        await opened_now.close()
    await shop.move()
    await shop.check("db2", moved=True)


async def test_it_moves_back_with_what_was_written_meanwhile(shop: Shop) -> None:
    await shop.move()
    lease = await shop.store.acquire(P, shop.lease)
    await shop.store.append(lease, [insert(HERE[2])])
    newest = (await shop.store.read_partition(P, COMMITS, 9))[0]
    assert await shop.move("db1") == "partition 0 moved from db2 to db1"
    assert await shop.claims() == ["db1"]
    assert await shop.store.read_partition(P, 0, 999) == [*shop.history, newest]
    assert (await shop.store.acquire(P, lease)).position == COMMITS + 1


@pytest.mark.parametrize("step", STEPS)
async def test_cut_off_after_any_step_the_same_command_finishes(shop: Shop, step: str) -> None:
    with pytest.raises(Cut):
        await shop.move(cut=step)
    claimed = step in ("claim", "settle")
    assert await shop.claims() == (["db2"] if claimed else [])
    # Also for one who had it open: fenced where it was, and not anywhere else before it is whole.
    if not claimed:
        with pytest.raises(StoreUnavailable, match="seckill partitions move 0 --to db2"):
            await shop.store.append(shop.lease, [insert(HERE[1], 2)])
        with pytest.raises(StoreUnavailable, match="being moved to db2"):
            await shop.store.acquire(P)
    assert await shop.store.read_partition(P, 0, 999) == shop.history
    # A crash while finishing what was cut off is no different.
    for again in STEPS[:6]:
        if not claimed:
            with pytest.raises(Cut):
                await shop.move(cut=again)
            assert await shop.claims() == []
    await shop.move()
    await shop.check("db2", moved=True)


@pytest.mark.parametrize("step", STEPS)
async def test_what_a_process_manager_did_is_known_where_the_partition_goes(
    shop: Shop, step: str
) -> None:
    with pytest.raises(Cut):
        await shop.move(cut=step)
    # One that was opened before and has not looked since where the partition lives.
    generation = await shop.views.prepare("manager", [], PARTITIONS)
    reached = Progress(60, 3)
    moved_on = await shop.views.advance(
        Step("manager", generation, P, Progress(60, 2), reached, settled=[3])
    )
    assert moved_on is (step in ("mark", "receive"))
    if not moved_on and step not in ("claim", "settle"):
        with pytest.raises(StoreUnavailable, match="partition 0 is being moved to db2"):
            await shop.views.progress("manager", generation, P)
    await shop.move()
    found = await shop.views.progress("manager", generation, P)
    assert found == (reached if moved_on else Progress(60, 2))
    letters = await shop.views.dead_letters("manager", generation, P)
    assert len(letters) == (0 if moved_on else 1)
    # It goes on there, and back at its first home.
    await shop.move("db1")
    assert await shop.views.progress("manager", generation, P) == found
    assert found is not None
    assert await shop.views.advance(Step("manager", generation, P, found, Progress(70, 9)))


@pytest.mark.parametrize("step", STEPS)
async def test_cut_off_before_it_is_claimed_it_can_be_taken_back(shop: Shop, step: str) -> None:
    with pytest.raises(Cut):
        await shop.move(cut=step)
    if step in ("claim", "settle"):
        assert await shop.move("db1") == "partition 0 moved from db2 to db1"
    else:
        # Cut off while it is taken back, too.
        for again in ("receive", "tell", "clear"):
            with pytest.raises(Cut):
                await shop.move("db1", cut=again)
            assert await shop.claims() == []
        assert await shop.move("db1") == "partition 0 stays in db1: the move was taken back"
    await shop.check("db1", moved=True)


async def test_a_run_that_was_given_up_for_dead_cannot_claim(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim = move._Move._claim

    async def late(self: move._Move, *args: object) -> None:
        # Meanwhile its locks were lost, and somebody else took the partition back.
        for place in self._places.values():
            await place.connection.run("SELECT RELEASE_ALL_LOCKS()")
        with monkeypatch.context() as patch:
            patch.setattr(move._Move, "_claim", claim)
            await shop.move("db1")
        await claim(self, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(move._Move, "_claim", late)
    with pytest.raises(StoreUnavailable, match="another run of this command"):
        await shop.move()
    await shop.check("db1", moved=True)


async def test_two_moves_do_not_go_on_at_once(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(move, "LOCK_WAIT_SECONDS", 0)
    refused: list[str] = []
    copy = Copy.copy

    async def another_tries_meanwhile(self: Copy) -> None:
        with pytest.raises(StoreUnavailable) as error:
            await move_partition(shop.addresses, 1, "db1")
        refused.append(str(error.value))
        await copy(self)

    monkeypatch.setattr(Copy, "copy", another_tries_meanwhile)
    await shop.move()
    assert refused == ["another move is going on in db1"]
    await shop.check("db2", moved=True)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ("DROP TRIGGER commits_never_updated; UPDATE commits SET events = '[1]'", "the commit at"),
        (
            "DROP TRIGGER commits_never_deleted; DELETE FROM commits WHERE position = 70",
            "the number of",
        ),
        (
            "DROP TRIGGER commits_never_deleted; DELETE FROM commits WHERE position = 9",
            "the commit",
        ),
        ("UPDATE totals SET amount = 99", "the rows of totals"),
        ("UPDATE snapshot_parts SET data = 'x' WHERE number = 3", "the snapshot of counter"),
    ],
)
async def test_a_copy_that_is_not_the_original_is_not_switched_to(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, change: str, what: str
) -> None:
    copy = Copy.copy

    async def spoil(self: Copy) -> None:
        await copy(self)
        await shop.server.query(change, shop.addresses[1].database)

    monkeypatch.setattr(Copy, "copy", spoil)
    with pytest.raises(StoreUnavailable, match=f"partition 0 was not moved: {what}"):
        await shop.move()
    assert await shop.claims() == []
    await shop.move("db1")
    await shop.check("db1", moved=True)


async def test_what_cannot_be_is_refused_and_changes_nothing(shop: Shop) -> None:
    for partition, to, message in (
        (2, "db2", r"no partition 2: there are 0\.\.1"),
        (P, "db9", r"there is no database 'db9'; there is: db1 \(mysql://"),
    ):
        with pytest.raises(ConfigError, match=message):
            await move_partition(shop.addresses, partition, to)
    assert "nothing to do" in await shop.move("db1")
    with pytest.raises(ConfigError, match="db2 is missing"):
        await move_partition(shop.addresses[:1], P, "db2")
    assert "lives in db1" in await move_partition(shop.addresses, P, str(shop.addresses[0]))
    await shop.check("db1", moved=False)
