"""The live read models of a SQLite store as they were at one moment, for the audit.

A read transaction of a write-ahead log sees one state for as long as it lasts, whoever writes
meanwhile. Nothing is created: a store without read models stays without.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import apsw

from engine.cqrs.event_store import Value
from engine.cqrs.query_side.read_model import DeadLetter, LiveModel, ReadTable
from engine.stores.read_tables import physical, tables_of
from engine.stores.sqlite_file import open_for_reading, translate
from engine.stores.sqlite_views import APPLICATION_ID, SCHEMA_VERSION
from engine.stores.worker import Worker, open_on_thread

T = TypeVar("T")


class SqliteSnapshot:
    """A ReadModelSnapshot of one file. Made by `open`."""

    def __init__(self, path: str, connection: apsw.Connection) -> None:
        self._path = path
        self._connection = connection
        self._worker = Worker("sqlite-snapshot")
        self._closed = False

    @property
    def location(self) -> str:
        return self._path

    @classmethod
    async def open(cls, path: str, *, in_store: bool = False) -> SqliteSnapshot | None:
        """Return what the file holds now, None when it is not there or holds no read models.

        `in_store`: the file is that of an event store. Raises StoreUnavailable.
        """
        if not await asyncio.to_thread(os.path.isfile, path):
            return None
        snapshot = await open_on_thread(lambda: cls(path, _begin(path)))
        if await snapshot._call(lambda: _has_read_models(snapshot._connection, in_store)):
            return snapshot
        await snapshot.close()
        return None

    async def live(self, projection: str) -> LiveModel | None:
        return await self._call(lambda: self._live(projection))

    async def page(
        self, model: LiveModel, table: ReadTable, after: Sequence[Value], limit: int
    ) -> list[dict[str, Value]] | None:
        key = ", ".join(f'"{name}"' for name in table.key)
        columns = ", ".join(f'"{name}"' for name in table.columns)
        where = f"({key}) > ({', '.join('?' * len(after))})" if after else "1"
        statement = (
            f'SELECT {columns} FROM "{physical(table.name, model.generation)}" '
            f"WHERE {where} ORDER BY {key} LIMIT {int(limit)}"
        )
        found = await self._call(lambda: self._rows(statement, tuple(after)))
        return [dict(zip(table.columns, row, strict=True)) for row in found]

    async def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._worker.post(self._connection.close, True)
        await self._worker.close()

    def _live(self, projection: str) -> LiveModel | None:
        found = self._rows(
            "SELECT generation, shape FROM projections WHERE name = ? AND live", (projection,)
        )
        if not found:
            return None
        generation, shape = found[0]
        where = "WHERE projection = ? AND generation = ?"
        reached = self._rows(
            f"SELECT partition_id, position FROM checkpoints {where}", (projection, generation)
        )
        letters = self._rows(
            "SELECT partition_id, position, aggregate_type, aggregate_id, reason "
            f"FROM dead_letters {where} ORDER BY partition_id, position",
            (projection, generation),
        )
        return LiveModel(
            generation, tables_of(shape), dict(reached), tuple(DeadLetter(*row) for row in letters)
        )

    def _rows(self, statement: str, values: Sequence[Value]) -> list[Any]:
        return self._connection.execute(statement, values).fetchall()

    async def _call(self, read: Callable[[], T]) -> T:
        def translated() -> T:
            try:
                return read()
            except (apsw.Error, UnicodeDecodeError) as error:
                raise translate(error, f"cannot read {self._path}") from error

        return await self._worker.call(translated)


def _begin(path: str) -> apsw.Connection:
    connection = open_for_reading(path)
    try:
        connection.execute("BEGIN")
    except BaseException:
        connection.close(True)
        raise
    return connection


def _has_read_models(connection: apsw.Connection, in_store: bool) -> bool:
    # A file of somebody else, or of another version of the program, is no read model of this one.
    if not in_store and (
        connection.pragma("application_id") != APPLICATION_ID
        or connection.pragma("user_version") != SCHEMA_VERSION
    ):
        return False
    found = connection.execute(
        "SELECT count(*) FROM sqlite_schema "
        "WHERE name IN ('projections', 'checkpoints', 'dead_letters')"
    ).fetchall()
    return bool(found[0][0] == 3)
