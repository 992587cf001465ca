"""What a SQLite store writes inside one transaction: the statements, in their order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import apsw

from engine.cqrs.event_store import (
    Lease,
    NewCommit,
    RowChange,
    SnapshotPart,
    Source,
    StoredSnapshot,
    Table,
    encode_source,
)
from engine.errors import Fenced, ProjectionDiverged, StreamKey, WrongExpectedVersion
from engine.stores.failpoint import Failpoint
from engine.stores.row_guard import NUMBER_MAX, check_change, columns_of, explain
from engine.stores.sqlite_read import read_one_row


def write_commits(
    connection: apsw.Connection,
    tables: Mapping[str, Table],
    lease: Lease,
    commits: Sequence[NewCommit],
    now_us: int,
    failpoint: Failpoint,
    source: Source | None = None,
) -> None:
    """Write a batch: the fence with the source, the version guard, the commits, their row changes.

    Raises Fenced, WrongExpectedVersion, ProjectionDiverged; the caller rolls back.
    """
    failpoint("begin")
    fence = connection.execute(
        "UPDATE partitions SET position = position + ?, source = COALESCE(?, source) "
        "WHERE partition_id = ? AND epoch = ? AND position = ? RETURNING position",
        (
            len(commits),
            None if source is None else encode_source(source),
            *(lease.partition, lease.epoch, lease.position),
        ),
    ).fetchall()
    if not fence:
        raise Fenced(lease.partition, lease.epoch)
    failpoint("fence")
    _check_versions(connection, commits)
    for position, commit in enumerate(commits, lease.position + 1):
        connection.execute(
            "INSERT INTO commits (partition_id, position, aggregate_type, aggregate_id, "
            "first_version, last_version, checksum, committed_at_us, events) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                lease.partition,
                position,
                commit.aggregate_type,
                commit.aggregate_id,
                commit.first_version,
                commit.last_version,
                commit.checksum,
                now_us,
                commit.events.decode(),
            ),
        )
        failpoint("insert")
        for change in commit.changes:
            _change_row(connection, tables, commit.stream, change)
            failpoint("change")


def write_snapshot(
    connection: apsw.Connection,
    snapshot: StoredSnapshot,
    parts: Sequence[SnapshotPart],
    replaced: tuple[int, int],
) -> None:
    """Keep a snapshot with its parts, unless a newer one is there."""
    stream = (snapshot.aggregate_type, snapshot.aggregate_id)
    kept = connection.execute(
        "INSERT INTO snapshots (aggregate_type, aggregate_id, version, code_version, "
        "checksum, state) VALUES (?, ?, ?, ?, ?, ?) "
        "ON CONFLICT (aggregate_type, aggregate_id) DO UPDATE SET "
        "version = excluded.version, code_version = excluded.code_version, "
        "checksum = excluded.checksum, state = excluded.state "
        "WHERE excluded.version >= version RETURNING version",
        (
            *stream,
            snapshot.version,
            snapshot.code_version,
            snapshot.checksum,
            snapshot.state,
        ),
    ).fetchall()
    if not kept:
        return
    connection.execute(
        "DELETE FROM snapshot_parts "
        "WHERE aggregate_type = ? AND aggregate_id = ? AND number >= ? AND number < ?",
        (*stream, *replaced),
    )
    connection.executemany(
        "INSERT INTO snapshot_parts (aggregate_type, aggregate_id, number, data) "
        "VALUES (?, ?, ?, ?)",
        [(*stream, part.number, part.data) for part in parts],
    )


def _check_versions(connection: apsw.Connection, commits: Sequence[NewCommit]) -> None:
    wrong: set[StreamKey] = set()
    seen: set[StreamKey] = set()
    for commit in commits:
        last: list[Any] = connection.execute(
            "SELECT last_version FROM commits WHERE aggregate_type = ? AND aggregate_id = ? "
            "ORDER BY first_version DESC LIMIT 1",
            commit.stream,
        ).fetchall()
        if commit.first_version != (last[0][0] if last else 0) + 1 or commit.stream in seen:
            wrong.add(commit.stream)
        seen.add(commit.stream)
    if wrong:
        raise WrongExpectedVersion(frozenset(wrong))


def _change_row(
    connection: apsw.Connection, tables: Mapping[str, Table], stream: StreamKey, change: RowChange
) -> None:
    """Make one guarded change of one row. Names come from the declared table, values never do."""
    table = check_change(tables, stream, change)
    if change.insert:
        columns = columns_of(table)
        names = ", ".join(f'"{name}"' for name in columns)
        marks = ", ".join("?" * len(columns))
        statement = f'INSERT INTO "{table.name}" ({names}) VALUES ({marks}) ON CONFLICT DO NOTHING'
        values: list[Any] = [change.key, *(change.put[name] for name in columns[1:])]
    else:
        sets = [f'"{name}" = "{name}" + ?' for name in change.add]
        sets += [f'"{name}" = ?' for name in change.put]
        guards = [f'"{table.key}" = ?']
        guards += [f'"{name}" = ?' for name in change.expect]
        # Bounds are compared without adding, because a sum beyond 64 bits would become a float.
        guards += [f'"{name}" BETWEEN ? AND ?' for name in change.add]
        statement = f'UPDATE "{table.name}" SET {", ".join(sets)} WHERE {" AND ".join(guards)}'
        values = [*change.add.values(), *change.put.values(), change.key, *change.expect.values()]
        for number in change.add.values():
            values += [max(0, -number), NUMBER_MAX - max(0, number)]
    connection.execute(statement, values)
    if connection.changes() != 1:
        raise ProjectionDiverged(
            stream, explain(change, read_one_row(connection, table, change.key))
        )
