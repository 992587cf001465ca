"""Reading a MySQL store: one connection of its own, opened again when it broke."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

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
from engine.errors import StoreUnavailable, StreamKey
from engine.stores import mysql_sql as sql
from engine.stores import mysql_views_sql as views_sql
from engine.stores.layout import Layout
from engine.stores.mysql_connection import GONE, READ_SECONDS_MAX, MysqlConnection, code_of
from engine.stores.mysql_places import read_member
from engine.stores.mysql_schema import read_layout
from engine.stores.mysql_server import MysqlServer, read_server
from engine.stores.mysql_url import MysqlAddress
from engine.stores.places import Member
from engine.stores.row_guard import columns_of, rows_of, table_named


class MysqlReads:
    """The reading half. Every read sees what is committed by then."""

    def __init__(
        self,
        address: MysqlAddress,
        layout: Layout,
        server: MysqlServer,
        reader: MysqlConnection,
        member: Member | None = None,
    ) -> None:
        self._address = address
        self.layout = layout
        self.member = member
        """What the database is among several, None for one that is alone."""
        self._tables = {table.name: table for table in layout.tables}
        self._server = server
        self._reader = reader
        self._reading = asyncio.Lock()
        self._closed = False

    @property
    def partitions(self) -> int:
        return self.layout.partitions

    @property
    def info(self) -> StoreInfo:
        kind = "mariadb" if "mariadb" in self._server.version.lower() else "mysql"
        return StoreInfo(
            *(kind, self._server.version, self._server.durability, str(self._address)),
            self.layout.identity,
        )

    async def read_marks(self) -> dict[int, str]:
        """What this database says of where each partition lives. Raises StoreUnavailable."""
        return dict(await self._read(sql.READ_MARKS))

    async def read_mark(self, partition: int) -> str:
        """The same for one partition."""
        return str((await self._read(sql.read_mark(partition)))[0][1])

    async def live_generation(self, projection: str) -> int:
        """The generation of a read model that is kept here, 0 for none. Raises StoreUnavailable."""
        rows = await self._read(views_sql.generations(projection))
        return next((int(number) for number, live, _ in rows if live), 0)

    async def read_partition(
        self, partition: int, after_position: int, limit: int
    ) -> list[StoredCommit]:
        return commits_of(await self._read(sql.read_partition(partition, after_position, limit)))

    async def read_position(self, partition: int) -> int:
        return int((await self._read(sql.read_position(partition)))[0][0])

    async def read_stream(
        self, stream: StreamKey, after_version: int, limit: int
    ) -> list[StoredCommit]:
        return commits_of(await self._read(sql.read_stream(stream, after_version, limit)))

    async def read_streams(self) -> list[StreamInfo]:
        return [StreamInfo(*row) for row in await self._read(sql.READ_STREAMS)]

    async def read_rows(self, table: str, partition: int | None = None) -> list[dict[str, Value]]:
        known = table_named(self._tables, table)
        rows = [row_of(known, row) for row in await self._read(sql.read_rows(known))]
        return rows_of(rows, known.key, partition, self.partitions)

    async def read_row(self, table: str, key: str) -> dict[str, Value] | None:
        known = table_named(self._tables, table)
        rows = await self._read(sql.read_rows(known, key))
        return row_of(known, rows[0]) if rows else None

    async def read_places(self) -> list[PartitionPlace]:
        name = self.member.name if self.member is not None else ""
        return [
            PartitionPlace(number, name, str(self._address), epoch, position, owner)
            for number, epoch, position, owner in await self._read(sql.READ_PLACES)
        ]

    async def load_snapshot(self, stream: StreamKey) -> StoredSnapshot | None:
        rows = await self._read(sql.load_snapshot(stream))
        return StoredSnapshot(*rows[0]) if rows else None

    async def read_snapshot_parts(
        self, stream: StreamKey, from_number: int, limit: int
    ) -> list[SnapshotPart]:
        rows = await self._read(sql.read_parts(stream, from_number, limit))
        return [SnapshotPart(*row) for row in rows]

    async def close(self) -> None:
        self._closed = True
        self._reader.close()

    async def _read(self, statement: str) -> Sequence[tuple[Any, ...]]:
        async with self._reading:
            if self._closed:
                raise StoreUnavailable("the store is closed")
            if not self._reader.closed:
                try:
                    return (await self._reader.run(statement, READ_SECONDS_MAX)).rows
                except StoreUnavailable as error:
                    # The server may have dropped it long ago; reading twice harms nobody.
                    if code_of(error) not in GONE:
                        raise
            self._reader = await MysqlConnection.reopen(self._address)
            return (await self._reader.run(statement, READ_SECONDS_MAX)).rows


class MysqlReader(MysqlReads):
    """An EventReader of a store that an engine may be writing. Made by `open`."""

    @classmethod
    async def open(cls, address: MysqlAddress, *, several: bool = False) -> MysqlReader:
        """`several`: it is one of several databases, or else it must be none.

        Raises ConfigError when there is no store, SchemaMismatch, StoreUnavailable.
        """
        reader = await MysqlConnection.open(address)
        try:
            layout = await read_layout(reader, address)
            member = await read_member(reader, address, several=several)
            return cls(address, layout, await read_server(reader), reader, member)
        except BaseException:
            reader.close()
            raise


def commits_of(rows: Sequence[tuple[Any, ...]]) -> list[StoredCommit]:
    return [
        StoredCommit(p, n, kind, name, first, last, events.encode(), checksum, at_us)
        for p, n, kind, name, first, last, events, checksum, at_us in rows
    ]


def row_of(table: Table, values: tuple[Value, ...]) -> dict[str, Value]:
    """A row as read by `mysql_sql.read_rows`, by column."""
    return dict(zip(columns_of(table), values, strict=True))
