"""The gate on Redis: one script call for all the orders that are waiting, up to a thousand.

    check -+
    check -+--> waiting --one call at a time--> Redis --> verdicts
    check -+

While a call is on its way, checks that arrive wait and go together in the next one, as orders do in
a batch. A single check on an idle gate is asked at once. All of them, and the feed's writes, use one
connection, one after the other: an answer can only be that of the call before it. An order waits for
the call before its own and then for that, within one timeout, so a Redis that takes half of it is
too slow to be of use, and is left alone for a while.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Callable, Collection, Sequence
from typing import Final

import msgspec

from engine.clock import Clock
from engine.config import GateSettings
from engine.gate.gate import (
    FlagsLost,
    GateCounts,
    GateOrder,
    GateStatistics,
    GateUnavailable,
    Verdict,
)
from engine.gate.redis_link import Connect, RedisLink
from engine.gate.redis_scripts import (
    BEGIN,
    CHECK,
    CLEAR,
    MARK,
    Script,
    pack_orders,
    pack_skus,
    read_verdicts,
)
from engine.gate.speed import SpeedLimit

logger = logging.getLogger(__name__)

ORDERS_WAITING_MAX: Final = 65_536
"""Beyond it orders pass at once. As many as the engine's queue takes, about 10 MB."""

ORDERS_TOGETHER_MAX: Final = 1_000
"""Orders in one call: about 1 ms, and 4 to 8 ms with a limit of speed.

Ten thousand in one would hold up everybody for as long as the timeout, and so end the connection.
"""

SKUS_TOGETHER_MAX: Final = 500
"""Flags written in one call, so that checks never wait long behind the feed."""

GENERATION_LIVES: Final = 2
"""The name of the generation outlives so many rebuilds: it is no litter, and never ends early."""


class _Waiting(msgspec.Struct):
    orders: bytes
    count: int
    due: float
    """Monotonic seconds."""
    verdicts: asyncio.Future[list[Verdict] | None]
    """None: nobody answered."""


class RedisGate:
    """Implements `engine.gate.gate.Gate`. Made by `open`."""

    def __init__(self, connect: Connect, name: str, settings: GateSettings, clock: Clock) -> None:
        """`name` of the server is for messages."""
        self._clock = clock
        self._timeout_seconds = settings.timeout_ms_max / 1_000
        self._flag_ms = b"%d" % settings.staleness_ms_max
        self._generation_ms = b"%d" % (settings.rebuild_seconds * 1_000 * GENERATION_LIVES)
        self._prefix = settings.prefix.encode()
        self._keys = (self._prefix + b":generation",)
        speed = SpeedLimit.of(settings.orders_per_second_max, settings.orders_burst_max)
        self._speed = (b"%d" % speed.interval_us, b"%d" % speed.tolerance_us)
        self._generation = ""
        self._theirs = ""
        self._waiting: list[_Waiting] = []
        self._orders_waiting = 0
        self._asking: asyncio.Task[None] | None = None
        self._callbacks: list[Callable[[], None]] = []
        self._counts = GateCounts()
        self._link = RedisLink(connect, name, clock, self._link_changed)

    @classmethod
    async def open(
        cls, connect: Connect, name: str, settings: GateSettings, clock: Clock
    ) -> RedisGate:
        """Returns in about a second at most, connected or trying to be."""
        gate = cls(connect, name, settings, clock)
        await gate._link.open()
        return gate

    async def check(self, orders: Sequence[GateOrder]) -> list[Verdict]:
        if len(orders) <= ORDERS_TOGETHER_MAX:
            return await self._check(orders)
        verdicts: list[Verdict] = []
        # One after the other, so that others get their turns in between.
        for start in range(0, len(orders), ORDERS_TOGETHER_MAX):
            verdicts += await self._check(orders[start : start + ORDERS_TOGETHER_MAX])
        return verdicts

    def statistics(self) -> GateStatistics:
        self._counts.failures = self._link.failures
        return self._counts.frozen(self._generation, trusted=self.trusted)

    async def close(self) -> None:
        await self._link.close()
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.gather(self._asking, return_exceptions=True)
        self._link_changed()

    @property
    def connected(self) -> bool:
        return self._link.connected

    @property
    def trusted(self) -> bool:
        return self._link.connected and self._generation != ""

    def on_change(self, callback: Callable[[], None]) -> None:
        self._callbacks.append(callback)

    async def rebuild(self, sold_out: Collection[str]) -> None:
        """Where the gate of another process began a generation meanwhile, that one is joined.

        With a new one each, they would make one another's flags worthless again and again.
        """
        generation, self._generation, self._theirs = self._theirs, "", ""
        if not generation:
            generation = uuid.uuid4().hex
            await self._write(BEGIN, generation.encode(), self._generation_ms)
        await self._mark(generation, sold_out)
        # Only now: with the first flags of a generation the others would not be there yet.
        self._generation = generation
        self._counts.rebuilds += 1

    async def mark(self, sold_out: Collection[str]) -> None:
        if not self._generation:
            raise FlagsLost("no generation was begun")
        await self._mark(self._generation, sold_out)

    async def clear(self, skus: Collection[str]) -> None:
        for packed in _pages(skus):
            await self._write(CLEAR, self._prefix, packed)

    async def _check(self, orders: Sequence[GateOrder]) -> list[Verdict]:
        count = len(orders)
        if not count:
            return []
        if not self._link.connected or self._orders_waiting + count > ORDERS_WAITING_MAX:
            return self._counts.let_pass(count)
        try:
            packed = pack_orders(orders)
        except UnicodeEncodeError:
            # Here, alone, so that one such buyer does not open the gate for all in the same call.
            return self._counts.let_pass(count)
        answer: asyncio.Future[list[Verdict] | None] = asyncio.get_running_loop().create_future()
        due = self._clock.monotonic() + self._timeout_seconds
        self._waiting.append(_Waiting(packed, count, due, answer))
        self._orders_waiting += count
        if self._asking is None:
            self._asking = asyncio.create_task(self._ask_for_all())
        verdicts = await answer
        if verdicts is None:
            return self._counts.let_pass(count)
        self._counts.answered(verdicts)
        return verdicts

    async def _mark(self, generation: str, sold_out: Collection[str]) -> None:
        args = (self._prefix, generation.encode(), self._flag_ms)
        for packed in _pages(sold_out) or [pack_skus(())]:
            found = (await self._write(MARK, *args, packed)).decode()
            if found != generation:
                self._lose(found)
                raise FlagsLost("another generation is in force" if found else "no generation")

    async def _write(self, script: Script, *args: bytes) -> bytes:
        return await self._link.call(script, self._keys, args, self._timeout_seconds)

    async def _ask_for_all(self) -> None:
        asked: list[_Waiting] = []
        try:
            while asked := self._take():
                await self._ask(asked)
        finally:
            # Also when this is cancelled or has a bug: nobody is left waiting.
            self._asking = None
            self._settle([*asked, *self._waiting])
            self._waiting.clear()
            self._orders_waiting = 0

    async def _ask(self, asked: list[_Waiting]) -> None:
        # The first of them has waited longest: for the call before, or for a loop that was held up.
        seconds = asked[0].due - self._clock.monotonic()
        if seconds <= 0 or not self._link.connected:
            self._settle(asked)
            return
        generation = self._generation
        args = (self._prefix, generation.encode(), *self._speed, *(each.orders for each in asked))
        self._counts.calls += 1
        try:
            reply = await self._link.call(CHECK, self._keys, args, seconds)
        except GateUnavailable:
            self._settle(asked)
            return
        try:
            found, verdicts = read_verdicts(reply, sum(each.count for each in asked))
        except ValueError as error:
            self._settle(asked)
            await self._link.distrust(str(error))
            return
        start = 0
        for each in asked:
            if not each.verdicts.done():
                each.verdicts.set_result(verdicts[start : start + each.count])
            start += each.count
        if generation and found != generation and self._generation == generation:
            self._lose(found)

    def _take(self) -> list[_Waiting]:
        taken: list[_Waiting] = []
        count = 0
        for each in self._waiting:
            if count + each.count > ORDERS_TOGETHER_MAX:
                break
            taken.append(each)
            count += each.count
        del self._waiting[: len(taken)]
        self._orders_waiting -= count
        return taken

    def _settle(self, unanswered: Sequence[_Waiting]) -> None:
        for each in unanswered:
            if not each.verdicts.done():
                each.verdicts.set_result(None)

    def _lose(self, found: str) -> None:
        """`found`: the generation that is there instead; empty when there is none."""
        self._generation, self._theirs = "", found
        self._call_back()

    def _link_changed(self) -> None:
        # Whatever was missed meanwhile, a server that came back may hold old data: begin anew.
        self._generation = self._theirs = ""
        self._call_back()

    def _call_back(self) -> None:
        for callback in self._callbacks:
            callback()


def _pages(skus: Collection[str]) -> list[bytes]:
    listed = list(skus)
    pages = range(0, len(listed), SKUS_TOGETHER_MAX)
    return [pack_skus(listed[start : start + SKUS_TOGETHER_MAX]) for start in pages]
