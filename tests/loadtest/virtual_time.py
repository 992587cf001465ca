"""Time that passes at once: when nothing else can run, the clock jumps to the next timer."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable, Coroutine
from itertools import count
from typing import Any, Final, TypeVar

from engine.clock import Timer

T = TypeVar("T")

IDLE_TURNS: Final = 25
"""Turns of the event loop after which every task that can run has run."""


class VirtualTimer:
    def __init__(self, callback: Callable[[], None]) -> None:
        self.callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        self.callback = None


class VirtualClock:
    """A Clock for one event loop. `run` drives it until a piece of work is done."""

    def __init__(self) -> None:
        self.now = 1_000.0
        self._order = count()
        self._timers: list[tuple[float, int, VirtualTimer]] = []

    def monotonic(self) -> float:
        return self.now

    def wall_us(self) -> int:
        return int(self.now * 1_000_000)

    def call_later(self, seconds: float, callback: Callable[[], None]) -> Timer:
        timer = VirtualTimer(callback)
        heapq.heappush(self._timers, (self.now + seconds, next(self._order), timer))
        return timer

    async def sleep(self, seconds: float) -> None:
        woken = asyncio.Event()
        self.call_later(seconds, woken.set)
        await woken.wait()

    async def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Return what `work` returns; fail when it waits for nothing that will come."""
        task = asyncio.create_task(work)
        while not task.done():
            for _ in range(IDLE_TURNS):
                await asyncio.sleep(0)
            if task.done():
                break
            assert self._timers, "nothing can run and no timer is due"
            due, _, timer = heapq.heappop(self._timers)
            self.now = max(self.now, due)
            if timer.callback is not None:
                timer.callback()
        return task.result()
