"""A clock that a test moves by hand."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

SETTLE_STEPS = 50
"""Turns of the event loop that let a chain of ready tasks run to where it waits for time."""


class VirtualTimer:
    def __init__(self, callback: Callable[[], None]) -> None:
        self.callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        self.callback = None


class VirtualClock:
    """Implements `engine.clock.Clock`; time stands still until `advance`, or passes in `run`."""

    def __init__(self) -> None:
        self._now = 1_000.0
        self._order = itertools.count()
        self._timers: list[tuple[float, int, VirtualTimer]] = []

    def monotonic(self) -> float:
        return self._now

    def wall_us(self) -> int:
        return int(self._now * 1_000_000)

    def call_later(self, seconds: float, callback: Callable[[], None]) -> VirtualTimer:
        timer = VirtualTimer(callback)
        heapq.heappush(self._timers, (self._now + seconds, next(self._order), timer))
        return timer

    async def sleep(self, seconds: float) -> None:
        due = asyncio.get_running_loop().create_future()
        self.call_later(seconds, lambda: None if due.done() else due.set_result(None))
        await due

    def advance(self, seconds: float) -> None:
        """Move on and run what became due, in the order of its times."""
        end = self._now + seconds
        while self._timers and self._timers[0][0] <= end:
            self._fire_next()
        self._now = end

    async def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Return what `work` returns; when nothing else can run, jump to the next timer.

        Raises RuntimeError when it waits for nothing that will come.
        """
        task = asyncio.create_task(work)
        while not task.done():
            await settle()
            if not task.done():
                if not self._timers:
                    task.cancel()
                    raise RuntimeError("nothing can run and no timer is due")
                self._fire_next()
        return task.result()

    def _fire_next(self) -> None:
        due, _, timer = heapq.heappop(self._timers)
        self._now = max(self._now, due)
        if timer.callback is not None:
            timer.callback()


async def settle() -> None:
    """Let every task run that needs no time to pass."""
    for _ in range(SETTLE_STEPS):
        await asyncio.sleep(0)
