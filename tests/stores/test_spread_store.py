"""A store of two databases keeps the contract of every store, on a real MariaDB server."""

from __future__ import annotations

import asyncio

import pytest

from engine.cqrs.event_store import EventStore, NewCommit, RowChange, StoredSnapshot, Value
from engine.cqrs.partitioning import partition_of
from engine.errors import (
    ConfigError,
    ProjectionDiverged,
    SchemaMismatch,
    StoreUnavailable,
    StreamKey,
)
from engine.stores import mysql_places
from engine.stores.failpoint import Failpoint, no_failpoint
from engine.stores.layout import Layout
from engine.stores.mysql import MysqlStore
from engine.stores.mysql_places import initialise_several
from engine.stores.mysql_read import MysqlReader
from engine.stores.mysql_schema import initialise
from engine.stores.mysql_url import MysqlAddress, parse_mysql_url
from engine.stores.spread import SpreadReader, SpreadStore
from engine.testing.mariadb_server import MariadbServer
from engine.testing.store_contract import TABLES, EventStoreContract, commit
from tests.stores.several import open_spread

PARTITIONS = 4
NAMES = {partition_of(name, PARTITIONS): name for name in (f"n{number}" for number in range(30))}
"""An aggregate for each partition."""


def insert(name: str) -> NewCommit:
    put: dict[str, Value] = {"amount": 1, "version": 1, "label": "x"}
    return commit(name, 1, 1, (RowChange("totals", name, insert=True, put=put),))


class TestSpreadStore(EventStoreContract):
    @pytest.fixture(autouse=True)
    def _places(self, two_databases: list[MysqlAddress], mariadb: MariadbServer) -> None:
        self.addresses = two_databases
        self.server = mariadb

    async def open_store(
        self, *, partitions: int = 1, failpoint: Failpoint = no_failpoint
    ) -> EventStore:
        return await open_spread(self.addresses, partitions, failpoint=failpoint)

    async def sql(self, number: int, statement: str) -> str:
        return await self.server.query(statement, self.addresses[number].database)

    async def test_partitions_take_turns_and_each_is_in_one_database_only(self) -> None:
        async with self.store(partitions=PARTITIONS) as store:
            for partition, name in NAMES.items():
                await store.append(await store.acquire(partition), [insert(name)])
            for number in (0, 1):
                found = await self.sql(number, "SELECT DISTINCT partition_id FROM commits")
                assert {int(each) for each in found.split()} == {number, number + 2}
                found = await self.sql(number, "SELECT partition_id FROM partitions WHERE epoch")
                assert {int(each) for each in found.split()} == {number, number + 2}

    async def test_answers_of_both_databases_are_one_in_order(self) -> None:
        async with self.store(partitions=PARTITIONS) as store:
            for partition, name in NAMES.items():
                await store.append(await store.acquire(partition), [insert(name)])
            names = sorted(NAMES.values())
            assert [each.aggregate_id for each in await store.read_streams()] == names
            assert [each["name"] for each in await store.read_rows("totals")] == names
            for partition, name in NAMES.items():
                stream: StreamKey = ("counter", name)
                assert [each.position for each in await store.read_stream(stream, 0, 9)] == [1]
                assert (await store.read_row("totals", name) or {})["name"] == name
                own = await store.read_rows("totals", partition)
                assert [each["name"] for each in own] == [name]
                await store.save_snapshot(StoredSnapshot(*stream, 1, 1, b"x", 7))
                assert (await store.load_snapshot(stream)) is not None
            reader = await SpreadReader.open(self.addresses)
            assert [each.aggregate_id for each in await reader.read_streams()] == names
            assert reader.partitions == PARTITIONS
            await reader.close()

    async def test_a_row_away_from_its_aggregate_is_refused(self) -> None:
        async with self.store(partitions=PARTITIONS) as store:
            (one, _), (two, name) = list(NAMES.items())[:2]
            lease = await store.acquire(one)
            with pytest.raises(ProjectionDiverged, match=f"belongs to partition {two}"):
                await store.append(lease, [insert(name)])

    async def test_the_order_of_the_urls_does_not_matter(self) -> None:
        async with self.store(partitions=PARTITIONS) as store:
            for partition, name in NAMES.items():
                await store.append(await store.acquire(partition), [insert(name)])
        again = await SpreadStore.open(self.addresses[::-1], partitions=PARTITIONS, tables=TABLES)
        assert len(await again.read_streams()) == PARTITIONS
        await initialise_several(self.addresses[::-1], Layout(PARTITIONS, TABLES))
        assert (await again.acquire(0)).position == 1
        await again.close()

    async def test_one_of_several_is_not_opened_alone_nor_one_alone_as_one_of_several(
        self, mariadb_url: str
    ) -> None:
        async with self.store():
            pass
        alone = parse_mysql_url(mariadb_url)
        await initialise(alone, Layout(1, TABLES))
        one_of_them = r"is db2, one of the databases of a store \(db1, db2\)"
        with pytest.raises(ConfigError, match=one_of_them):
            await MysqlStore.open(self.addresses[1], tables=TABLES)
        with pytest.raises(ConfigError, match=one_of_them):
            await MysqlReader.open(self.addresses[1])
        with pytest.raises(ConfigError, match="is not one of several databases yet"):
            await SpreadStore.open([self.addresses[0], alone], partitions=1, tables=TABLES)

    async def test_missing_twice_and_foreign_databases_are_refused(self, mariadb_url: str) -> None:
        async with self.store():
            pass
        with pytest.raises(ConfigError, match="db2 is missing"):
            await SpreadReader.open(self.addresses[:1])
        with pytest.raises(ConfigError, match="given twice"):
            await SpreadReader.open([self.addresses[0]] * 2)
        other = parse_mysql_url(mariadb_url)
        await initialise(other, Layout(1, TABLES))
        with pytest.raises(ConfigError, match="is not one of several"):
            await SpreadReader.open([other, self.addresses[0]])

    async def test_databases_that_differ_about_a_partition_are_not_opened(self) -> None:
        async with self.store(partitions=2):
            pass
        await self.sql(1, "UPDATE partitions SET place = 'db2' WHERE partition_id = 0")
        with pytest.raises(SchemaMismatch, match="db1 and db2 both say that partition 0 is theirs"):
            await SpreadReader.open(self.addresses)
        await self.sql(1, "UPDATE partitions SET place = 'db1'")
        with pytest.raises(SchemaMismatch, match="differ about where partition 1 lives: db1 says"):
            await SpreadReader.open(self.addresses)

    async def test_another_partition_count_is_refused(self) -> None:
        async with self.store(partitions=2):
            pass
        with pytest.raises(SchemaMismatch, match="2 partitions and the settings say 4"):
            await SpreadStore.open(self.addresses, partitions=4, tables=TABLES)

    async def test_a_store_in_use_keeps_its_partitions_when_databases_are_added(self) -> None:
        first = self.addresses[1]
        await initialise(first, Layout(2, TABLES))
        alone = await MysqlStore.open(first, partitions=2, tables=TABLES)
        lease = await alone.acquire(1)
        await alone.append(lease, [commit("a", 1)])
        async with self.store(partitions=2) as store:
            assert (await store.acquire(1)).position == 1
            assert await self.sql(0, "SELECT DISTINCT place FROM partitions") == "db2\n"
        # Who had it open alone cannot take it again, and is told why.
        with pytest.raises(StoreUnavailable, match="partition 1 lives in db2 now"):
            await alone.acquire(1, lease)
        await alone.close()

    async def test_a_database_is_added_without_partitions(self, mariadb_url: str) -> None:
        async with self.store(partitions=2) as store:
            await store.acquire(0)
        more = [parse_mysql_url(mariadb_url), *self.addresses]
        with pytest.raises(ConfigError, match="is not a store yet"):
            await SpreadReader.open(more)
        store = await open_spread(more, 2)
        assert [(await store.acquire(each)).position for each in (0, 1)] == [0, 0]
        await store.close()
        with pytest.raises(ConfigError, match="db3 is missing"):
            await SpreadReader.open(self.addresses)

    async def test_two_stores_in_use_are_not_joined(self) -> None:
        for address in self.addresses:
            await initialise(address, Layout(1, TABLES))
            store = await MysqlStore.open(address, tables=TABLES)
            await store.acquire(0)
            await store.close()
        with pytest.raises(ConfigError, match="was in use as a store of its own"):
            await initialise_several(self.addresses, Layout(1, TABLES))
        store = await MysqlStore.open(self.addresses[0], tables=TABLES)
        await store.close()

    async def test_an_initialisation_that_was_cut_off_is_finished(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        make = mysql_places._make_member
        made: list[int] = []

        async def make_one(*args: object) -> None:
            if made:
                raise InterruptedError
            made.append(1)
            await make(*args)  # type: ignore[arg-type]

        with monkeypatch.context() as patch:
            patch.setattr(mysql_places, "_make_member", make_one)
            with pytest.raises(InterruptedError):
                await initialise_several(self.addresses, Layout(2, TABLES))
        with pytest.raises(ConfigError, match="is not one of several databases yet"):
            await SpreadReader.open(self.addresses)
        async with self.store(partitions=2) as store:
            await asyncio.gather(store.acquire(0), store.acquire(1))
            for number in (0, 1):
                assert await self.sql(number, "SELECT place FROM partitions") == "db1\ndb2\n"
