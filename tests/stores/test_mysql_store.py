"""The MySQL store keeps the contract of every store, on a real MariaDB server."""

from __future__ import annotations

import asyncio

import pytest

from engine.cqrs.event_store import EventStore, RowChange
from engine.errors import ConfigError, StoreUnavailable
from engine.stores.failpoint import Failpoint, no_failpoint
from engine.stores.layout import Layout
from engine.stores.mysql import MysqlStore
from engine.stores.mysql_connection import Answer, MysqlConnection
from engine.stores.mysql_schema import initialise
from engine.stores.mysql_url import parse_mysql_url
from engine.testing.store_contract import INSERT, TABLES, EventStoreContract, commit


class TestMysqlStore(EventStoreContract):
    @pytest.fixture(autouse=True)
    def _place(self, mariadb_url: str) -> None:
        self.address = parse_mysql_url(mariadb_url)

    async def test_who_cancels_at_commit_gets_an_end(self, monkeypatch: pytest.MonkeyPatch) -> None:
        async with self.store() as store:
            lease = await store.acquire(0)
            run, asked = MysqlConnection.run, asyncio.Event()

            async def hang_at_commit(self: MysqlConnection, statement: str, *more: float) -> Answer:
                if statement == "COMMIT":
                    asked.set()
                    await asyncio.Event().wait()
                return await run(self, statement, *more)

            with monkeypatch.context() as patch:
                patch.setattr(MysqlConnection, "run", hang_at_commit)
                appending = asyncio.create_task(store.append(lease, [commit("a", 1)]))
                await asked.wait()
                appending.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await appending
            # What became of it is asked of a new connection, as ever.
            assert (await store.acquire(0, lease)).position == 0

    async def test_a_login_refused_while_in_use_is_an_outage(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async with self.store() as store:

            async def refused(*_: object) -> MysqlConnection:
                raise ConfigError("wrong user or password")

            with monkeypatch.context() as patch:
                patch.setattr(MysqlConnection, "open", refused)
                with pytest.raises(StoreUnavailable, match="wrong user"):
                    await store.acquire(0)
            await store.acquire(0)

    async def test_a_transaction_is_three_round_trips(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async with self.store() as store:
            lease = await store.acquire(0)
            asked: list[list[str]] = []
            run = MysqlConnection._run

            async def noted(
                self: MysqlConnection, text: str, statements: int, seconds: float
            ) -> list[Answer]:
                asked.append([each.split()[0] for each in text.split(";")])
                return await run(self, text, statements, seconds)

            with monkeypatch.context() as patch:
                patch.setattr(MysqlConnection, "_run", noted)
                changes = [
                    RowChange("totals", key, insert=True, put=INSERT.put) for key in ("a", "b")
                ]
                await store.append(
                    lease, [commit(each.key, 1, changes=(each,)) for each in changes]
                )
            assert asked == [
                ["BEGIN", "UPDATE", "(SELECT"],
                ["INSERT", "INSERT", "INSERT"],
                ["COMMIT"],
            ]

    async def open_store(
        self, *, partitions: int = 1, failpoint: Failpoint = no_failpoint
    ) -> EventStore:
        await initialise(self.address, Layout(partitions, TABLES))
        return await MysqlStore.open(
            self.address, partitions=partitions, tables=TABLES, failpoint=failpoint
        )
