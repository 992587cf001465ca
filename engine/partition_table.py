"""Where every partition lives, who acquired it last and how far it is, as a table."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

import msgspec

from engine.cqrs.event_store import EventReader, PartitionPlace
from engine.cqrs.partitioning import count_partitions
from engine.cqrs.query_side.query_side import Lag

if TYPE_CHECKING:
    from rich.table import Table as Grid

NOBODY = "nobody"

ADDRESS: Final = re.compile(r"mysql://(?:[^@/ ]*@)?")
"""What a place begins with that is the same in every row of a table."""

UNKNOWN = -1
"""Epoch and position of a partition whose database does not answer."""


class PartitionRow(msgspec.Struct, frozen=True):
    """One partition. `database` is its name among several and its place, without a password.

    `owner` is the id under which it was acquired last. `state`: ok, moving to another database, or
    down because its database does not answer; epoch and position are -1 then. `node` owns it in the
    cluster now, with `waiting` commands; its read models are `lag_commits` behind. Both are -1 when
    that was not asked for or is not known.
    """

    partition: int
    database: str
    epoch: int
    position: int
    owner: str
    state: str
    node: str = ""
    waiting: int = UNKNOWN
    lag_commits: int = UNKNOWN


def with_owners(
    rows: Sequence[PartitionRow], owners: Mapping[int, tuple[str, int]]
) -> list[PartitionRow]:
    """The rows with the node that owns each now, and how many commands wait in it."""
    replace = msgspec.structs.replace
    return [
        replace(row, node=owners[row.partition][0], waiting=owners[row.partition][1])
        if row.partition in owners
        else replace(row, node=NOBODY)
        for row in rows
    ]


def with_lags(rows: Sequence[PartitionRow], lags: Sequence[Lag]) -> list[PartitionRow]:
    """The rows with how far the read model furthest behind is."""
    behind: dict[int, int] = {}
    for each in lags:
        behind[each.partition] = max(behind.get(each.partition, 0), each.commits)
    return [
        msgspec.structs.replace(row, lag_commits=behind.get(row.partition, UNKNOWN)) for row in rows
    ]


async def read_rows(reader: EventReader) -> list[PartitionRow]:
    """A row for every partition, in order. Raises StoreUnavailable."""
    return [_row(each) for each in await reader.read_places()]


async def tell_numbers(reader: EventReader) -> list[str]:
    """How many partitions a store has, and then each of its databases if they are several.

    Raises StoreUnavailable.
    """
    homes = Counter(each.database for each in await reader.read_places())
    # Also of those where no partition lives yet.
    locations: Mapping[str, str] = getattr(reader, "locations", {})
    return [
        count_partitions(reader.partitions),
        *(f"{name} {place}: {count_partitions(homes[name])}" for name, place in locations.items()),
    ]


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
    in_cluster = any(row.node for row in rows)
    for name in ("partition", "epoch", "position", "lag", *(("waiting",) if in_cluster else ())):
        grid.add_column(name, justify="right")
    last = "node" if in_cluster else "owner"
    for name in ("database", "state", last):
        grid.add_column(name, overflow="fold")
    for row in rows:
        shown = (row.epoch, row.position, row.lag_commits, *((row.waiting,) if in_cluster else ()))
        numbers = ("-" if each == UNKNOWN else f"{each:,}" for each in shown)
        state = Text(row.state, style="" if row.state == "ok" else "bold red")
        # No markup: a database may be called "[bold]".
        grid.add_row(
            str(row.partition),
            *numbers,
            Text(ADDRESS.sub("", row.database)),
            state,
            Text((row.node if in_cluster else row.owner) or NOBODY),
        )
    return grid
