"""The statements of moving a partition, as text. Pure: no connection."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from engine.cqrs.event_store import StoredSnapshot, Table
from engine.cqrs.query_side.read_model import ReadTable
from engine.errors import StreamKey
from engine.stores.mysql_sql import quote, quote_bytes
from engine.stores.places import arriving, leaving
from engine.stores.read_tables import physical
from engine.stores.row_guard import columns_of

ROWS_PER_DELETE: Final = 20_000
"""A second or so each: a transaction of millions would hold up everybody who purges."""

PROJECTIONS: Final = "SELECT name, generation, live, shape FROM projections"


def lock(seconds: int) -> str:
    return f"SELECT GET_LOCK(CONCAT('seckill move ', DATABASE()), {seconds})"


def read_row(partition: int) -> str:
    return (
        "SELECT epoch, position, owner, source, place FROM partitions "
        f"WHERE partition_id = {partition}"
    )


def fence(partition: int, source: str, target: str) -> str:
    """Matches one row, or the partition does not live here. Waits for whoever is writing."""
    return (
        f"UPDATE partitions SET epoch = epoch + 1, place = {quote(leaving(target))} "
        f"WHERE partition_id = {partition} AND place = {quote(source)}"
    )


def receive(partition: int, source: str, target: str, token: str) -> str:
    """Matches one row, or the target claimed the partition already."""
    return (
        f"UPDATE partitions SET place = {quote(arriving(source, token))} "
        f"WHERE partition_id = {partition} AND place <> {quote(target)}"
    )


def mark(partition: int, place: str, unless: str) -> str:
    """Matches one row, or the mark is `unless`."""
    return (
        f"UPDATE partitions SET place = {quote(place)} "
        f"WHERE partition_id = {partition} AND place <> {quote(unless)}"
    )


def claim(
    partition: int, source: str, target: str, token: str, row: tuple[int, int, str, str]
) -> str:
    """Matches one row, or another run of the command took over. `row`: epoch, position, owner and
    source of the partition where it was."""
    epoch, position, owner, broker = row
    return (
        f"UPDATE partitions SET epoch = {epoch}, position = {position}, owner = {quote(owner)}, "
        f"source = {quote(broker)}, place = {quote(target)} WHERE partition_id = {partition} "
        f"AND place = {quote(arriving(source, token))}"
    )


def newest_position(partition: int) -> str:
    return f"SELECT COALESCE(MAX(position), 0) FROM commits WHERE partition_id = {partition}"


def put_row(table: Table, row: dict[str, int | str]) -> str:
    names = ", ".join(f"`{name}`" for name in columns_of(table))
    values = ", ".join(quote(row[name]) for name in columns_of(table))
    return f"REPLACE INTO `{table.name}` ({names}) VALUES ({values})"


def delete_rows(table: Table, keys: Iterable[str]) -> str:
    return f"DELETE FROM `{table.name}` WHERE `{table.key}` IN ({', '.join(map(quote, keys))})"


# -- snapshots

SNAPSHOT_STREAMS: Final = "SELECT aggregate_type, aggregate_id FROM snapshots"

PART_STREAMS: Final = "SELECT DISTINCT aggregate_type, aggregate_id FROM snapshot_parts"


def snapshot_digest(stream: StreamKey) -> str:
    return (
        "SELECT version, code_version, checksum, MD5(state) FROM snapshots "
        f"WHERE {_of_stream(stream)}"
    )


def parts_digest(stream: StreamKey) -> str:
    return (
        f"SELECT number, MD5(data) FROM snapshot_parts WHERE {_of_stream(stream)} ORDER BY number"
    )


def delete_snapshot(stream: StreamKey) -> list[str]:
    # The head first: parts without one are nothing, and the other way round is a broken snapshot.
    return [
        f"DELETE FROM snapshots WHERE {_of_stream(stream)}",
        f"DELETE FROM snapshot_parts WHERE {_of_stream(stream)}",
    ]


def put_snapshot(snapshot: StoredSnapshot) -> str:
    return (
        "INSERT INTO snapshots (aggregate_type, aggregate_id, version, code_version, checksum, "
        f"state) VALUES ({quote(snapshot.aggregate_type)}, {quote(snapshot.aggregate_id)}, "
        f"{snapshot.version}, {snapshot.code_version}, {snapshot.checksum}, "
        f"{quote_bytes(snapshot.state)})"
    )


# -- read models


def delete_progress(partition: int, projections: Sequence[tuple[str, int]]) -> list[str]:
    """Forget how far these generations are in a partition, so that nobody feeds them from it."""
    return [
        f"DELETE FROM {table} WHERE projection = {quote(name)} AND generation = {generation} "
        f"AND partition_id = {partition}"
        for name, generation in projections
        for table in ("checkpoints", "dead_letters")
    ]


def put_progress(
    partition: int, name: str, generation: int, position: int = 0, revision: int = 0
) -> str:
    return (
        "REPLACE INTO checkpoints (projection, generation, partition_id, position, revision) "
        f"VALUES ({quote(name)}, {generation}, {partition}, {position}, {revision})"
    )


def put_aside(partition: int, name: str, generation: int) -> str:
    """Keep how far a generation is where nobody looks for it, so that nobody moves it on."""
    return _renumber(partition, name, generation, aside(generation))


def put_back(partition: int, name: str, generation: int) -> str:
    return _renumber(partition, name, aside(generation), generation)


def aside(generation: int) -> int:
    """The number under which a checkpoint of a generation is put aside: no generation has it."""
    return -generation


def _renumber(partition: int, name: str, old: int, new: int) -> str:
    return (
        f"UPDATE checkpoints SET generation = {new} WHERE projection = {quote(name)} "
        f"AND generation = {old} AND partition_id = {partition}"
    )


def put_letter(
    partition: int, name: str, generation: int, letter: tuple[int, str, str, str]
) -> str:
    """`letter`: position, aggregate type and id, reason."""
    position, kind, aggregate_id, reason = letter
    return (
        "INSERT INTO dead_letters (projection, generation, partition_id, position, "
        f"aggregate_type, aggregate_id, reason) VALUES ({quote(name)}, {generation}, {partition}, "
        f"{position}, {quote(kind)}, {quote(aggregate_id)}, {quote(reason)})"
    )


def first_keys(table: ReadTable, generation: int) -> str:
    return f"SELECT DISTINCT `{table.key[0]}` FROM `{physical(table.name, generation)}`"


def delete_read_rows(table: ReadTable, generation: int, keys: Sequence[str]) -> str:
    return (
        f"DELETE FROM `{physical(table.name, generation)}` WHERE `{table.key[0]}` IN "
        f"({', '.join(map(quote, keys))}) LIMIT {ROWS_PER_DELETE}"
    )


def _of_stream(stream: StreamKey) -> str:
    return f"aggregate_type = {quote(stream[0])} AND aggregate_id = {quote(stream[1])}"
