"""Tells a gate what is sold out, and keeps telling it.

    StockSource --available_now--> rebuild: a new generation   (start, (re)connect, loss, period)
                --listen---------> mark at once, clear at once
                                   mark all again at a third of the staleness bound

Nothing is remembered beyond this process: whenever in doubt, the feed reads the store again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Final, Protocol

from engine.clock import Clock
from engine.config import GateSettings
from engine.gate.gate import FlagsLost, Gate, GateUnavailable

logger = logging.getLogger(__name__)

NOT_FOR_SALE: Final = -1
"""What a source tells of a SKU that was paused or closed: it is not flagged as sold out."""

REFRESHES: Final = 3
"""Within the staleness bound: two may fail before a flag that is right goes out."""

REBUILD_PAUSE_SECONDS: Final = 1.0
"""At most, between two rebuilds: one that was lost or failed is not followed by the next at once."""


class StockSource(Protocol):
    """Where the feed learns what is left."""

    async def available_now(self) -> Mapping[str, int]:
        """Every open SKU's unsold units, from the store. May raise; it is asked again."""

    def listen(self, callback: Callable[[Mapping[str, int]], None]) -> Callable[[], None]:
        """Call back on the event loop with the SKUs that changed, in the order of their commits.

        The units are those available afterwards, NOT_FOR_SALE when it is not open now. Whoever
        changes the stock: what the source does not tell is noticed at the next rebuild only.
        Returns what ends it.
        """


class GateFeed:
    """Feeds one gate from one source while `run` runs."""

    def __init__(
        self, gate: Gate, source: StockSource, settings: GateSettings, clock: Clock
    ) -> None:
        self._gate = gate
        self._source = source
        self._clock = clock
        self._refresh_seconds = settings.staleness_ms_max / 1_000 / REFRESHES
        self._pause_seconds = min(self._refresh_seconds, REBUILD_PAUSE_SECONDS)
        self._rebuild_seconds = settings.rebuild_seconds
        self._sold_out: set[str] = set()
        self._changed: dict[str, int] = {}
        self._wake = asyncio.Event()
        self._refresh_at = self._rebuild_at = self._no_rebuild_before = 0.0
        gate.on_change(self._wake.set)

    async def run(self) -> None:
        """Until cancelled. The flags then end within the staleness bound."""
        end = self._source.listen(self._note)
        try:
            while True:
                self._wake.clear()
                await self._sleep(await self._step())
        finally:
            end()

    def _note(self, changed: Mapping[str, int]) -> None:
        # Noted in any case: the store may just be being read, and tell what was before.
        self._changed.update(changed)
        if any((units == 0) != (sku in self._sold_out) for sku, units in changed.items()):
            self._wake.set()

    async def _step(self) -> float:
        """Do what is due, and return for how many seconds nothing will be."""
        if not self._gate.connected:
            # The gate calls when it is.
            return self._rebuild_seconds
        try:
            await self._write(self._clock.monotonic())
        except FlagsLost as error:
            logger.info("the flags of the gate are built anew: %s", error)
        except GateUnavailable:
            # The gate has said why, and calls when it is back.
            pass
        except Exception:
            logger.exception("the gate's feed could not read the stock; flags lapse, orders pass")
        now = self._clock.monotonic()
        if self._must_rebuild(now):
            return max(0.0, self._no_rebuild_before - now)
        return max(0.0, min(self._refresh_at, self._rebuild_at) - now)

    async def _write(self, now: float) -> None:
        # First of all: a wrong flag loses a sale, a missing one costs a refusal by the engine.
        back, gone = self._take_changes()
        if back:
            await self._gate.clear(back)
        if self._must_rebuild(now):
            # Until it succeeds nothing is marked again, so flags lapse.
            if now >= self._no_rebuild_before:
                await self._rebuild(now)
        elif now >= self._refresh_at:
            await self._gate.mark(self._sold_out)
            self._refresh_at = now + self._refresh_seconds
        elif gone:
            await self._gate.mark(gone)

    def _must_rebuild(self, now: float) -> bool:
        return not self._gate.trusted or now >= self._rebuild_at

    async def _rebuild(self, now: float) -> None:
        # Not over and over when the store cannot be read, or Redis forgets what it was told.
        self._rebuild_at, self._no_rebuild_before = now, now + self._pause_seconds
        available = await self._source.available_now()
        self._sold_out = {sku for sku, units in available.items() if units == 0}
        # What was told meanwhile is newer than what was read, or the same.
        self._take_changes()
        await self._gate.rebuild(self._sold_out)
        self._refresh_at = now + self._refresh_seconds
        self._rebuild_at = now + self._rebuild_seconds

    def _take_changes(self) -> tuple[set[str], set[str]]:
        """SKUs that are to be had again, and SKUs that are sold out now."""
        changed, self._changed = self._changed, {}
        gone = {sku for sku, units in changed.items() if units == 0} - self._sold_out
        back = {sku for sku, units in changed.items() if units != 0} & self._sold_out
        self._sold_out = (self._sold_out | gone) - back
        return back, gone

    async def _sleep(self, seconds: float) -> None:
        if seconds > 0:
            timer = self._clock.call_later(seconds, self._wake.set)
            try:
                await self._wake.wait()
            finally:
                timer.cancel()
