"""A store without an engine: what the ceiling of a benchmark is measured on."""

from __future__ import annotations

from pathlib import Path

import apsw

from engine.cqrs.codec import Codec, checksum
from engine.cqrs.event_store import EventStore, NewCommit
from engine.cqrs.messages import Commit
from engine.inventory.events import Reserved, SaleOpened
from engine.inventory.stock import STOCK
from engine.inventory.stock_table import STOCK_TABLE, stock_changes
from engine.stores.sqlite import SqliteStore


async def open_bare_store(path: Path) -> EventStore:
    """Open a SQLite store for sales."""
    return await SqliteStore.open(str(path), tables=(STOCK_TABLE,))


def ready_commits(batches: int, size: int) -> list[NewCommit]:
    """Encoded commits of one SKU: its opening, then `batches` of `size` orders each."""
    opening = SaleOpened("open", 1_000_000_000, 0)
    commits = [_encode(Commit("stock", "HOT", 1, (opening,)))]
    for batch in range(batches):
        events = [Reserved(f"{batch:x}-{n:x}", f"buyer-{batch}-{n}", 1) for n in range(size)]
        commits.append(_encode(Commit("stock", "HOT", commits[-1].last_version + 1, events)))
    return commits


def _encode(commit: Commit) -> NewCommit:
    events = Codec(STOCK.events).encode(commit.events)
    return NewCommit(
        "stock",
        commit.aggregate_id,
        commit.first_version,
        commit.last_version,
        events,
        checksum(events),
        stock_changes(commit),
    )


class BareCommits:
    """One row a transaction, with the settings of the store and nothing around it."""

    def __init__(self, path: Path) -> None:
        self._connection = apsw.Connection(str(path))
        self._connection.execute("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL")
        self._connection.execute("CREATE TABLE bare (n INTEGER PRIMARY KEY, body TEXT)")

    def commit(self) -> None:
        self._connection.execute("BEGIN IMMEDIATE")
        self._connection.execute("INSERT INTO bare (body) VALUES (?)", ("x" * 100,))
        self._connection.execute("COMMIT")

    def close(self) -> None:
        self._connection.close()
