"""The embedded store: one SQLite file, durable at every commit.

One thread owns the one connection that writes and checkpoints; a second thread owns one that only
reads. A whole batch is one hop to the writer thread, not one per row.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, TypeVar

import apsw

from engine.clock import Clock, SystemClock
from engine.cqrs.event_store import (
    ALL_PARTS,
    Lease,
    NewCommit,
    SnapshotPart,
    Source,
    StoredSnapshot,
    Table,
    decode_source,
    owner_of,
)
from engine.cqrs.query_side.read_model import Step
from engine.errors import CommitOutcomeUnknown, Fenced, StoreUnavailable
from engine.stores.failpoint import AFTER_COMMIT, Failpoint, no_failpoint
from engine.stores.layout import Layout, check_layout
from engine.stores.read_tables import MOVED
from engine.stores.row_guard import check_tables
from engine.stores.sqlite_file import (
    WAL_PAGES_MAX,
    FileLock,
    create_store,
    find_store,
    open_for_reading,
    open_for_writing,
    translate,
)
from engine.stores.sqlite_read import SqliteReader, SqliteReads
from engine.stores.sqlite_schema import read_layout
from engine.stores.sqlite_views import advance
from engine.stores.sqlite_write import write_commits, write_snapshot
from engine.stores.worker import Worker, open_on_thread

__all__ = ["SqliteReader", "SqliteStore"]

Result = TypeVar("Result")

VALUE_BYTES_MAX = 1_000_000_000
"""SQLite's own limit of one value (SQLITE_MAX_LENGTH), as apsw's SQLite is built."""


class SqliteStore(SqliteReads):
    """An EventStore in one file, for one process at a time. Made by `open`."""

    def __init__(
        self,
        path: str,
        layout: Layout,
        lock: FileLock,
        writer: apsw.Connection,
        reader: apsw.Connection,
        clock: Clock,
        failpoint: Failpoint,
    ) -> None:
        super().__init__(path, layout, reader)
        self._lock = lock
        self._writer: apsw.Connection | None = writer
        self._clock = clock
        self._failpoint = failpoint
        self._write_worker = Worker("sqlite-writer")
        self._closing: asyncio.Task[None] | None = None
        self._wal_pages = 0
        self._watch_log(writer)

    @classmethod
    async def open(
        cls,
        path: str,
        *,
        partitions: int = 1,
        tables: tuple[Table, ...] = (),
        clock: Clock | None = None,
        failpoint: Failpoint = no_failpoint,
    ) -> SqliteStore:
        """Open the store at `path` for writing, and create it when nothing is there.

        Raises ConfigError (not a store, cannot be written), StoreLocked (another process writes
        it), SchemaMismatch (another schema version, partition count or tables), StoreUnavailable.
        """
        layout = Layout(partitions, tuple(check_tables(tables).values()))
        return await open_on_thread(_open, cls, path, layout, clock or SystemClock(), failpoint)

    @property
    def is_remote(self) -> bool:
        return False

    @property
    def commit_bytes_max(self) -> int:
        return VALUE_BYTES_MAX

    async def acquire(self, partition: int, held: Lease | None = None) -> Lease:
        return await self._write_worker.call(self._acquire, partition, held)

    async def append(
        self,
        lease: Lease,
        commits: Sequence[NewCommit],
        steps: Sequence[Step] = (),
        at_us: int | None = None,
        source: Source | None = None,
    ) -> None:
        await self._write_worker.call(self._append, lease, commits, steps, at_us, source)
        # The buyers are answered while the log is copied into the database; a store that was closed
        # meanwhile has copied it.
        with suppress(StoreUnavailable):
            self._write_worker.post(self._checkpoint)

    async def save_snapshot(
        self,
        snapshot: StoredSnapshot,
        parts: Sequence[SnapshotPart] = (),
        replaced: tuple[int, int] = ALL_PARTS,
    ) -> None:
        await self._write_worker.call(self._save_snapshot, snapshot, parts, replaced)
        with suppress(StoreUnavailable):
            self._write_worker.post(self._checkpoint)

    async def close(self) -> None:
        if self._closing is None:
            self._closed = True
            self._closing = asyncio.create_task(self._close())
        # A caller that gives up must not leave the file locked.
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        try:
            # The reader goes first: the last connection to close removes the log it has emptied.
            await self._close_reader()
            self._write_worker.post(self._close_writer)
            await self._write_worker.close()
        finally:
            self._lock.release()

    # -- on the writer thread

    def _acquire(self, partition: int, held: Lease | None) -> Lease:
        if not 0 <= partition < self.partitions:
            raise ValueError(f"no partition {partition}: there are 0..{self.partitions - 1}")
        if self._writer is None:
            # What the broken connection left behind is settled by the next one that opens the file.
            self._writer = open_for_writing(self._path)
            self._watch_log(self._writer)

        def raise_epoch(connection: apsw.Connection) -> Lease:
            rows: list[Any] = connection.execute(
                "UPDATE partitions SET epoch = epoch + 1, owner = ?1 WHERE partition_id = ?2 "
                "AND (owner = ?1 OR ?3) RETURNING epoch, position, owner, source",
                (owner_of(held), partition, held is None),
            ).fetchall()
            if not rows:
                assert held is not None
                raise Fenced(partition, held.epoch)
            epoch, position, owner, source = rows[0]
            return Lease(partition, epoch, position, owner, decode_source(source))

        try:
            return self._transaction(raise_epoch)
        except CommitOutcomeUnknown as error:
            # An epoch too many harms nobody; the caller asks again.
            raise StoreUnavailable(str(error)) from error

    def _append(
        self,
        lease: Lease,
        commits: Sequence[NewCommit],
        steps: Sequence[Step],
        at_us: int | None,
        source: Source | None,
    ) -> None:
        now_us = self._clock.wall_us() if at_us is None else at_us

        def write(connection: apsw.Connection) -> None:
            write_commits(connection, self._tables, lease, commits, now_us, self._failpoint, source)
            for step in steps:
                if not advance(connection, step):
                    raise StoreUnavailable(MOVED.format(step.projection))

        self._transaction(write, self._failpoint)

    def _transaction(
        self, write: Callable[[apsw.Connection], Result], failpoint: Failpoint = no_failpoint
    ) -> Result:
        """Run `write` in one transaction: COMMIT, or ROLLBACK on any error before it."""
        connection = self._writer
        if connection is None:
            raise StoreUnavailable("an earlier transaction failed at COMMIT: acquire first")
        try:
            connection.execute("BEGIN IMMEDIATE")
            result = write(connection)
            failpoint("before-commit")
        except BaseException as error:
            self._roll_back(connection)
            if (translated := translate(error, "nothing was written")) is error:
                raise
            raise translated from error
        try:
            connection.execute("COMMIT")
            failpoint(AFTER_COMMIT)
        except BaseException as error:
            self._abandon(connection)
            raise CommitOutcomeUnknown(f"failed at or after COMMIT: {error}") from error
        return result

    def _save_snapshot(
        self,
        snapshot: StoredSnapshot,
        parts: Sequence[SnapshotPart],
        replaced: tuple[int, int],
    ) -> None:
        try:
            self._transaction(
                lambda connection: write_snapshot(connection, snapshot, parts, replaced)
            )
        except CommitOutcomeUnknown as error:
            raise StoreUnavailable(str(error)) from error

    def _watch_log(self, connection: apsw.Connection) -> None:
        """Note the length of the log after each commit; this also turns automatic copying off."""

        def note(_: apsw.Connection, __: str, pages: int) -> int:
            self._wal_pages = pages
            return apsw.SQLITE_OK

        connection.set_wal_hook(note)

    def _checkpoint(self) -> None:
        connection = self._writer
        if connection is not None and self._wal_pages >= WAL_PAGES_MAX:
            try:
                connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
            except apsw.Error:
                # The commits are safe in the log; the next checkpoint takes them along.
                return

    def _roll_back(self, connection: apsw.Connection) -> None:
        try:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
        except apsw.Error:
            self._abandon(connection)

    def _abandon(self, connection: apsw.Connection) -> None:
        """Never use a connection again whose state is in doubt."""
        self._writer = None
        connection.close(True)

    def _close_writer(self) -> None:
        connection, self._writer = self._writer, None
        if connection is None:
            return
        try:
            connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
        except apsw.Error:
            pass
        connection.close(True)


def _open(
    kind: type[SqliteStore], path: str, layout: Layout, clock: Clock, failpoint: Failpoint
) -> SqliteStore:
    path = os.path.realpath(path)
    exists = find_store(path)
    lock = FileLock(path)
    try:
        # Looked at again: another process may have created it before we had the lock.
        if not exists and not find_store(path):
            create_store(path, layout)
        writer = open_for_writing(path)
        try:
            stored = read_layout(writer, path)
            check_layout(stored, layout, path)
            reader = open_for_reading(path)
        except BaseException:
            writer.close(True)
            raise
        return kind(path, stored, lock, writer, reader, clock, failpoint)
    except BaseException:
        lock.release()
        raise
