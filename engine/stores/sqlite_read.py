"""Reading a SQLite store: beside the writer of this process, or from another process."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, TypeVar

import apsw

from engine.cqrs.event_store import (
    PartitionPlace,
    SnapshotPart,
    StoredCommit,
    StoredSnapshot,
    StoreInfo,
    StreamInfo,
    Table,
    Value,
)
from engine.errors import ConfigError, StreamKey
from engine.stores.layout import Layout
from engine.stores.row_guard import columns_of, rows_of, table_named
from engine.stores.sqlite_file import find_store, open_for_reading, translate
from engine.stores.sqlite_schema import read_layout
from engine.stores.worker import Worker, open_on_thread

Result = TypeVar("Result")

_COMMIT_COLUMNS = (
    "partition_id, position, aggregate_type, aggregate_id, first_version, last_version, "
    "events, checksum, committed_at_us"
)


class SqliteReads:
    """The reading half: one read-only connection on a thread of its own."""

    def __init__(self, path: str, layout: Layout, reader: apsw.Connection) -> None:
        self._path = path
        self._layout = layout
        self._tables = {table.name: table for table in layout.tables}
        self._reader = reader
        self._read_worker = Worker("sqlite-reader")
        self._closed = False

    @property
    def partitions(self) -> int:
        return self._layout.partitions

    @property
    def info(self) -> StoreInfo:
        return StoreInfo(
            kind="sqlite",
            version=apsw.sqlite_lib_version(),
            durability="strict: write-ahead log, synchronous=FULL, one fsync a transaction",
            location=self._path,
            identity=self._layout.identity,
        )

    async def read_partition(
        self, partition: int, after_position: int, limit: int
    ) -> list[StoredCommit]:
        return await self._read(
            lambda: self._commits(
                "partition_id = ? AND position > ? ORDER BY position LIMIT ?",
                (partition, after_position, limit),
            )
        )

    async def read_position(self, partition: int) -> int:
        def read() -> int:
            rows: list[Any] = self._reader.execute(
                "SELECT position FROM partitions WHERE partition_id = ?", (partition,)
            ).fetchall()
            return int(rows[0][0])

        return await self._read(read)

    async def read_stream(
        self, stream: StreamKey, after_version: int, limit: int
    ) -> list[StoredCommit]:
        return await self._read(
            lambda: self._commits(
                "aggregate_type = ? AND aggregate_id = ? AND first_version > ? "
                "ORDER BY first_version LIMIT ?",
                (*stream, after_version, limit),
            )
        )

    async def read_streams(self) -> list[StreamInfo]:
        def read() -> list[StreamInfo]:
            rows = self._reader.execute(
                "SELECT aggregate_type, aggregate_id, partition_id, max(last_version), count(*) "
                "FROM commits GROUP BY aggregate_type, aggregate_id "
                "ORDER BY aggregate_type, aggregate_id"
            )
            return [StreamInfo(*row) for row in rows]

        return await self._read(read)

    async def read_rows(self, table: str, partition: int | None = None) -> list[dict[str, Value]]:
        def read() -> list[dict[str, Value]]:
            known = table_named(self._tables, table)
            columns = columns_of(known)
            found = self._reader.execute(f'SELECT {_names(columns)} FROM "{table}" ORDER BY 1')
            rows = [dict(zip(columns, row, strict=True)) for row in found]
            return rows_of(rows, known.key, partition, self.partitions)

        return await self._read(read)

    async def read_places(self) -> list[PartitionPlace]:
        def read() -> list[PartitionPlace]:
            rows = self._reader.execute(
                "SELECT partition_id, epoch, position, owner FROM partitions ORDER BY 1"
            )
            return [
                PartitionPlace(number, "", self.info.location, epoch, position, owner)
                for number, epoch, position, owner in rows
            ]

        return await self._read(read)

    async def read_row(self, table: str, key: str) -> dict[str, Value] | None:
        return await self._read(
            lambda: read_one_row(self._reader, table_named(self._tables, table), key)
        )

    async def load_snapshot(self, stream: StreamKey) -> StoredSnapshot | None:
        def read() -> StoredSnapshot | None:
            rows: list[Any] = self._reader.execute(
                "SELECT aggregate_type, aggregate_id, version, code_version, state, checksum "
                "FROM snapshots WHERE aggregate_type = ? AND aggregate_id = ?",
                stream,
            ).fetchall()
            return StoredSnapshot(*rows[0]) if rows else None

        return await self._read(read)

    async def read_snapshot_parts(
        self, stream: StreamKey, from_number: int, limit: int
    ) -> list[SnapshotPart]:
        def read() -> list[SnapshotPart]:
            rows = self._reader.execute(
                "SELECT number, data FROM snapshot_parts WHERE aggregate_type = ? "
                "AND aggregate_id = ? AND number >= ? ORDER BY number LIMIT ?",
                (*stream, from_number, limit),
            )
            return [SnapshotPart(*row) for row in rows]

        return await self._read(read)

    async def _close_reader(self) -> None:
        self._read_worker.post(self._reader.close, True)
        await self._read_worker.close()

    async def _read(self, read: Callable[[], Result]) -> Result:
        try:
            return await self._read_worker.call(read)
        except apsw.Error as error:
            raise translate(error, f"cannot read {self._path}") from error

    def _commits(self, where: str, values: tuple[int | str, ...]) -> list[StoredCommit]:
        rows = self._reader.execute(f"SELECT {_COMMIT_COLUMNS} FROM commits WHERE {where}", values)
        return [
            StoredCommit(p, n, kind, name, first, last, events.encode(), checksum, at_us)
            for p, n, kind, name, first, last, events, checksum, at_us in rows
        ]


class SqliteReader(SqliteReads):
    """An EventReader of a store that another process may be writing. Made by `open`."""

    @classmethod
    async def open(cls, path: str) -> SqliteReader:
        """Open the store at `path`; it is never created or changed.

        Raises ConfigError when there is no store or its place is read-only, SchemaMismatch,
        StoreUnavailable.
        """
        return await open_on_thread(cls._open, path)

    @classmethod
    def _open(cls, path: str) -> SqliteReader:
        path = os.path.realpath(path)
        if not os.path.exists(path) or not find_store(path):
            raise ConfigError(f"there is no store at {path}")
        reader = open_for_reading(path)
        try:
            return cls(path, read_layout(reader, path), reader)
        except apsw.CantOpenError:
            reader.close(True)
            raise ConfigError(
                f"cannot read {path}: SQLite keeps {path}-shm beside it while it reads; copy a "
                "store that is in a read-only place to a folder that can be written"
            ) from None
        except BaseException as error:
            reader.close(True)
            raise translate(error, f"cannot open {path}") from error

    async def close(self) -> None:
        if not self._closed:
            self._closed = True
            await self._close_reader()


def read_one_row(connection: apsw.Connection, table: Table, key: str) -> dict[str, Value] | None:
    """Return one row by its key, or None."""
    columns = columns_of(table)
    found: list[Any] = connection.execute(
        f'SELECT {_names(columns)} FROM "{table.name}" WHERE "{table.key}" = ?', (key,)
    ).fetchall()
    return dict(zip(columns, found[0], strict=True)) if found else None


def _names(columns: tuple[str, ...]) -> str:
    return ", ".join(f'"{name}"' for name in columns)
