"""Where every partition lives, who acquired it last and how far it is, as a table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from engine.cqrs.event_store import EventReader, PartitionPlace

if TYPE_CHECKING:
    from rich.table import Table as Grid

UNKNOWN = -1
"""Epoch and position of a partition whose database does not answer."""


class PartitionRow(msgspec.Struct, frozen=True):
    """One partition. `database` is its name among several and its place, without a password.

    `owner` is the id under which it was acquired last. `state`: ok, moving to another database, or
    down because its database does not answer; epoch and position are -1 then.
    """

    partition: int
    database: str
    epoch: int
    position: int
    owner: str
    state: str


async def read_rows(reader: EventReader) -> list[PartitionRow]:
    """A row for every partition, in order. Raises StoreUnavailable."""
    return [_row(each) for each in await reader.read_places()]


def _row(place: PartitionPlace) -> PartitionRow:
    state = "ok"
    if place.moving_to:
        state = f"moving to {place.moving_to}"
    elif place.epoch == UNKNOWN:
        state = "down"
    database = f"{place.database} {place.location}".strip()
    return PartitionRow(place.partition, database, place.epoch, place.position, place.owner, state)


def table_of(rows: Sequence[PartitionRow]) -> Grid:
    """The rows for a terminal."""
    from rich.table import Table
    from rich.text import Text

    grid = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("partition", "epoch", "position"):
        grid.add_column(name, justify="right")
    for name in ("database", "state", "owner"):
        grid.add_column(name, overflow="fold")
    for row in rows:
        numbers = ("-" if each == UNKNOWN else f"{each:,}" for each in (row.epoch, row.position))
        state = Text(row.state, style="" if row.state == "ok" else "bold red")
        # No markup: a database may be called "[bold]".
        grid.add_row(
            str(row.partition), *numbers, Text(row.database), state, Text(row.owner or "nobody")
        )
    return grid
