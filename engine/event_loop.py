"""The event loop of the programs; a library user brings one of their own."""

from __future__ import annotations

import asyncio
import signal
import sys
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class Terminated(KeyboardInterrupt):
    """SIGTERM came: like Ctrl-C, so that a scratch database is dropped on the way out."""


def run_async(main: Coroutine[Any, Any, T]) -> T:
    """`asyncio.run`, on uvloop where it exists: docs/decisions/0012 has the figures.

    SIGTERM cancels `main`, as Ctrl-C does, and Terminated is raised once `main` has cleaned up.
    """
    told: list[int] = []
    with _runner() as runner:
        try:
            return runner.run(_cancelled_by_sigterm(main, told))
        except asyncio.CancelledError:
            if not told:
                raise
    raise Terminated


def _runner() -> asyncio.Runner:
    if sys.platform == "win32":
        return asyncio.Runner()
    import uvloop

    return asyncio.Runner(loop_factory=uvloop.new_event_loop)


async def _cancelled_by_sigterm(main: Coroutine[Any, Any, T], told: list[int]) -> T:
    """What `main` returns. A handler that raises would do so in any callback of the loop."""
    if threading.current_thread() is not threading.main_thread() or sys.platform == "win32":
        return await main  # Signals cannot be taken there.
    task = asyncio.current_task()
    assert task is not None
    loop, before = asyncio.get_running_loop(), signal.getsignal(signal.SIGTERM)

    def terminate() -> None:
        told.append(signal.SIGTERM)
        task.cancel()

    loop.add_signal_handler(signal.SIGTERM, terminate)
    try:
        return await main
    finally:
        loop.remove_signal_handler(signal.SIGTERM)
        signal.signal(signal.SIGTERM, before)
