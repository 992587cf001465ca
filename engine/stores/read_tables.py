"""What the stores of read models share, apart from any SQL dialect."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Final

import msgspec

from engine.cqrs.event_store import Table
from engine.cqrs.query_side.read_model import Put, ReadTable, Select, Write
from engine.errors import SchemaMismatch
from engine.stores.row_guard import check_tables

MOVED: Final = "the checkpoint of projection {} was moved by somebody else; nothing was written"

GENERATIONS_APART_MAX: Final = 1_000
"""Two million rebuilds fit into a 32-bit number, and two drafts of one moment rarely meet."""


def check_read_tables(tables: Sequence[ReadTable]) -> dict[str, ReadTable]:
    """Return the tables by name. Raises ValueError for one that no store could make."""
    check_tables([Table(each.name, each.columns[0], each.columns[1:]) for each in tables])
    for table in tables:
        used = [column for index in (table.key, *table.indexes) for column in index]
        unknown = sorted({*used} - {*table.texts, *table.numbers})
        if unknown or not table.key:
            raise ValueError(f"table {table.name!r} has a key or index over no column: {unknown}")
    return {each.name: each for each in tables}


def physical(table: str, generation: int) -> str:
    """The name under which one generation of a table is kept; its own name is a view of it."""
    return f"{table}_g{generation}"


def shape_of(tables: Sequence[ReadTable]) -> str:
    """The tables as text, kept with a generation to notice when a program wants others."""
    return msgspec.json.encode(list(tables)).decode()


def tables_of(shape: str) -> tuple[ReadTable, ...]:
    return msgspec.json.decode(shape, type=tuple[ReadTable, ...])


def check_shape(projection: str, stored: str, tables: Sequence[ReadTable]) -> None:
    """Raise SchemaMismatch unless a generation was made with these tables."""
    if stored != shape_of(tables):
        raise SchemaMismatch(
            f"the tables of projection {projection} were made by another version of the program; "
            f"build them anew with: seckill project rebuild {projection}"
        )


def check_select(table: ReadTable, query: Select) -> None:
    """Raise ValueError for a column that the table has not, or a limit below 1."""
    named = [*query.equal, *query.order_by, *([query.at_most[0]] if query.at_most else [])]
    for column in named:
        if column not in table.columns:
            known = ", ".join(table.columns)
            raise ValueError(f"{table.name} has no column {column!r}; it has: {known}")
    if query.limit < 1:
        raise ValueError(f"limit must be at least 1, got {query.limit}")


def columns_written(table: ReadTable, write: Write) -> tuple[str, ...]:
    """The columns that the values of a row stand for."""
    return table.columns if isinstance(write, Put) else (*table.key, *write.columns)


def next_generation(newest: int) -> int:
    """A number for a generation after `newest`, 0 for none.

    A draft that is dropped leaves no trace, and its number must not be drawn again: whoever was
    filling it would then fill, and promote, somebody else's. Hence by chance, after the first.
    """
    return newest + 1 + secrets.randbelow(GENERATIONS_APART_MAX) if newest else 1
