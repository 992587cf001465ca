"""The memory store keeps the contract of every store."""

from __future__ import annotations

from engine.cqrs.event_store import EventStore
from engine.stores.failpoint import Failpoint, no_failpoint
from engine.stores.memory import MemoryStore
from engine.testing.store_contract import TABLES, EventStoreContract


class TestMemoryStore(EventStoreContract):
    async def open_store(
        self, *, partitions: int = 1, failpoint: Failpoint = no_failpoint
    ) -> EventStore:
        return MemoryStore(partitions, TABLES, failpoint=failpoint)
