"""The SQLite store keeps the contract of every store, on a real file."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.cqrs.event_store import EventStore
from engine.stores.failpoint import Failpoint, no_failpoint
from engine.stores.sqlite import SqliteStore
from engine.testing.store_contract import TABLES, EventStoreContract


class TestSqliteStore(EventStoreContract):
    @pytest.fixture(autouse=True)
    def _place(self, tmp_path: Path) -> None:
        self.path = tmp_path / "store.db"

    async def open_store(
        self, *, partitions: int = 1, failpoint: Failpoint = no_failpoint
    ) -> EventStore:
        return await SqliteStore.open(
            str(self.path), partitions=partitions, tables=TABLES, failpoint=failpoint
        )
