"""The reference store: everything in memory, lost at exit. For tests and for studying the port."""

from __future__ import annotations

import asyncio
import sys
import uuid
from bisect import bisect_right
from collections.abc import Mapping, Sequence

from engine.clock import Clock, SystemClock
from engine.cqrs.event_store import (
    ALL_PARTS,
    NO_SOURCE,
    Lease,
    NewCommit,
    PartitionPlace,
    RowChange,
    SnapshotPart,
    Source,
    StoredCommit,
    StoredSnapshot,
    StoreInfo,
    StreamInfo,
    Table,
    Value,
    owner_of,
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
from engine.stores.failpoint import AFTER_COMMIT, Failpoint, no_failpoint
from engine.stores.row_guard import (
    NUMBER_MAX,
    check_change,
    check_tables,
    columns_of,
    explain,
    rows_of,
)

Row = dict[str, Value]


class MemoryStore:
    """An EventStore without a disk: the same guards, the same errors, nothing durable."""

    def __init__(
        self,
        partitions: int = 1,
        tables: tuple[Table, ...] = (),
        clock: Clock | None = None,
        failpoint: Failpoint = no_failpoint,
    ) -> None:
        """Raises ValueError for fewer than one partition or an impossible table."""
        if partitions < 1:
            raise ValueError(f"a store has at least 1 partition, got {partitions}")
        self._tables = check_tables(tables)
        self._clock = clock or SystemClock()
        self._failpoint = failpoint
        self._epochs = [0] * partitions
        self._owners = [""] * partitions
        self._sources = [NO_SOURCE] * partitions
        self._commits: list[list[StoredCommit]] = [[] for _ in range(partitions)]
        self._streams: dict[StreamKey, list[StoredCommit]] = {}
        self._rows: dict[str, dict[str, Row]] = {name: {} for name in self._tables}
        self._snapshots: dict[StreamKey, StoredSnapshot] = {}
        self._snapshot_parts: dict[StreamKey, list[SnapshotPart]] = {}
        self._identity = uuid.uuid4().hex
        self._in_doubt = False
        self._closed = False

    @property
    def partitions(self) -> int:
        return len(self._epochs)

    @property
    def info(self) -> StoreInfo:
        lost = "none: lost when the program ends"
        return StoreInfo("memory", "1", lost, "memory:", self._identity)

    @property
    def is_remote(self) -> bool:
        return False

    @property
    def commit_bytes_max(self) -> int:
        return sys.maxsize

    async def acquire(self, partition: int, held: Lease | None = None) -> Lease:
        await self._turn()
        if not 0 <= partition < self.partitions:
            raise ValueError(f"no partition {partition}: there are 0..{self.partitions - 1}")
        if held is not None and self._owners[partition] != held.owner:
            raise Fenced(partition, held.epoch)
        self._in_doubt = False
        self._epochs[partition] += 1
        owner = self._owners[partition] = owner_of(held)
        position = len(self._commits[partition])
        return Lease(partition, self._epochs[partition], position, owner, self._sources[partition])

    async def append(
        self,
        lease: Lease,
        commits: Sequence[NewCommit],
        steps: Sequence[Step] = (),
        at_us: int | None = None,
        source: Source | None = None,
    ) -> None:
        await self._turn()
        if steps:
            raise ValueError("a store in memory has no read models of its own")
        if self._in_doubt:
            raise StoreUnavailable("an append before this one failed at COMMIT: acquire first")
        try:
            new, rows = self._stage(lease, commits, at_us)
            self._failpoint("before-commit")
        except StoreError:
            raise
        except Exception as error:
            raise StoreUnavailable(f"nothing was written: {error}") from error
        for commit in new:
            self._commits[lease.partition].append(commit)
            self._streams.setdefault(commit.stream, []).append(commit)
        for (table, key), row in rows.items():
            self._rows[table][key] = row
        if source is not None:
            self._sources[lease.partition] = source
        try:
            self._failpoint(AFTER_COMMIT)
        except Exception as error:
            self._in_doubt = True
            raise CommitOutcomeUnknown(f"failed at or after COMMIT: {error}") from error

    def _stage(
        self, lease: Lease, commits: Sequence[NewCommit], at_us: int | None
    ) -> tuple[list[StoredCommit], dict[tuple[str, str], Row]]:
        """Check every guard and build what will be added, touching nothing."""
        self._failpoint("begin")
        stored = (self._epochs[lease.partition], len(self._commits[lease.partition]))
        if stored != (lease.epoch, lease.position):
            raise Fenced(lease.partition, lease.epoch)
        self._failpoint("fence")
        self._check_versions(commits)
        now_us = self._clock.wall_us() if at_us is None else at_us
        new: list[StoredCommit] = []
        rows: dict[tuple[str, str], Row] = {}
        for position, commit in enumerate(commits, lease.position + 1):
            new.append(_stored(lease.partition, position, commit, now_us))
            self._failpoint("insert")
            for change in commit.changes:
                self._stage_change(commit.stream, change, rows)
                self._failpoint("change")
        return new, rows

    def _stage_change(
        self, stream: StreamKey, change: RowChange, rows: dict[tuple[str, str], Row]
    ) -> None:
        table = check_change(self._tables, stream, change)
        place = (table.name, change.key)
        row = rows.get(place) or self._rows[table.name].get(change.key)
        if (row is None) != change.insert or (row is not None and not _holds(row, change)):
            raise ProjectionDiverged(stream, explain(change, row))
        changed = {**(row or {table.key: change.key}), **change.put}
        for column, number in change.add.items():
            changed[column] = _number(changed, column) + number
        rows[place] = {column: changed[column] for column in columns_of(table)}

    def _check_versions(self, commits: Sequence[NewCommit]) -> None:
        seen, wrong = set[StreamKey](), set[StreamKey]()
        for commit in commits:
            stream = commit.stream
            stored = self._streams.get(stream)
            last_version = stored[-1].last_version if stored else 0
            if commit.first_version != last_version + 1 or stream in seen:
                wrong.add(stream)
            seen.add(stream)
        if wrong:
            raise WrongExpectedVersion(frozenset(wrong))

    async def read_partition(
        self, partition: int, after_position: int, limit: int
    ) -> list[StoredCommit]:
        await self._turn()
        return self._commits[partition][after_position : after_position + limit]

    async def read_position(self, partition: int) -> int:
        await self._turn()
        return len(self._commits[partition])

    async def read_stream(
        self, stream: StreamKey, after_version: int, limit: int
    ) -> list[StoredCommit]:
        await self._turn()
        commits = self._streams.get(stream, [])
        start = bisect_right(commits, after_version, key=lambda commit: commit.first_version)
        return commits[start : start + limit]

    async def read_streams(self) -> list[StreamInfo]:
        await self._turn()
        return [
            StreamInfo(*stream, commits[-1].partition, commits[-1].last_version, len(commits))
            for stream, commits in sorted(self._streams.items())
        ]

    async def read_rows(self, table: str, partition: int | None = None) -> list[dict[str, Value]]:
        await self._turn()
        rows = [dict(row) for _, row in sorted(self._table(table).items())]
        return rows_of(rows, self._tables[table].key, partition, self.partitions)

    async def read_row(self, table: str, key: str) -> dict[str, Value] | None:
        await self._turn()
        row = self._table(table).get(key)
        return None if row is None else dict(row)

    def _table(self, name: str) -> dict[str, Row]:
        if name not in self._rows:
            known = ", ".join(self._rows) or "none"
            raise ValueError(f"this store has no table {name!r}; it has: {known}")
        return self._rows[name]

    async def read_places(self) -> list[PartitionPlace]:
        await self._turn()
        return [
            PartitionPlace(
                *(number, "", self.info.location, epoch, len(self._commits[number])),
                self._owners[number],
            )
            for number, epoch in enumerate(self._epochs)
        ]

    async def save_snapshot(
        self,
        snapshot: StoredSnapshot,
        parts: Sequence[SnapshotPart] = (),
        replaced: tuple[int, int] = ALL_PARTS,
    ) -> None:
        await self._turn()
        stream = (snapshot.aggregate_type, snapshot.aggregate_id)
        older = self._snapshots.get(stream)
        if older is None or older.version <= snapshot.version:
            first, end = replaced
            kept = [
                each
                for each in self._snapshot_parts.get(stream, ())
                if not first <= each.number < end
            ]
            if {each.number for each in kept} & {each.number for each in parts}:
                raise StoreUnavailable("a part of this number is there already")
            self._snapshots[stream] = snapshot
            self._snapshot_parts[stream] = sorted([*kept, *parts], key=lambda each: each.number)

    async def read_snapshot_parts(
        self, stream: StreamKey, from_number: int, limit: int
    ) -> list[SnapshotPart]:
        await self._turn()
        parts = self._snapshot_parts.get(stream, [])
        return [each for each in parts if each.number >= from_number][:limit]

    async def load_snapshot(self, stream: StreamKey) -> StoredSnapshot | None:
        await self._turn()
        return self._snapshots.get(stream)

    async def close(self) -> None:
        self._closed = True

    async def _turn(self) -> None:
        """Let other tasks run first, as every call to a real store does."""
        if self._closed:
            raise StoreUnavailable("the store is closed")
        await asyncio.sleep(0)


def _holds(row: Mapping[str, Value], change: RowChange) -> bool:
    return all(row[column] == value for column, value in change.expect.items()) and all(
        0 <= _number(row, column) + number <= NUMBER_MAX for column, number in change.add.items()
    )


def _number(row: Mapping[str, Value], column: str) -> int:
    value = row[column]
    assert isinstance(value, int)
    return value


def _stored(partition: int, position: int, commit: NewCommit, now_us: int) -> StoredCommit:
    return StoredCommit(
        partition,
        position,
        commit.aggregate_type,
        commit.aggregate_id,
        commit.first_version,
        commit.last_version,
        commit.events,
        commit.checksum,
        now_us,
    )
