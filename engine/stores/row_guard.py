"""The rules of inline projection tables that all stores share, apart from any SQL."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from engine.cqrs.event_store import RowChange, Table, Value
from engine.cqrs.partitioning import partition_of
from engine.errors import ProjectionDiverged, StreamKey

NUMBER_MAX = 2**63 - 1
"""The largest number of a signed 64-bit column, which every database has."""

RESERVED_NAMES = frozenset(
    {
        *("commits", "events", "meta", "partitions", "snapshots", "snapshot_parts"),
        *("checkpoints", "dead_letters", "projections"),
    }
)
"""What the stores call their own tables and views."""

_IDENTIFIER = re.compile(r"[a-z][a-z0-9_]{0,47}")


def check_tables(tables: Sequence[Table]) -> dict[str, Table]:
    """Return the tables by name. Raises ValueError for a name that no store could take.

    Names become part of SQL text, so nothing but plain lower-case identifiers passes.
    """
    found: dict[str, Table] = {}
    for table in tables:
        columns = columns_of(table)
        for name in (table.name, *columns):
            if _IDENTIFIER.fullmatch(name) is None:
                raise ValueError(
                    f"{name!r} in table {table.name!r} is no name for a table or column: "
                    "use a-z, 0-9 and _, at most 48 characters, a letter first"
                )
        if table.name in RESERVED_NAMES or table.name.startswith("sqlite_"):
            raise ValueError(f"the table name {table.name!r} belongs to the store itself")
        if table.name in found:
            raise ValueError(f"two tables are named {table.name!r}")
        if len(set(columns)) != len(columns):
            raise ValueError(f"table {table.name!r} names a column twice: {', '.join(columns)}")
        found[table.name] = table
    return found


def table_named(tables: Mapping[str, Table], name: str) -> Table:
    """Return a declared table. Raises ValueError naming those that are."""
    if name not in tables:
        raise ValueError(f"this store has no table {name!r}; it has: {', '.join(tables) or 'none'}")
    return tables[name]


def columns_of(table: Table) -> tuple[str, ...]:
    """Every column: the key, the numbers, the texts."""
    return (table.key, *table.numbers, *table.texts)


def check_change(tables: Mapping[str, Table], stream: StreamKey, change: RowChange) -> Table:
    """Return the change's table. Raises ProjectionDiverged when no row could ever take it."""
    table = tables.get(change.table)
    if table is None:
        raise ProjectionDiverged(stream, f"no table {change.table!r} was declared")
    problem = _problem(table, change)
    if problem:
        raise ProjectionDiverged(stream, f"change of row {change.key!r} of {table.name}: {problem}")
    return table


def _problem(table: Table, change: RowChange) -> str:
    if type(change.key) is not str:
        return f"the key must be a text, not {change.key!r}"
    for column, number in change.add.items():
        if column not in table.numbers:
            return f"{column!r} is no number column"
        if not _is_number(number, -NUMBER_MAX):
            return f"cannot add {number!r} to {column}"
        if column in change.put:
            return f"{column} is both added to and put"
    for column, value in change.put.items():
        if not _fits(table, column, value):
            return f"cannot put {value!r} into {column!r}"
    for column, value in change.expect.items():
        if not _fits(table, column, value):
            return f"cannot expect {value!r} in {column!r}"
    if change.insert:
        if change.add or change.expect:
            return "a new row has nothing to add to and nothing to expect"
        missing = [name for name in columns_of(table)[1:] if name not in change.put]
        if missing:
            return f"a new row needs {', '.join(missing)}"
    return ""


def _fits(table: Table, column: str, value: Value) -> bool:
    if column in table.numbers:
        return _is_number(value, 0)
    return column in table.texts and type(value) is str


def _is_number(value: object, least: int) -> bool:
    return type(value) is int and least <= value <= NUMBER_MAX


def rows_of(
    rows: list[dict[str, Value]], key: str, partition: int | None, partitions: int
) -> list[dict[str, Value]]:
    """Those of one partition, of all for None. A row belongs where an aggregate of its key does."""
    if partition is None:
        return rows
    return [each for each in rows if partition_of(str(each[key]), partitions) == partition]


def explain(change: RowChange, row: Mapping[str, Value] | None) -> str:
    """Say what the guard of `change` wanted and what the row holds instead."""
    name = f"row {change.key!r} of {change.table}"
    if row is None:
        return f"{name} does not exist"
    holds = ", ".join(f"{column} = {value!r}" for column, value in row.items())
    if change.insert:
        return f"{name} already exists: {holds}"
    wants = [f"{column} = {value!r}" for column, value in change.expect.items()]
    wants += [f"{column} >= {-number}" for column, number in change.add.items() if number < 0]
    # Nobody wants to read the upper bound unless it is what was hit.
    wants += [
        f"{column} <= {NUMBER_MAX - number}"
        for column, number in change.add.items()
        if number > 0 and int(row[column]) > NUMBER_MAX - number
    ]
    return f"{name} must hold {' and '.join(wants)}; it holds {holds}"
