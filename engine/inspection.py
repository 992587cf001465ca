"""What a store holds, read without changing it: streams, positions, rows, the last events."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from engine.cqrs.codec import Codec
from engine.cqrs.event_store import EventReader, StoreInfo, StreamInfo, Value
from engine.errors import ConfigError
from engine.inventory.stock import STOCK
from engine.inventory.stock_table import STOCK_TABLE

EVENTS_SHOWN: Final = 5
KNOWN_SHOWN: Final = 5


class PartitionView(msgspec.Struct, frozen=True):
    """One partition. `position` is that of its newest commit, 0 when it has none."""

    partition: int
    position: int
    streams: int
    events: int


class StoreView(msgspec.Struct, frozen=True):
    """The whole store: its partitions, its streams, and the `stock` table's row of every SKU."""

    info: StoreInfo
    partitions: tuple[PartitionView, ...]
    streams: tuple[StreamInfo, ...]
    rows: tuple[dict[str, Value], ...]


class SkuView(msgspec.Struct, frozen=True):
    """One SKU: its row, its stream, and its last events, each with its version."""

    sku: str
    row: dict[str, Value]
    stream: StreamInfo
    last_events: tuple[tuple[int, dict[str, Any]], ...]


async def view_store(reader: EventReader) -> StoreView:
    """Read the whole store. Raises StoreUnavailable."""
    streams = await reader.read_streams()
    partitions: list[PartitionView] = []
    for number in range(reader.partitions):
        own = [each for each in streams if each.partition == number]
        # Positions count the commits of a partition without gaps.
        position = sum(each.commits for each in own)
        events = sum(each.version for each in own)
        partitions.append(PartitionView(number, position, len(own), events))
    rows = await reader.read_rows(STOCK_TABLE.name)
    return StoreView(reader.info, tuple(partitions), tuple(streams), tuple(rows))


async def view_sku(reader: EventReader, sku: str) -> SkuView:
    """Read one SKU. Raises ConfigError naming SKUs that exist, CorruptEvent, StoreUnavailable."""
    streams = await reader.read_streams()
    known = [each for each in streams if each.aggregate_type == STOCK.name]
    stream = next((each for each in known if each.aggregate_id == sku), None)
    if stream is None:
        names = ", ".join(each.aggregate_id for each in known[:KNOWN_SHOWN])
        more = len(known) - KNOWN_SHOWN
        rest = f" and {more:,} more" if more > 0 else ""
        raise ConfigError(f"no SKU {sku!r} in this store; it has: {names or 'none'}{rest}")
    row = await reader.read_row(STOCK_TABLE.name, sku)
    return SkuView(sku, row or {}, stream, await _last_events(reader, stream))


async def _last_events(
    reader: EventReader, stream: StreamInfo
) -> tuple[tuple[int, dict[str, Any]], ...]:
    """Decode the newest commits, looking back twice as far until enough events are found."""
    key = (stream.aggregate_type, stream.aggregate_id)
    wanted = min(EVENTS_SHOWN, stream.version)
    codec = Codec(STOCK.events, STOCK.upcasters)
    back = EVENTS_SHOWN
    while True:
        after = max(0, stream.version - back)
        commits = await reader.read_stream(key, after, stream.commits)
        if after == 0 or sum(c.last_version - c.first_version + 1 for c in commits) >= wanted:
            break
        back *= 2
    events = [
        (version, msgspec.to_builtins(event))
        for commit in commits
        for version, event in enumerate(codec.decode(commit), commit.first_version)
    ]
    return tuple(events[-EVENTS_SHOWN:])
