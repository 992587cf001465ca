"""The MySQL store keeps the contract of every store, on a real MariaDB server."""

from __future__ import annotations

import pytest

from engine.cqrs.event_store import EventStore
from engine.stores.failpoint import Failpoint, no_failpoint
from engine.stores.layout import Layout
from engine.stores.mysql import MysqlStore
from engine.stores.mysql_schema import initialise
from engine.stores.mysql_url import parse_mysql_url
from engine.testing.store_contract import TABLES, EventStoreContract


class TestMysqlStore(EventStoreContract):
    @pytest.fixture(autouse=True)
    def _place(self, mariadb_url: str) -> None:
        self.address = parse_mysql_url(mariadb_url)

    async def open_store(
        self, *, partitions: int = 1, failpoint: Failpoint = no_failpoint
    ) -> EventStore:
        await initialise(self.address, Layout(partitions, TABLES))
        return await MysqlStore.open(
            self.address, partitions=partitions, tables=TABLES, failpoint=failpoint
        )
