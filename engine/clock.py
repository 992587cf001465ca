"""Time as a port, so that tests decide what time it is."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Protocol


class Timer(Protocol):
    """A callback that is due later."""

    def cancel(self) -> None:
        """Make sure the callback does not run."""


class Clock(Protocol):
    """Where the engine reads the time and arms its timers."""

    def monotonic(self) -> float:
        """Seconds that never go back; for deadlines and durations."""

    def wall_us(self) -> int:
        """Microseconds since 1970 UTC, which never go back while the program runs."""

    def call_later(self, seconds: float, callback: Callable[[], None]) -> Timer:
        """Run `callback` on the event loop after `seconds`."""

    async def sleep(self, seconds: float) -> None:
        """Return after `seconds`."""


class SystemClock:
    """The machine's clock and the running event loop's timers.

    The wall clock is read once and counted on by the monotonic one: a deadline decided on it does not
    come early because somebody sets the system's clock.
    """

    def __init__(self) -> None:
        self._wall_ahead_us = time.time_ns() // 1_000 - time.monotonic_ns() // 1_000

    # The builtin itself, because it is read once for every order.
    monotonic = staticmethod(time.monotonic)

    def wall_us(self) -> int:
        return time.monotonic_ns() // 1_000 + self._wall_ahead_us

    def call_later(self, seconds: float, callback: Callable[[], None]) -> Timer:
        return asyncio.get_running_loop().call_later(seconds, callback)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
