"""Keeps one connection to Redis, and stays away from a Redis that does not answer.

    connected --a call fails or takes too long--> away --after a pause: connect--> connected

While away, calls fail at once, without asking: that is the circuit breaker. The pause doubles with
every failure and is short again after the first call that was answered.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final, TypeAlias, TypeVar

from engine.clock import Clock
from engine.gate.gate import GateUnavailable
from engine.gate.redis_connection import RedisConnection
from engine.gate.redis_scripts import Script

logger = logging.getLogger(__name__)

T = TypeVar("T")

CONNECT_SECONDS_MAX: Final = 1.0
"""Longer than a call may take: nobody waits for it, and TLS needs several round trips."""

PAUSE_SECONDS_MIN: Final = 0.1
PAUSE_SECONDS_MAX: Final = 5.0
"""How long a Redis that came back may go unnoticed."""

LATE_TURNS: Final = 6
"""Turns of the event loop in which an answer that has arrived is still read, when time is up.

A loop that was held up for long finds the timer and the answer at once, and Redis is not to blame.
"""

Connect: TypeAlias = Callable[[], Coroutine[Any, Any, RedisConnection]]


class RedisLink:
    """One call at a time, on one connection that is thrown away when a call was not answered."""

    def __init__(
        self, connect: Connect, name: str, clock: Clock, changed: Callable[[], None]
    ) -> None:
        """`name` is for messages; `changed` is called after connecting and after losing it."""
        self._connect = connect
        self._name = name
        self._clock = clock
        self._changed = changed
        self._connection: RedisConnection | None = None
        self._turn = asyncio.Lock()
        self._away = asyncio.Event()
        self._pause_seconds = PAUSE_SECONDS_MIN
        self._keeping: asyncio.Task[None] | None = None
        self.failures = 0

    @property
    def connected(self) -> bool:
        return self._connection is not None

    async def open(self) -> None:
        """Connect, or go on trying behind the caller's back."""
        await self._try_to_connect()
        self._keeping = asyncio.create_task(self._keep_connected())

    async def call(
        self, script: Script, keys: Sequence[bytes], args: Sequence[bytes], seconds: float
    ) -> bytes:
        """The answer, within `seconds`. Raises GateUnavailable."""
        connection = self._connection
        if connection is None:
            raise GateUnavailable(f"{self._name} does not answer")
        try:
            reply = await within(self._clock, seconds, self._ask(connection, script, keys, args))
        except asyncio.CancelledError:
            await self._drop(connection, "a call was cancelled")
            raise
        except Exception as error:
            await self._drop(connection, describe(error))
            raise GateUnavailable(f"{self._name}: {describe(error)}") from error
        self._pause_seconds = PAUSE_SECONDS_MIN
        return reply

    async def distrust(self, why: str) -> None:
        """Throw the connection away: what it answered cannot be the answer to what was asked."""
        if self._connection is not None:
            await self._drop(self._connection, why)

    async def close(self) -> None:
        if self._keeping is not None:
            self._keeping.cancel()
            await asyncio.gather(self._keeping, return_exceptions=True)
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()

    async def _ask(
        self,
        connection: RedisConnection,
        script: Script,
        keys: Sequence[bytes],
        args: Sequence[bytes],
    ) -> bytes:
        async with self._turn:
            if self._connection is not connection:
                raise GateUnavailable("the connection was lost meanwhile")
            return await connection.run(script, keys, args)

    async def _drop(self, connection: RedisConnection, why: str) -> None:
        self.failures += 1
        if self._connection is not connection:
            return
        self._connection = None
        logger.warning("the gate lets everything pass: %s: %s", self._name, why)
        self._away.set()
        await connection.close()
        self._changed()

    async def _keep_connected(self) -> None:
        while True:
            if self._connection is not None:
                self._away.clear()
                await self._away.wait()
            await self._clock.sleep(self._pause_seconds)
            self._pause_seconds = min(2 * self._pause_seconds, PAUSE_SECONDS_MAX)
            await self._try_to_connect()

    async def _try_to_connect(self) -> None:
        try:
            await within(self._clock, CONNECT_SECONDS_MAX, self._connect_and_keep())
        except Exception as error:
            self.failures += 1
            logger.warning("cannot connect to %s: %s", self._name, describe(error))
        else:
            logger.info("connected to %s", self._name)
            self._changed()

    async def _connect_and_keep(self) -> None:
        connection = await self._connect()
        if (task := asyncio.current_task()) is not None and task.cancelling():
            # Too late, by a driver that does not stop: nobody knows of it.
            await connection.close()
            return
        # Kept at once: who closes the link while it is being told has to close this as well.
        self._connection = connection


async def within(clock: Clock, seconds: float, work: Coroutine[Any, Any, T]) -> T:
    """What `work` returns or raises; it is cancelled after `seconds`, and then TimeoutError raised."""
    task = asyncio.create_task(work)
    due: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    timer = clock.call_later(seconds, lambda: None if due.done() else due.set_result(None))
    try:
        await asyncio.wait((task, due), return_when=asyncio.FIRST_COMPLETED)
        for _ in range(LATE_TURNS):
            if task.done():
                return task.result()
            await asyncio.sleep(0)
        raise TimeoutError(f"no answer within {seconds * 1_000:g} ms")
    finally:
        timer.cancel()
        if not task.done():
            # Not waited for: a driver that does not stop would hold up whoever must not wait.
            task.add_done_callback(_forget)
            task.cancel()


def describe(error: BaseException) -> str:
    return str(error) or type(error).__name__


def _forget(task: asyncio.Task[Any]) -> None:
    if not task.cancelled():
        task.exception()
