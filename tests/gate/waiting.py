"""Waiting for a real server without sleeping for a guessed time."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import Final

POLL_SECONDS: Final = 0.005
POLLS_MAX: Final = 12_000

_NEVER: Final = threading.Event()


async def real_seconds(seconds: float) -> None:
    """Let time pass on the clock of a server, which no test can move."""
    await asyncio.to_thread(_NEVER.wait, seconds)


async def until(is_so: Callable[[], Awaitable[bool]]) -> None:
    """Return once it is so; raises AssertionError after a minute of asking."""
    for _ in range(POLLS_MAX):
        if await is_so():
            return
        await real_seconds(POLL_SECONDS)
    raise AssertionError("it did not come about")
