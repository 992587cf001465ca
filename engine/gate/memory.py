"""The gate for one process, without a server: what the gate on Redis is compared with."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Final

from engine.clock import Clock
from engine.config import GateSettings
from engine.gate.gate import (
    PASS,
    SOLD_OUT,
    FlagsLost,
    GateCounts,
    GateOrder,
    GateStatistics,
    Verdict,
)
from engine.gate.speed import MICROSECONDS, SpeedLimit

BUYERS_TIDIED_MIN: Final = 10_000
"""Rested buyers are forgotten when so many are known, then at double what was left."""


class MemoryGate:
    """Implements `engine.gate.gate.Gate`."""

    def __init__(self, settings: GateSettings, clock: Clock) -> None:
        self._clock = clock
        self._staleness_seconds = settings.staleness_ms_max / 1_000
        self._speed = SpeedLimit.of(settings.orders_per_second_max, settings.orders_burst_max)
        self._flags: dict[str, float] = {}
        self._arrivals_us: dict[str, int] = {}
        self._tidied_at = BUYERS_TIDIED_MIN
        self._generation = 0
        self._counts = GateCounts()
        self._closed = False

    async def check(self, orders: Sequence[GateOrder]) -> list[Verdict]:
        if self._closed:
            return self._counts.let_pass(len(orders))
        now = self._clock.monotonic()
        verdicts = [self._verdict(order, now) for order in orders]
        if len(self._arrivals_us) > self._tidied_at:
            now_us = int(now * MICROSECONDS)
            self._arrivals_us = {k: v for k, v in self._arrivals_us.items() if v > now_us}
            self._tidied_at = max(BUYERS_TIDIED_MIN, 2 * len(self._arrivals_us))
        self._counts.calls += 1
        self._counts.answered(verdicts)
        return verdicts

    def statistics(self) -> GateStatistics:
        generation = str(self._generation) if self._generation else ""
        return self._counts.frozen(generation, trusted=self.trusted)

    async def close(self) -> None:
        self._closed = True

    @property
    def connected(self) -> bool:
        return not self._closed

    @property
    def trusted(self) -> bool:
        return self.connected and self._generation > 0

    def on_change(self, callback: Callable[[], None]) -> None:
        """Nothing changes by itself here."""

    async def rebuild(self, sold_out: Collection[str]) -> None:
        self._generation += 1
        self._counts.rebuilds += 1
        self._flags.clear()
        await self.mark(sold_out)

    async def mark(self, sold_out: Collection[str]) -> None:
        if not self._generation:
            raise FlagsLost("no generation was begun")
        until = self._clock.monotonic() + self._staleness_seconds
        self._flags.update(dict.fromkeys(sold_out, until))

    async def clear(self, skus: Collection[str]) -> None:
        for sku in skus:
            self._flags.pop(sku, None)

    def _verdict(self, order: GateOrder, now: float) -> Verdict:
        if self._speed.interval_us:
            arrival_us, early_us = self._speed.order(
                self._arrivals_us.get(order.buyer, 0), int(now * MICROSECONDS)
            )
            if early_us:
                return Verdict("too_fast", early_us / MICROSECONDS)
            self._arrivals_us[order.buyer] = arrival_us
        return SOLD_OUT if self._flags.get(order.sku, 0.0) > now else PASS
