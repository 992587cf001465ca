"""What ends a sale before all its orders are sent: Ctrl-C, or its time is up."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

from engine.clock import Clock
from loadtest.crowd import Crowd


def stopping(crowd: Crowd, seconds_max: float | None, clock: Clock) -> AbstractContextManager[None]:
    """For the block, let the crowd stop after `seconds_max`, or at Ctrl-C when that is None."""
    if seconds_max is None:
        return _on_interrupt(crowd)
    return _after(seconds_max, crowd, clock)


@contextmanager
def _after(seconds: float, crowd: Crowd, clock: Clock) -> Iterator[None]:
    timer = clock.call_later(seconds, crowd.stop)
    try:
        yield
    finally:
        timer.cancel()


@contextmanager
def _on_interrupt(crowd: Crowd) -> Iterator[None]:
    """The first Ctrl-C lets the crowd finish what is in flight, a second one ends the program."""
    if threading.current_thread() is not threading.main_thread():
        yield  # Only the main thread can take signals.
        return
    loop = asyncio.get_running_loop()
    handler = signal.getsignal(signal.SIGINT)

    def restore() -> None:
        loop.remove_signal_handler(signal.SIGINT)
        signal.signal(signal.SIGINT, handler)

    def stop() -> None:
        crowd.stop()
        restore()

    loop.add_signal_handler(signal.SIGINT, stop)
    try:
        yield
    finally:
        restore()
