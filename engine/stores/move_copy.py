"""Copies what one partition has from one database to another, and compares it byte by byte.

Nobody writes either side meanwhile: the partition is fenced here and not claimed there. What was copied
before, by a run that was cut off or when the partition was there once before, is the beginning of
the same history: it stays, and is compared like the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, TypeAlias

from engine.cqrs.codec import checksum
from engine.cqrs.event_store import SnapshotPart, StoredSnapshot, Table, Value
from engine.cqrs.partitioning import partition_of
from engine.errors import StoreUnavailable, StreamKey
from engine.stores import mysql_move_sql as sql
from engine.stores import mysql_sql
from engine.stores.layout import Layout
from engine.stores.mysql_connection import READ_SECONDS_MAX, MysqlConnection
from engine.stores.mysql_read import commits_of, row_of
from engine.stores.mysql_server import MysqlServer

Report: TypeAlias = Callable[[str, int, int], None]
"""Told what is done, how much of it, and of how much."""

PAGE_COMMITS: Final = 64
"""At 8,190 events each about 40 MB."""

ROWS_AT_ONCE: Final = 200

PAGE_PARTS: Final = 8


class Copy:
    """What a partition has in `source`, at `position`, and its copy in `target`."""

    def __init__(
        self,
        source: MysqlConnection,
        target: MysqlConnection,
        server: MysqlServer,
        layout: Layout,
        partition: int,
        position: int,
        report: Report,
    ) -> None:
        """`server` is that of `target`."""
        self._source = source
        self._target = target
        self._server = server
        self._layout = layout
        self._partition = partition
        self._position = position
        self._report = report

    async def copy(self) -> None:
        """Raises StoreUnavailable."""
        await self._copy_commits()
        for table in self._layout.tables:
            await self._copy_rows(table)
        await self._copy_snapshots()

    async def verify(self) -> None:
        """Raises StoreUnavailable, naming what differs."""
        await self._verify_commits()
        for table in self._layout.tables:
            ours = await self._rows(self._source, table)
            if ours != await self._rows(self._target, table):
                raise self._differs(f"the rows of {table.name}")
        for stream in await self._snapshot_streams(self._source, sql.SNAPSHOT_STREAMS):
            for digest in (sql.snapshot_digest(stream), sql.parts_digest(stream)):
                if await self._all(self._source, digest) != await self._all(self._target, digest):
                    raise self._differs(f"the snapshot of {stream[0]} {stream[1]!r}")

    async def drop_at_source(self) -> None:
        """Take away what only the home of a partition has; its commits stay, which nobody reads."""
        for table in self._layout.tables:
            await self._delete_rows(self._source, table)
        await self._drop_snapshots(self._source)

    # -- commits

    async def _copy_commits(self) -> None:
        (done,) = (await self._all(self._target, sql.newest_position(self._partition)))[0]
        self._report("copy", done, self._position)
        while done < self._position:
            read = mysql_sql.read_partition(self._partition, done, PAGE_COMMITS)
            page = commits_of(await self._all(self._source, read))
            for statement in mysql_sql.copies(page, self._server.statement_bytes_max):
                self._check_size(statement)
                await self._target.run(statement, READ_SECONDS_MAX)
            if not page:
                raise self._differs("the position of the partition, which is beyond its commits,")
            done = page[-1].position
            self._report("copy", done, self._position)

    async def _verify_commits(self) -> None:
        done = 0
        (newest,) = (await self._all(self._target, sql.newest_position(self._partition)))[0]
        if newest != self._position:
            raise self._differs(f"the number of commits ({newest:,} of {self._position:,})")
        while done < self._position:
            read = mysql_sql.read_partition(self._partition, done, PAGE_COMMITS)
            ours = commits_of(await self._all(self._source, read))
            theirs = commits_of(await self._all(self._target, read))
            for position, commit in enumerate(theirs, done + 1):
                if commit.position != position or checksum(commit.events) != commit.checksum:
                    raise self._differs(f"the commit at position {position:,}")
            if ours != theirs or not theirs:
                raise self._differs(f"one of the commits after position {done:,}")
            done = theirs[-1].position
            self._report("verify", done, self._position)

    # -- rows

    async def _copy_rows(self, table: Table) -> None:
        await self._delete_rows(self._target, table)
        statements = [sql.put_row(table, row) for row in await self._rows(self._source, table)]
        for first in range(0, len(statements), ROWS_AT_ONCE):
            some = statements[first : first + ROWS_AT_ONCE]
            await self._target.run_all(["BEGIN", *some, "COMMIT"])

    async def _delete_rows(self, connection: MysqlConnection, table: Table) -> None:
        keys = [str(row[table.key]) for row in await self._rows(connection, table)]
        for first in range(0, len(keys), ROWS_AT_ONCE):
            await connection.run(sql.delete_rows(table, keys[first : first + ROWS_AT_ONCE]))

    async def _rows(self, connection: MysqlConnection, table: Table) -> list[dict[str, Value]]:
        rows = [
            row_of(table, row) for row in await self._all(connection, mysql_sql.read_rows(table))
        ]
        return [row for row in rows if self._is_mine(str(row[table.key]))]

    # -- snapshots

    async def _copy_snapshots(self) -> None:
        await self._drop_snapshots(self._target)
        for stream in await self._snapshot_streams(self._source, sql.SNAPSHOT_STREAMS):
            number = 0
            while True:
                read = mysql_sql.read_parts(stream, number, PAGE_PARTS)
                parts = [SnapshotPart(*row) for row in await self._all(self._source, read)]
                if not parts:
                    break
                for part in parts:
                    await self._put(mysql_sql.add_part(stream, part))
                number = parts[-1].number + 1
            head = await self._all(self._source, mysql_sql.load_snapshot(stream))
            await self._put(sql.put_snapshot(StoredSnapshot(*head[0])))

    async def _drop_snapshots(self, connection: MysqlConnection) -> None:
        streams = await self._snapshot_streams(connection, sql.SNAPSHOT_STREAMS)
        streams += await self._snapshot_streams(connection, sql.PART_STREAMS)
        for stream in dict.fromkeys(streams):
            for statement in sql.delete_snapshot(stream):
                await connection.run(statement, READ_SECONDS_MAX)

    async def _snapshot_streams(
        self, connection: MysqlConnection, statement: str
    ) -> list[StreamKey]:
        found = await self._all(connection, statement)
        return [(kind, name) for kind, name in found if self._is_mine(name)]

    # -- statements

    async def _put(self, statement: str) -> None:
        self._check_size(statement)
        await self._target.run(statement, READ_SECONDS_MAX)

    async def _all(self, connection: MysqlConnection, statement: str) -> Sequence[tuple[Any, ...]]:
        return (await connection.run(statement, READ_SECONDS_MAX)).rows

    def _check_size(self, statement: str) -> None:
        size = len(statement.encode())
        if size >= self._server.packet_bytes_max:
            raise StoreUnavailable(
                f"a statement of {size:,} bytes is more than the server takes that it moves to "
                f"({self._server.packet_bytes_max:,}); raise its max_allowed_packet"
            )

    def _is_mine(self, aggregate_id: str) -> bool:
        return partition_of(aggregate_id, self._layout.partitions) == self._partition

    def _differs(self, what: str) -> StoreUnavailable:
        return StoreUnavailable(
            f"partition {self._partition} was not moved: {what} differs between the two databases"
        )
