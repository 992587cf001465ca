"""The statements of read models on SQLite as text. Pure: no connection, no clock."""

from __future__ import annotations

from collections.abc import Sequence

from engine.cqrs.query_side.read_model import Patch, ReadTable, Tally
from engine.stores.read_tables import columns_written, physical


def create_statements(table: ReadTable, generation: int) -> list[str]:
    """What makes a table and its indexes."""
    name = physical(table.name, generation)
    columns = [
        f'"{each}" {"TEXT" if each in table.texts else "INTEGER"} NOT NULL'
        for each in table.columns
    ]
    make = f'CREATE TABLE "{name}" ({", ".join(columns)}, PRIMARY KEY ({names(table.key)})) STRICT'
    indexes = [
        f'CREATE INDEX "{name}_{"_".join(index)}" ON "{name}" ({names(index)})'
        for index in table.indexes
    ]
    return [make, *indexes]


def put_statement(table: ReadTable, generation: int) -> str:
    """The statement that a JSON array of whole rows is bound to."""
    values = ", ".join(f"value->>{number}" for number in range(len(table.columns)))
    return (
        f'INSERT OR REPLACE INTO "{physical(table.name, generation)}" '
        f"({names(table.columns)}) SELECT {values} FROM json_each(?)"
    )


def row_statement(table: ReadTable, generation: int, write: Patch | Tally) -> str:
    """The statement that one row of a write is bound to."""
    name = physical(table.name, generation)
    columns = columns_written(table, write)
    if isinstance(write, Patch):
        sets = ", ".join(
            f'"{each}" = ?{len(table.key) + number}' for number, each in enumerate(write.columns, 1)
        )
        where = " AND ".join(f'"{each}" = ?{number}' for number, each in enumerate(table.key, 1))
        return f'UPDATE "{name}" SET {sets} WHERE {where}'
    given = {each: f"?{number}" for number, each in enumerate(columns, 1)}
    values = ", ".join(
        given.get(each, "''" if each in table.texts else "0") for each in table.columns
    )
    adds = ", ".join(f'"{each}" = "{each}" + excluded."{each}"' for each in write.columns)
    return (
        f'INSERT INTO "{name}" ({names(table.columns)}) VALUES ({values}) '
        f"ON CONFLICT ({names(table.key)}) DO UPDATE SET {adds}"
    )


def names(columns: Sequence[str]) -> str:
    """Columns for a statement."""
    return ", ".join(f'"{name}"' for name in columns)
