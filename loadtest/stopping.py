"""What ends a sale before all is done: Ctrl-C, or its time is up."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from engine.clock import Clock


def stopping(
    stop: Callable[[], None], seconds_max: float | None, clock: Clock
) -> AbstractContextManager[None]:
    """For the block, call `stop` after `seconds_max`, or at Ctrl-C when that is None."""
    if seconds_max is None:
        return _on_interrupt(stop)
    return after(seconds_max, stop, clock)


@contextmanager
def after(seconds: float, act: Callable[[], None], clock: Clock) -> Iterator[None]:
    """For the block, call `act` once so much time has passed."""
    timer = clock.call_later(seconds, act)
    try:
        yield
    finally:
        timer.cancel()


@contextmanager
def _on_interrupt(stop: Callable[[], None]) -> Iterator[None]:
    """The first Ctrl-C lets what is in flight finish, a second one ends the program."""
    if threading.current_thread() is not threading.main_thread():
        yield  # Only the main thread can take signals.
        return
    loop = asyncio.get_running_loop()
    handler = signal.getsignal(signal.SIGINT)

    def restore() -> None:
        loop.remove_signal_handler(signal.SIGINT)
        signal.signal(signal.SIGINT, handler)

    def stop_once() -> None:
        stop()
        restore()

    loop.add_signal_handler(signal.SIGINT, stop_once)
    try:
        yield
    finally:
        restore()
