"""A thread that runs functions one after the other for an event loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from typing import Any, NamedTuple, Protocol, TypeVar

from engine.errors import StoreUnavailable

Result = TypeVar("Result")


class Closable(Protocol):
    async def close(self) -> None: ...


Opened = TypeVar("Opened", bound=Closable)


async def open_on_thread(function: Callable[..., Opened], *args: Any) -> Opened:
    """Return what `function(*args)` opens on a thread; a caller that gives up leaves nothing open."""
    worker = Worker("open")
    opening = worker.post(function, *args)
    try:
        return await asyncio.shield(opening)
    except asyncio.CancelledError:
        with suppress(Exception):
            await (await opening).close()
        raise
    finally:
        await worker.close()


class _Job(NamedTuple):
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Any]
    function: Callable[..., Any]
    args: tuple[Any, ...]


class Worker:
    """One thread, first in first out: blocking calls that belong together, such as a connection's.

    A call costs one hop there and one back, so hand over a whole batch and not a row. A job whose
    caller was cancelled runs all the same, and later jobs see its effect. All callers live on
    event loop threads. The thread is a daemon: a program that dies without `close` is not held up.
    """

    def __init__(self, name: str) -> None:
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    async def call(self, function: Callable[..., Result], *args: Any) -> Result:
        """Run `function(*args)` on the thread; return what it returns, raise what it raises.

        Raises StoreUnavailable when the worker is closed.
        """
        return await self.post(function, *args)

    def post(self, function: Callable[..., Result], *args: Any) -> asyncio.Future[Result]:
        """Like `call`, but do not wait: the future may be dropped."""
        if self._closed:
            raise StoreUnavailable("the store is closed")
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Result] = loop.create_future()
        self._jobs.put(_Job(loop, future, function, args))
        return future

    async def close(self) -> None:
        """Finish the jobs already handed over and end the thread. Idempotent."""
        if not self._closed:
            self._closed = True
            self._jobs.put(None)
        await asyncio.to_thread(self._thread.join)

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            loop, future, function, args = job
            result: Any = None
            error: BaseException | None = None
            try:
                result = function(*args)
            except StopIteration as stop:
                # A future refuses StopIteration, and its caller would wait for ever.
                error = RuntimeError(f"{function!r} raised {stop!r}")
            except BaseException as raised:
                error = raised
            try:
                loop.call_soon_threadsafe(_settle, future, result, error)
            except RuntimeError:
                # The loop was closed: nobody waits for this answer any more.
                pass
            # An idle thread must not keep the last batch alive.
            del job, loop, future, function, args, result, error


def _settle(future: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
    if future.cancelled():
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)
