"""What a store holds, read without changing it: streams, positions, rows, the last events."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from engine.cqrs.codec import Codec
from engine.cqrs.event_store import EventReader, StoreInfo, StreamInfo, Value
from engine.cqrs.messages import check_id
from engine.errors import ConfigError
from engine.inventory.stock import STOCK
from engine.inventory.stock_table import STOCK_TABLE

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table as Grid

EVENTS_SHOWN: Final = 5
"""Events of a SKU shown unless asked for more."""

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


async def view_sku(reader: EventReader, sku: str, last: int = EVENTS_SHOWN) -> SkuView:
    """Read one SKU and its `last` events.

    Raises ConfigError naming SKUs that exist, InvalidCommand, CorruptEvent, StoreUnavailable.
    """
    check_id("SKU", sku)
    streams = await reader.read_streams()
    known = [each for each in streams if each.aggregate_type == STOCK.name]
    stream = next((each for each in known if each.aggregate_id == sku), None)
    if stream is None:
        names = ", ".join(each.aggregate_id for each in known[:KNOWN_SHOWN])
        more = len(known) - KNOWN_SHOWN
        rest = f" and {more:,} more" if more > 0 else ""
        raise ConfigError(f"no SKU {sku!r} in this store; it has: {names or 'none'}{rest}")
    row = await reader.read_row(STOCK_TABLE.name, sku)
    return SkuView(sku, row or {}, stream, await _last_events(reader, stream, last))


async def _last_events(
    reader: EventReader, stream: StreamInfo, last: int
) -> tuple[tuple[int, dict[str, Any]], ...]:
    """Decode the newest commits, looking back twice as far until enough events are found."""
    key = (stream.aggregate_type, stream.aggregate_id)
    wanted = min(last, stream.version)
    codec = Codec(STOCK.events, STOCK.upcasters)
    back = last
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
    return tuple(events[-last:])


def print_view(console: Console, view: StoreView | SkuView, rows_max: int) -> None:
    """Print a view as tables of at most `rows_max` rows each."""
    if isinstance(view, SkuView):
        _print_sku(console, view)
        return
    _print(console, f"{view.info.kind} {view.info.version}, durability: {view.info.durability}")
    columns = (STOCK_TABLE.key, *STOCK_TABLE.texts, *STOCK_TABLE.numbers)
    stock = _grid("Stock", *columns)
    for row in view.rows[:rows_max]:
        _add(stock, *(row[name] for name in columns))
    _print(console, stock, len(view.rows) - rows_max)
    streams = _grid("Streams", "stream", "partition", "version", "commits")
    for each in view.streams[:rows_max]:
        name = f"{each.aggregate_type} {each.aggregate_id}"
        _add(streams, name, each.partition, each.version, each.commits)
    _print(console, streams, len(view.streams) - rows_max)
    partitions = _grid("Partitions", "partition", "position", "streams", "events")
    for part in view.partitions[:rows_max]:
        _add(partitions, str(part.partition), part.position, part.streams, part.events)
    _print(console, partitions, len(view.partitions) - rows_max)


def _print_sku(console: Console, view: SkuView) -> None:
    row = _grid(f"Stock of {view.sku}", "column", "value")
    for name, value in view.row.items():
        _add(row, name, value)
    _print(console, row)
    stream = view.stream
    _print(
        console,
        f"Stream {stream.aggregate_type} {stream.aggregate_id} in partition {stream.partition}: "
        f"version {stream.version:,}, {stream.commits:,} commits\n",
    )
    events = _grid("Last events", "version", "type", "command", "fields")
    for version, event in view.last_events:
        known = ("type", "command_id")
        fields = ", ".join(f"{name} {value}" for name, value in event.items() if name not in known)
        _add(events, f"{version:,}", event["type"], event["command_id"], fields)
    _print(console, events)


def _print(console: Console, what: Grid | str, more: int = 0) -> None:
    # No markup: a SKU may be called "[bold]".
    console.print(what, markup=False, highlight=False)
    if more > 0:
        console.print(f"and {more:,} more; --json shows all", style="dim")
    if not isinstance(what, str):
        console.print()


def _grid(title: str, *columns: str) -> Grid:
    from rich.table import Table
    from rich.text import Text

    grid = Table(title=Text(title, style="bold"), title_justify="left", box=None, pad_edge=False)
    for name in columns:
        grid.add_column(name, overflow="fold", header_style="dim")
    return grid


def _add(grid: Grid, *values: Value) -> None:
    from rich.text import Text

    cells = [
        Text(f"{each:,}", justify="right") if isinstance(each, int) else Text(each)
        for each in values
    ]
    grid.add_row(*cells)
