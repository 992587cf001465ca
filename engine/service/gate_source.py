"""What the gate's feed learns from: the store when it asks, the live rows as they change."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from engine.engine import Engine
from engine.gate.feed import NOT_FOR_SALE
from engine.inventory.stock_table import STOCK_TABLE


class LiveSource:
    """A `StockSource`."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def available_now(self) -> Mapping[str, int]:
        """Every open SKU's unsold units, from the store. Raises StoreUnavailable."""
        rows = await self._engine.reader.read_rows(STOCK_TABLE.name)
        return {str(row["sku"]): int(row["available"]) for row in rows if row["phase"] == "open"}

    def listen(self, callback: Callable[[Mapping[str, int]], None]) -> Callable[[], None]:
        """Call back with what changed, once for all commits of one turn of the event loop."""
        loop = asyncio.get_running_loop()
        scheduled = False

        def tell() -> None:
            nonlocal scheduled
            scheduled = False
            callback(
                {
                    row.sku: row.available if row.phase == "open" else NOT_FOR_SALE
                    for row in watch.drain()
                }
            )

        def news() -> None:
            nonlocal scheduled
            if not scheduled:
                scheduled = True
                loop.call_soon(tell)

        watch = self._engine.live.watch(news)
        return watch.close
