"""The store on a MySQL or MariaDB server: one connection for each partition's writer.

A transaction is three round trips: the fence with the versions, and only when it matched its row the
commits with the row changes; then COMMIT. Whatever fails at or after COMMIT is in doubt until `acquire` has
taken the partition over anew, which waits for what the old session may still hold.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from engine.clock import Clock, SystemClock
from engine.cqrs.event_store import (
    ALL_PARTS,
    Lease,
    NewCommit,
    RowChange,
    SnapshotPart,
    Source,
    StoredSnapshot,
    Table,
    decode_source,
)
from engine.cqrs.query_side.read_model import Step
from engine.errors import (
    CommitOutcomeUnknown,
    Fenced,
    ProjectionDiverged,
    StoreError,
    StoreUnavailable,
    StreamKey,
    WrongExpectedVersion,
)
from engine.stores import mysql_sql as sql
from engine.stores import mysql_views_sql as views_sql
from engine.stores.failpoint import AFTER_COMMIT, Failpoint, no_failpoint
from engine.stores.layout import Layout, check_layout
from engine.stores.mysql_connection import (
    AND_IN_A_TRANSACTION,
    WRITER_IDLE_SECONDS,
    Answer,
    MysqlConnection,
    code_of,
    translate,
)
from engine.stores.mysql_places import read_member
from engine.stores.mysql_read import MysqlReader, MysqlReads, row_of
from engine.stores.mysql_schema import read_layout
from engine.stores.mysql_server import MysqlServer, check_server, read_server
from engine.stores.mysql_url import MysqlAddress
from engine.stores.places import Elsewhere, Member
from engine.stores.read_tables import MOVED
from engine.stores.row_guard import check_change, check_tables, explain

__all__ = ["MysqlReader", "MysqlStore"]

DUPLICATE = 1062

STATEMENT_HEAD_BYTES = 4_096
"""What an INSERT of one commit has around its events, generously."""


class MysqlStore(MysqlReads):
    """An EventStore on a server, for one writer a partition at a time. Made by `open`."""

    def __init__(
        self,
        address: MysqlAddress,
        layout: Layout,
        server: MysqlServer,
        reader: MysqlConnection,
        clock: Clock,
        failpoint: Failpoint,
        member: Member | None = None,
    ) -> None:
        super().__init__(address, layout, server, reader, member)
        self._clock = clock
        self._failpoint = failpoint
        self._writers: dict[int, MysqlConnection] = {}
        # A connection is one conversation: two transactions at once would mix on it.
        self._turns = [asyncio.Lock() for _ in range(layout.partitions)]

    @classmethod
    async def open(
        cls,
        address: MysqlAddress,
        *,
        partitions: int = 1,
        tables: tuple[Table, ...] = (),
        strict: bool = True,
        clock: Clock | None = None,
        failpoint: Failpoint = no_failpoint,
        several: bool = False,
    ) -> MysqlStore:
        """Open a store that `initialise` made; with `several`, one of the databases of a store.

        Raises ConfigError (address, not a store, a server that is read-only or, when `strict`,
        could lose a commit), SchemaMismatch (another schema version, partition count or tables),
        StoreUnavailable.
        """
        layout = Layout(partitions, tuple(check_tables(tables).values()))
        reader = await MysqlConnection.open(address)
        try:
            stored = await read_layout(reader, address)
            check_layout(stored, layout, str(address))
            layout = stored
            server = await read_server(reader)
            check_server(server, address, strict=strict)
            member = await read_member(reader, address, several=several)
        except BaseException:
            reader.close()
            raise
        return cls(address, layout, server, reader, clock or SystemClock(), failpoint, member)

    @property
    def is_remote(self) -> bool:
        return True

    @property
    def commit_bytes_max(self) -> int:
        return self._server.packet_bytes_max - STATEMENT_HEAD_BYTES

    async def acquire(self, partition: int, held: Lease | None = None) -> Lease:
        if not 0 <= partition < self.partitions:
            raise ValueError(f"no partition {partition}: there are 0..{self.partitions - 1}")
        async with self._turns[partition]:
            return await self._acquire(partition, held)

    async def append(
        self,
        lease: Lease,
        commits: Sequence[NewCommit],
        steps: Sequence[Step] = (),
        at_us: int | None = None,
        source: Source | None = None,
    ) -> None:
        async with self._turns[lease.partition]:
            await self._append(lease, commits, steps, at_us, source)

    async def _acquire(self, partition: int, held: Lease | None) -> Lease:
        if self._closed:
            raise StoreUnavailable("the store is closed")
        if (old := self._writers.pop(partition, None)) is not None:
            old.close()
        writer = await MysqlConnection.reopen(
            self._address,
            f"SET SESSION wait_timeout = {WRITER_IDLE_SECONDS} {AND_IN_A_TRANSACTION}",
        )
        try:
            await writer.run("BEGIN")
            # Waits for the row lock of whoever writes now, and fences them for good.
            place = self.member.name if self.member is not None else ""
            taken = await writer.run(sql.take(partition, held, place))
            found = await writer.run(
                f"SELECT epoch, position, owner, source, place FROM partitions "
                f"WHERE partition_id = {partition}"
            )
            if taken.matched != 1:
                mark = found.rows[0][4]
                if held is not None and mark == place:
                    raise Fenced(partition, held.epoch)
                raise Elsewhere(partition, mark)
            # An epoch too many harms nobody, so a COMMIT in doubt is simply asked again.
            await writer.run("COMMIT")
        except BaseException:
            writer.close()
            raise
        self._writers[partition] = writer
        epoch, position, owner, source, _ = found.rows[0]
        return Lease(partition, epoch, position, owner, decode_source(source))

    async def _append(
        self,
        lease: Lease,
        commits: Sequence[NewCommit],
        steps: Sequence[Step],
        at_us: int | None,
        source: Source | None,
    ) -> None:
        writer = self._writers.get(lease.partition)
        if writer is None or writer.closed:
            raise StoreUnavailable("the connection is gone: acquire first")
        try:
            await self._write(writer, lease, commits, at_us, source)
            for step in steps:
                await self._project(writer, step)
            self._failpoint("before-commit")
        except BaseException as error:
            await _roll_back(writer)
            if code_of(error) == DUPLICATE:
                raise await self._wrong_versions(commits) from error
            if isinstance(error, StoreUnavailable):
                raise
            translated = translate(error, "nothing was written")
            if translated is error:
                raise
            raise translated from error
        try:
            await writer.run("COMMIT")
            self._failpoint(AFTER_COMMIT)
        except BaseException as error:
            writer.close()
            if not isinstance(error, Exception):
                # Whoever cancels wants an end, not another try.
                raise
            raise CommitOutcomeUnknown(f"failed at or after COMMIT: {error}") from error

    async def save_snapshot(
        self,
        snapshot: StoredSnapshot,
        parts: Sequence[SnapshotPart] = (),
        replaced: tuple[int, int] = ALL_PARTS,
    ) -> None:
        if self._closed:
            raise StoreUnavailable("the store is closed")
        # Of its own: neither reads nor commits wait for it, and closing it undoes what is half done.
        connection = await MysqlConnection.reopen(self._address)
        try:
            await self._write_snapshot(connection, snapshot, parts, replaced)
        finally:
            connection.close()

    async def _write_snapshot(
        self,
        connection: MysqlConnection,
        snapshot: StoredSnapshot,
        parts: Sequence[SnapshotPart],
        replaced: tuple[int, int],
    ) -> None:
        stream = (snapshot.aggregate_type, snapshot.aggregate_id)
        _, newest = await connection.run_all(["BEGIN", sql.snapshot_version(stream)])
        if newest.rows and newest.rows[0][0] > snapshot.version:
            return
        await connection.run(sql.remove_parts(stream, replaced))
        for part in parts:
            # One at a time: together they could be larger than a packet.
            await connection.run(sql.add_part(stream, part))
        await connection.run(
            sql.save_snapshot(
                {
                    "aggregate_type": sql.quote(snapshot.aggregate_type),
                    "aggregate_id": sql.quote(snapshot.aggregate_id),
                    "version": sql.quote(snapshot.version),
                    "code_version": sql.quote(snapshot.code_version),
                    "checksum": sql.quote(snapshot.checksum),
                    "state": sql.quote_bytes(snapshot.state),
                }
            )
        )
        await connection.run("COMMIT")

    async def close(self) -> None:
        self._closed = True
        for writer in self._writers.values():
            writer.close()
        self._writers.clear()
        self._reader.close()

    async def _write(
        self,
        writer: MysqlConnection,
        lease: Lease,
        commits: Sequence[NewCommit],
        at_us: int | None,
        source: Source | None,
    ) -> None:
        self._failpoint("begin")
        # No write is sent behind the fence before it has answered: it would run all the same.
        statements = ["BEGIN", sql.fence(lease, len(commits), source)]
        if commits:
            statements.append(sql.versions([each.stream for each in commits]))
        _, fence, *versions = await writer.run_all(statements)
        if fence.matched != 1:
            raise Fenced(lease.partition, lease.epoch)
        self._failpoint("fence")
        if not commits:
            return
        if wrong := wrong_versions(commits, dict(versions[0].rows)):
            raise WrongExpectedVersion(wrong)
        now_us = self._clock.wall_us() if at_us is None else at_us
        changes = [(each.stream, change) for each in commits for change in each.changes]
        inserts = list(sql.inserts(lease, commits, now_us, self._server.statement_bytes_max))
        for statement in inserts:
            self._check_size(statement)
        updates = [
            sql.change_row(check_change(self._tables, stream, change), change)
            for stream, change in changes
        ]
        answers: list[Answer] = []
        for statements in sql.together([*inserts, *updates], self.commit_bytes_max):
            answers += await writer.run_all(statements)
        self._failpoint("insert")
        for (stream, change), answer in zip(changes, answers[len(inserts) :], strict=True):
            if answer.matched != 1:
                raise await self._diverged(writer, stream, change)
            self._failpoint("change")

    async def _project(self, writer: MysqlConnection, step: Step) -> None:
        """The step of an inline projection."""
        if (await writer.run(views_sql.move(step))).matched != 1:
            raise StoreUnavailable(MOVED.format(step.projection))
        for statement in views_sql.writes(step):
            await writer.run(statement)

    async def _diverged(
        self, writer: MysqlConnection, stream: StreamKey, change: RowChange
    ) -> ProjectionDiverged:
        """What a change did not find as it had to be."""
        table = self._tables[change.table]
        rows = (await writer.run(sql.read_rows(table, change.key))).rows
        row = row_of(table, rows[0]) if rows else None
        return ProjectionDiverged(stream, explain(change, row))

    async def _wrong_versions(self, commits: Sequence[NewCommit]) -> StoreError:
        """Name the streams that a duplicate key was about: another partition's writer has them."""
        last = dict(await self._read(sql.versions([each.stream for each in commits])))
        wrong = wrong_versions(commits, last)
        if not wrong:
            return StoreUnavailable("a duplicate key, and every stream is as it was expected")
        return WrongExpectedVersion(wrong)

    def _check_size(self, statement: str) -> None:
        size = len(statement.encode())
        if size >= self._server.packet_bytes_max:
            raise StoreUnavailable(
                f"one commit is {size:,} bytes and the server takes {self._server.packet_bytes_max:,} "
                "(max_allowed_packet); lower batch.size_max"
            )


def wrong_versions(commits: Sequence[NewCommit], last: Mapping[int, int]) -> frozenset[StreamKey]:
    """The streams whose last version, by their place in `commits`, is not the one before."""
    seen: set[StreamKey] = set()
    wrong: set[StreamKey] = set()
    for number, commit in enumerate(commits):
        if commit.first_version != last.get(number, 0) + 1 or commit.stream in seen:
            wrong.add(commit.stream)
        seen.add(commit.stream)
    return frozenset(wrong)


async def _roll_back(writer: MysqlConnection) -> None:
    """End the transaction of a healthy connection; one that failed is closed, which ends it too."""
    if not writer.closed:
        try:
            await writer.run("ROLLBACK")
        except StoreUnavailable:
            writer.close()
