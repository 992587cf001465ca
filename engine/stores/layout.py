"""What is fixed when a store is initialised, and must be the same at every start."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from engine.cqrs.event_store import Table
from engine.cqrs.partitioning import count_partitions
from engine.errors import SchemaMismatch
from engine.stores.row_guard import columns_of


class Layout(msgspec.Struct, frozen=True):
    """The number of partitions and the tables of the inline projections.

    `identity` is that of a store that was read; nobody may wish for one.
    """

    partitions: int
    tables: tuple[Table, ...]
    identity: str = ""


def check_layout(stored: Layout, wanted: Layout, place: str) -> None:
    """Raise SchemaMismatch, naming both sides, unless the store was initialised as `wanted`."""
    if stored.partitions != wanted.partitions:
        raise SchemaMismatch(
            f"{place} was initialised with {count_partitions(stored.partitions)} and the settings say "
            f"{wanted.partitions}; the number cannot change, because it decides where each "
            "aggregate lives: take another database, or set store.partitions = "
            f"{stored.partitions}"
        )
    if stored.tables != wanted.tables:
        raise SchemaMismatch(
            f"{place} was initialised with the tables {_name_tables(stored.tables)} and the "
            f"program keeps {_name_tables(wanted.tables)}; they would not match their events"
        )


def _name_tables(tables: Sequence[Table]) -> str:
    return ", ".join(f"{each.name} ({', '.join(columns_of(each))})" for each in tables) or "(none)"
