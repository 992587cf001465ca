"""The statements of the MySQL store as text. Pure: no connection, no clock.

Statements are built here and not by the driver: it escapes a batch of half a megabyte character by
character, and splits multi-row inserts by a pattern that misses some.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from engine.cqrs.event_store import (
    Lease,
    NewCommit,
    RowChange,
    SnapshotPart,
    Source,
    StoredCommit,
    Table,
    Value,
    encode_source,
    owner_of,
)
from engine.errors import StreamKey
from engine.stores.row_guard import NUMBER_MAX, columns_of

COMMIT_COLUMNS = (
    "partition_id, position, aggregate_type, aggregate_id, first_version, last_version, "
    "events, checksum, committed_at_us"
)


def quote(value: Value) -> str:
    """A literal. Right for every text, because the session's sql_mode lets a backslash escape."""
    if isinstance(value, int):
        return str(int(value))
    escaped = value.replace("\\", "\\\\").replace("'", "\\'").replace("\0", "\\0")
    return f"'{escaped}'"


def quote_bytes(value: bytes) -> str:
    return f"X'{value.hex()}'"


def take(partition: int, held: Lease | None, place: str = "") -> str:
    """Matches one row, or somebody else took the partition since it was held, or it lives elsewhere.

    `place` is what the database is called among several.
    """
    owner = quote(owner_of(held))
    mine = f" AND owner = {owner}" if held is not None else ""
    return (
        f"UPDATE partitions SET epoch = epoch + 1, owner = {owner} "
        f"WHERE partition_id = {partition} AND place = {quote(place)}{mine}"
    )


def fence(lease: Lease, commits: int, source: Source | None = None) -> str:
    """Matches one row, or another writer owns the partition."""
    also = "" if source is None else f", source = {quote(encode_source(source))}"
    return (
        f"UPDATE partitions SET position = position + {commits}{also} WHERE partition_id = "
        f"{lease.partition} AND epoch = {lease.epoch} AND position = {lease.position}"
    )


def versions(streams: Sequence[StreamKey]) -> str:
    """One row for each stream that has commits: its place in `streams`, its last version."""
    return " UNION ALL ".join(
        f"(SELECT {number}, last_version FROM commits WHERE {_of_stream(stream)} "
        "ORDER BY first_version DESC LIMIT 1)"
        for number, stream in enumerate(streams)
    )


def inserts(
    lease: Lease, commits: Sequence[NewCommit], now_us: int, bytes_max: int
) -> Iterator[str]:
    """INSERT statements of many rows, each below `bytes_max` unless one row alone is larger."""
    numbered = enumerate(commits, lease.position + 1)
    return _inserts(
        (_commit_row(lease.partition, position, each, now_us) for position, each in numbered),
        bytes_max,
    )


def copies(commits: Sequence[StoredCommit], bytes_max: int) -> Iterator[str]:
    """The same for commits that are stored elsewhere, as they are there."""
    return _inserts(
        (
            _commit_row(each.partition, each.position, each, each.committed_at_us)
            for each in commits
        ),
        bytes_max,
    )


def _commit_row(partition: int, position: int, commit: NewCommit | StoredCommit, at_us: int) -> str:
    return (
        f"({partition},{position},{quote(commit.aggregate_type)},{quote(commit.aggregate_id)},"
        f"{commit.first_version},{commit.last_version},{quote(commit.events.decode())},"
        f"{commit.checksum},{at_us})"
    )


def _inserts(values: Iterable[str], bytes_max: int) -> Iterator[str]:
    head = f"INSERT INTO commits ({COMMIT_COLUMNS}) VALUES "
    return (head + ",".join(rows) for rows in together(values, bytes_max))


def together(parts: Iterable[str], bytes_max: int) -> Iterator[list[str]]:
    """Parts that are sent as one, with a character between them: as many as stay below `bytes_max`, or
    one that is larger."""
    sent: list[str] = []
    size = 0
    for part in parts:
        part_bytes = len(part.encode()) + 1
        if sent and size + part_bytes > bytes_max:
            yield sent
            sent, size = [], 0
        sent.append(part)
        size += part_bytes
    if sent:
        yield sent


def change_row(table: Table, change: RowChange) -> str:
    """One guarded change of one row: it matches or inserts one row, or its guard does not hold.

    Names come from the declared table, values never do.
    """
    if change.insert:
        columns = columns_of(table)
        values = [change.key, *(change.put[name] for name in columns[1:])]
        names = ", ".join(f"`{name}`" for name in columns)
        return (
            f"INSERT INTO `{table.name}` ({names}) SELECT {', '.join(map(quote, values))} FROM DUAL "
            f"WHERE NOT EXISTS (SELECT 1 FROM `{table.name}` "
            f"WHERE `{table.key}` = {quote(change.key)})"
        )
    sets = [f"`{name}` = `{name}` + {quote(number)}" for name, number in change.add.items()]
    sets += [f"`{name}` = {quote(value)}" for name, value in change.put.items()]
    # Bounds are compared without adding: a sum beyond 64 bits is an error, not a guard.
    guards = [f"`{table.key}` = {quote(change.key)}"]
    guards += [f"`{name}` = {quote(value)}" for name, value in change.expect.items()]
    guards += [
        f"`{name}` BETWEEN {max(0, -number)} AND {NUMBER_MAX - max(0, number)}"
        for name, number in change.add.items()
    ]
    return f"UPDATE `{table.name}` SET {', '.join(sets)} WHERE {' AND '.join(guards)}"


def read_rows(table: Table, key: str | None = None) -> str:
    where = f" WHERE `{table.key}` = {quote(key)}" if key is not None else ""
    names = ", ".join(f"`{name}`" for name in columns_of(table))
    return f"SELECT {names} FROM `{table.name}`{where} ORDER BY `{table.key}`"


def read_partition(partition: int, after_position: int, limit: int) -> str:
    return (
        f"SELECT {COMMIT_COLUMNS} FROM commits WHERE partition_id = {partition} "
        f"AND position > {after_position} ORDER BY position LIMIT {limit}"
    )


def read_position(partition: int) -> str:
    return f"SELECT position FROM partitions WHERE partition_id = {partition}"


def read_stream(stream: StreamKey, after_version: int, limit: int) -> str:
    return (
        f"SELECT {COMMIT_COLUMNS} FROM commits WHERE {_of_stream(stream)} "
        f"AND first_version > {after_version} ORDER BY first_version LIMIT {limit}"
    )


READ_MARKS = "SELECT partition_id, place FROM partitions"


def read_mark(partition: int) -> str:
    return f"{READ_MARKS} WHERE partition_id = {partition}"


READ_PLACES = "SELECT partition_id, epoch, position, owner FROM partitions ORDER BY partition_id"

READ_STREAMS = (
    "SELECT aggregate_type, aggregate_id, MIN(partition_id), MAX(last_version), COUNT(*) "
    "FROM commits GROUP BY aggregate_type, aggregate_id ORDER BY aggregate_type, aggregate_id"
)


def load_snapshot(stream: StreamKey) -> str:
    return (
        "SELECT aggregate_type, aggregate_id, version, code_version, state, checksum "
        f"FROM snapshots WHERE {_of_stream(stream)}"
    )


def save_snapshot(values: Mapping[str, str]) -> str:
    """Keep the snapshot whose columns are these literals, unless a newer one is there."""
    changes = ", ".join(
        f"{name} = IF(VALUES(version) >= version, VALUES({name}), {name})"
        # `version` last: the ones before it compare with what is stored.
        for name in ("code_version", "checksum", "state", "version")
    )
    return (
        f"INSERT INTO snapshots ({', '.join(values)}) VALUES ({', '.join(values.values())}) "
        f"ON DUPLICATE KEY UPDATE {changes}"
    )


def snapshot_version(stream: StreamKey) -> str:
    """The version of the stored snapshot, locked until the transaction ends."""
    return f"SELECT version FROM snapshots WHERE {_of_stream(stream)} FOR UPDATE"


def remove_parts(stream: StreamKey, replaced: tuple[int, int]) -> str:
    first, end = replaced
    return (
        f"DELETE FROM snapshot_parts WHERE {_of_stream(stream)} "
        f"AND number >= {first} AND number < {end}"
    )


def add_part(stream: StreamKey, part: SnapshotPart) -> str:
    kind, name = map(quote, stream)
    return (
        "INSERT INTO snapshot_parts (aggregate_type, aggregate_id, number, data) "
        f"VALUES ({kind}, {name}, {part.number}, {quote_bytes(part.data)})"
    )


def read_parts(stream: StreamKey, from_number: int, limit: int) -> str:
    return (
        f"SELECT number, data FROM snapshot_parts WHERE {_of_stream(stream)} "
        f"AND number >= {from_number} ORDER BY number LIMIT {limit}"
    )


def create_table(table: Table) -> str:
    """The table of an inline projection, as schema.sql spells `stock` out."""
    columns = [f"`{table.key}` VARCHAR(64) NOT NULL"]
    columns += [f"`{name}` BIGINT NOT NULL" for name in table.numbers]
    columns += [f"`{name}` VARCHAR(64) NOT NULL" for name in table.texts]
    checks = [
        f"CONSTRAINT `{table.name}_{name}_not_below_zero` CHECK (`{name}` >= 0)"
        for name in table.numbers
    ]
    body = ", ".join([*columns, f"PRIMARY KEY (`{table.key}`)", *checks])
    return (
        f"CREATE TABLE IF NOT EXISTS `{table.name}` ({body}) "
        "ENGINE = InnoDB CHARACTER SET utf8mb4 COLLATE utf8mb4_bin"
    )


def _of_stream(stream: StreamKey) -> str:
    return f"aggregate_type = {quote(stream[0])} AND aggregate_id = {quote(stream[1])}"
