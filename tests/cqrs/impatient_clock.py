"""A clock for tests in which nobody waits."""

from __future__ import annotations

import asyncio
import functools

from engine.clock import SystemClock, Timer


class ImpatientClock(SystemClock):
    """Whatever is waited for is due at the next turn of the event loop."""

    def call_later(self, seconds: float, callback: functools.partial[None] | object) -> Timer:
        assert callable(callback)
        return asyncio.get_running_loop().call_soon(callback)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(0)
