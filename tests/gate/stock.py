"""A source of stock that a test changes by hand."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping


class HandStock:
    """Implements `engine.gate.feed.StockSource`."""

    def __init__(self, **units: int) -> None:
        self.units = dict(units)
        self.reads = 0
        self.broken = False
        self.slow: asyncio.Event | None = None
        self._listeners: list[Callable[[Mapping[str, int]], None]] = []

    async def available_now(self) -> Mapping[str, int]:
        self.reads += 1
        if self.broken:
            raise OSError("the store cannot be read")
        read = dict(self.units)
        if self.slow is not None:
            await self.slow.wait()
        return read

    def listen(self, callback: Callable[[Mapping[str, int]], None]) -> Callable[[], None]:
        self._listeners.append(callback)
        return lambda: self._listeners.remove(callback)

    @property
    def heard(self) -> bool:
        return bool(self._listeners)

    def change(self, **units: int) -> None:
        self.units.update(units)
        for each in self._listeners:
            each(units)
