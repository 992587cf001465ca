"""The stock of every SKU as it is now, for pages and gates: durable, and no question to the store."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Collection, Mapping
from typing import Literal, TypeAlias

import msgspec

from engine.cqrs.command_side.live_rows import RowKey
from engine.cqrs.command_side.port import CommandSidePort
from engine.cqrs.messages import Command
from engine.inventory.stock import STOCK
from engine.inventory.stock_table import STOCK_TABLE

Phase: TypeAlias = Literal["open", "paused", "closed"]


class StockRow(msgspec.Struct, frozen=True):
    """A SKU as its table row says: durable, and never behind an answer you got.

    `reserved` units are held, or sold for good where the sale has no holds.
    """

    sku: str
    phase: Phase
    available: int
    reserved: int
    paid: int
    limit_per_buyer: int
    hold_seconds: int
    version: int


class StockWatch:
    """What changed since one looked last."""

    def __init__(self, live: LiveStock, changed: set[RowKey]) -> None:
        self._live = live
        self._changed = changed

    def drain(self) -> list[StockRow]:
        """Every row that changed since the last call, as it is now; each once, in no order."""
        skus = [key for table, key in self._changed if table == STOCK_TABLE.name]
        self._changed.clear()
        return [row for sku in skus if (row := self._live.row(sku)) is not None]

    def close(self) -> None:
        """Watch no more."""
        self._live.unwatch(self._changed)


class LiveStock:
    """Reads the live rows of an engine's command side."""

    def __init__(self, command_side: CommandSidePort) -> None:
        self._command_side = command_side
        self._rows = command_side.live_rows
        self._names: list[str] = []

    def row(self, sku: str) -> StockRow | None:
        """One SKU, or None when no sale of it was ever opened."""
        row = self._rows.table(STOCK_TABLE.name).get(sku)
        return None if row is None else msgspec.convert(row, StockRow)

    def learn(self, row: StockRow) -> None:
        """A row that was just read from the store; where partitions are elsewhere, theirs comes later."""
        known = self.row(row.sku)
        if known is None or known.version < row.version:
            self._rows.put(STOCK_TABLE.name, [msgspec.structs.asdict(row)])

    def page(self, *, after: str = "", limit: int = 100) -> list[StockRow]:
        """Up to `limit` SKUs by name, those behind `after`."""
        table = self._rows.table(STOCK_TABLE.name)
        if len(self._names) != len(table):
            # SKUs are never taken out.
            self._names = sorted(table)
        names = self._names
        first = bisect_right(names, after)
        return [row for sku in names[first : first + limit] if (row := self.row(sku)) is not None]

    def watch(self, news: Callable[[], None] | None = None) -> StockWatch:
        """Watch every SKU from now on; `news` is called after each transaction that changed one."""
        return StockWatch(self, self._rows.watch(news))

    def unwatch(self, changed: set[RowKey]) -> None:
        self._rows.unwatch(changed)

    def refused(self, sku: str) -> Mapping[str, int]:
        """Orders of a SKU refused since the engine was opened, by reason."""
        return self._command_side.refused((STOCK.name, sku))

    @property
    def sees_all_waiting(self) -> bool:
        """Whether `waiting` finds everything that waits, whatever is wanted."""
        return self._command_side.sees_all_waiting

    async def waiting(self, sku: str, wanted: Collection[str]) -> Mapping[str, tuple[int, Command]]:
        """The commands for a SKU that wait, by id, those `wanted` at least: 0 while it is being written,
        else its place from 1."""
        return await self._command_side.waiting((STOCK.name, sku), wanted)

    def may_know(self, sku: str, command_id: str) -> bool:
        """False only if a command was surely never queued here, or was refused long ago.

        A hint from outside, such as "sold out", may be believed only then: the answer of a command
        that was accepted must not turn into a refusal because it is sent again.
        """
        return self._command_side.may_know((STOCK.name, sku), command_id)
