"""Ending a task that waits for the broker.

`asyncio.wait_for` of Python 3.11, which the client is made of, forgets a cancellation that comes together
with the result: who waits for the end of such a task would wait for ever.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

T = TypeVar("T")


def end_if_cancelled(before: int = 0) -> None:
    """End a task that was cancelled, more often than `before`, and goes on all the same."""
    task = asyncio.current_task()
    if task is not None and task.cancelling() > before:
        raise asyncio.CancelledError


async def cancellable(call: Awaitable[T]) -> T:
    """Await a call of the client, and end when that is cancelled."""
    task = asyncio.current_task()
    before = task.cancelling() if task is not None else 0
    try:
        return await call
    finally:
        end_if_cancelled(before)
