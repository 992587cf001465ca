"""Read models on a real MariaDB server keep the contract."""

from __future__ import annotations

import asyncio

import pytest

from engine.cqrs.query_side.read_model import ReadModelSnapshot, ReadStore
from engine.stores.layout import Layout
from engine.stores.mysql_schema import initialise
from engine.stores.mysql_snapshot import MysqlSnapshot
from engine.stores.mysql_url import parse_mysql_url
from engine.stores.mysql_views import MysqlViews
from engine.testing.mariadb_server import MariadbServer
from engine.testing.read_store_contract import TABLE, ReadStoreContract


class TestMysqlViews(ReadStoreContract):
    @pytest.fixture(autouse=True)
    def _place(self, mariadb_url: str, mariadb: MariadbServer) -> None:
        self.address = parse_mysql_url(mariadb_url)
        self.server = mariadb

    async def open_views(self) -> ReadStore:
        await initialise(self.address, Layout(1, ()))
        return await MysqlViews.open(self.address)

    async def open_snapshot(self) -> ReadModelSnapshot | None:
        return await MysqlSnapshot.open(self.address)

    async def test_views_left_behind_by_a_dead_process_are_put_right(self) -> None:
        async with self.views() as views:
            draft = await views.draft("census", [TABLE], 1)
            # It died after the catalogue was changed, before the view was.
            await asyncio.to_thread(
                self.server.execute,
                f"UPDATE projections SET live = (generation = {draft})",
                self.address.database,
            )
            assert await views.prepare("census", [TABLE], 1) == draft
            shown = await asyncio.to_thread(
                self.server.execute, "SHOW CREATE VIEW people", self.address.database
            )
            assert f"people_g{draft}" in shown
