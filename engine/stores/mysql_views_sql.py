"""The statements of read models on MySQL as text. Pure: no connection, no clock."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

import msgspec

from engine.cqrs.query_side.read_model import Patch, Put, ReadTable, Select, Step, Tally, Write
from engine.stores.mysql_sql import quote
from engine.stores.read_tables import columns_written, physical, shape_of
from engine.stores.row_guard import NUMBER_MAX

ROWS_PER_STATEMENT: Final = 1_000
"""About 0.2 MB of JSON; 1.3 MB when every text has 64 characters of 4 bytes."""

JSON_TEXT: Final = "VARCHAR(64) CHARACTER SET utf8mb4"
"""Without a character set it would be the database's own, which may be latin1."""

TEXT_LENGTH_MAX: Final = 64

UNLOCK: Final = "SELECT RELEASE_LOCK(CONCAT('seckill views ', DATABASE()))"


def lock(seconds: int) -> str:
    return f"SELECT GET_LOCK(CONCAT('seckill views ', DATABASE()), {seconds})"


def generations(projection: str) -> str:
    return (
        "SELECT generation, live, shape FROM projections "
        f"WHERE name = {quote(projection)} ORDER BY generation"
    )


def newest(projection: str) -> str:
    name = quote(projection)
    return f"SELECT COALESCE(MAX(generation), 0) FROM projections WHERE name = {name}"


def create(table: ReadTable, generation: int) -> list[str]:
    name = physical(table.name, generation)
    columns = [
        f"`{each}` {'VARCHAR(64)' if each in table.texts else 'BIGINT'} NOT NULL"
        for each in table.columns
    ]
    columns.append(f"PRIMARY KEY ({_names(table.key)})")
    columns += [f"INDEX `by_{'_'.join(index)}` ({_names(index)})" for index in table.indexes]
    return [
        # What a process that died left behind; it never was in the catalogue.
        f"DROP TABLE IF EXISTS `{name}`",
        (
            f"CREATE TABLE `{name}` ({', '.join(columns)}) "
            "ENGINE = InnoDB CHARACTER SET utf8mb4 COLLATE utf8mb4_bin"
        ),
    ]


def register(
    projection: str, generation: int, tables: Sequence[ReadTable], partitions: int
) -> list[str]:
    name = quote(projection)
    begin = ", ".join(f"({name}, {generation}, {each}, 0, 0)" for each in range(partitions))
    return [
        (
            "INSERT INTO projections (name, generation, live, shape) "
            f"VALUES ({name}, {generation}, 0, {quote(shape_of(tables))})"
        ),
        (
            "INSERT INTO checkpoints (projection, generation, partition_id, position, revision) "
            f"VALUES {begin}"
        ),
    ]


def go_live(projection: str, generation: int) -> str:
    name = quote(projection)
    return f"UPDATE projections SET live = (generation = {generation}) WHERE name = {name}"


def forget(projection: str, generation: int) -> list[str]:
    where = f"= {quote(projection)} AND generation = {generation}"
    return [
        f"DELETE FROM projections WHERE name {where}",
        f"DELETE FROM checkpoints WHERE projection {where}",
        f"DELETE FROM dead_letters WHERE projection {where}",
    ]


def drop(table: ReadTable, generation: int) -> str:
    return f"DROP TABLE IF EXISTS `{physical(table.name, generation)}`"


def replace_view(table: ReadTable, generation: int) -> str:
    of = physical(table.name, generation)
    names = _names(table.columns)
    return f"CREATE OR REPLACE VIEW `{table.name}` AS SELECT {names} FROM `{of}`"


def view_is_of(table: ReadTable, generation: int) -> str:
    of = quote(f"%`{physical(table.name, generation)}`%")
    return (
        "SELECT COUNT(*) FROM information_schema.views WHERE table_schema = DATABASE() "
        f"AND table_name = {quote(table.name)} AND view_definition LIKE {of}"
    )


def progress(projection: str, generation: int, partition: int) -> str:
    return (
        f"SELECT position, revision FROM checkpoints WHERE projection = {quote(projection)} "
        f"AND generation = {generation} AND partition_id = {partition}"
    )


def checkpoints(projection: str, generation: int) -> str:
    return (
        f"SELECT partition_id, position FROM checkpoints WHERE projection = {quote(projection)} "
        f"AND generation = {generation}"
    )


def page(table: ReadTable, generation: int, after: Sequence[Any], limit: int) -> str:
    """Rows behind a key. Written out column by column, for which the server uses the index."""
    behind = []
    for number, value in enumerate(after):
        same = [f"`{table.key[n]}` = {quote(after[n])}" for n in range(number)]
        behind.append(f"({' AND '.join([*same, f'`{table.key[number]}` > {quote(value)}'])})")
    return (
        f"SELECT {_names(table.columns)} FROM `{physical(table.name, generation)}` "
        f"WHERE {' OR '.join(behind) or '1'} ORDER BY {_names(table.key)} LIMIT {int(limit)}"
    )


def move(step: Step) -> str:
    """Matches one row, or somebody else moved the checkpoint."""
    return (
        f"UPDATE checkpoints SET position = {step.reached.position}, "
        f"revision = {step.reached.revision} WHERE projection = {quote(step.projection)} "
        f"AND generation = {step.generation} AND partition_id = {step.partition} "
        f"AND position = {step.expected.position} AND revision = {step.expected.revision}"
    )


def dead_letters(projection: str, generation: int, partition: int | None) -> str:
    where = f"projection = {quote(projection)} AND generation = {generation}"
    if partition is not None:
        where += f" AND partition_id = {partition}"
    return (
        "SELECT partition_id, position, aggregate_type, aggregate_id, reason FROM dead_letters "
        f"WHERE {where} ORDER BY partition_id, position"
    )


def letters(step: Step) -> list[str]:
    """What settles letters and adds new ones."""
    statements: list[str] = []
    place = f"{quote(step.projection)}, {step.generation}, {step.partition}"
    if step.settled:
        positions = ", ".join(str(int(each)) for each in step.settled)
        statements.append(
            "DELETE FROM dead_letters WHERE (projection, generation, partition_id) = "
            f"({place}) AND position IN ({positions})"
        )
    if step.letters:
        rows = ", ".join(
            f"({place}, {each.position}, {quote(each.aggregate_type)}, "
            f"{quote(each.aggregate_id)}, {quote(each.reason)})"
            for each in step.letters
        )
        statements.append(
            "INSERT INTO dead_letters (projection, generation, partition_id, position, "
            f"aggregate_type, aggregate_id, reason) VALUES {rows}"
        )
    return statements


def writes(step: Step) -> list[str]:
    """What brings the rows of a step. Raises ValueError for a row that no table could hold."""
    return [each for write in step.writes for each in _writes(step, write)]


def _writes(step: Step, write: Write) -> Iterator[str]:
    """Statements of at most ROWS_PER_STATEMENT rows."""
    table = next((each for each in step.tables if each.name == write.table), None)
    if table is None:
        raise ValueError(f"no table {write.table!r} was declared")
    rows = list(write.rows)
    if isinstance(write, Patch):
        # A joined UPDATE takes any one of several rows for the same key; the last is meant.
        rows = list({tuple(row[: len(table.key)]): row for row in rows}.values())
    for start in range(0, len(rows), ROWS_PER_STATEMENT):
        yield _write(table, step.generation, write, rows[start : start + ROWS_PER_STATEMENT])


def _write(table: ReadTable, generation: int, write: Write, rows: Sequence[Sequence[Any]]) -> str:
    name = physical(table.name, generation)
    columns = columns_written(table, write)
    given = _json_table(table, columns, rows)
    if isinstance(write, Put):
        return f"REPLACE INTO `{name}` ({_names(columns)}) SELECT {_names(columns)} FROM {given}"
    if isinstance(write, Tally):
        values = ", ".join(
            f"v.`{each}`" if each in columns else "''" if each in table.texts else "0"
            for each in table.columns
        )
        adds = ", ".join(
            f"`{name}`.`{each}` = `{name}`.`{each}` + v.`{each}`" for each in write.columns
        )
        return (
            f"INSERT INTO `{name}` ({_names(table.columns)}) SELECT {values} FROM {given} "
            f"ON DUPLICATE KEY UPDATE {adds}"
        )
    same = " AND ".join(
        f"t.`{each}` = v.`{each}`{' COLLATE utf8mb4_bin' if each in table.texts else ''}"
        for each in table.key
    )
    sets = ", ".join(f"t.`{each}` = v.`{each}`" for each in write.columns)
    return f"UPDATE `{name}` AS t JOIN {given} ON {same} SET {sets}"


def _json_table(table: ReadTable, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    _check(table, columns, rows)
    text = quote(msgspec.json.encode(rows).decode())
    paths = ", ".join(
        f"`{each}` {JSON_TEXT if each in table.texts else 'BIGINT'} "
        f"PATH '$[{number}]' ERROR ON ERROR"
        for number, each in enumerate(columns)
    )
    return f"JSON_TABLE({text}, '$[*]' COLUMNS ({paths})) AS v"


def _check(table: ReadTable, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Raise ValueError for what JSON_TABLE would cut to fit, with no more than a warning."""
    try:
        for name, values in zip(columns, zip(*rows, strict=True), strict=True):
            if name in table.texts:
                fits = max(map(len, values)) <= TEXT_LENGTH_MAX
            else:
                fits = -NUMBER_MAX - 1 <= min(values) and max(values) <= NUMBER_MAX
            if not fits:
                raise ValueError(f"a value of {table.name}.{name} is too large")
    except TypeError as error:
        raise ValueError(f"a value of {table.name} is of a wrong type: {error}") from error


def select(table: ReadTable, query: Select) -> str:
    where = [f"`{name}` = {quote(value)}" for name, value in query.equal.items()]
    if query.at_most is not None:
        where.append(f"`{query.at_most[0]}` <= {quote(query.at_most[1])}")
    direction = " DESC" if query.descending else ""
    order = ", ".join(f"`{name}`{direction}" for name in query.order_by or table.key)
    return (
        f"SELECT {_names(table.columns)} FROM `{table.name}` "
        f"WHERE {' AND '.join(where) or '1'} ORDER BY {order} "
        f"LIMIT {int(query.limit)} OFFSET {int(query.skip)}"
    )


def _names(columns: Sequence[str]) -> str:
    return ", ".join(f"`{name}`" for name in columns)
