"""What is sold out is told at once and again and again; whatever is in doubt is read anew."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from engine.config import GateSettings
from engine.gate.feed import NOT_FOR_SALE, GateFeed
from engine.gate.gate import FlagsLost
from engine.gate.memory import MemoryGate
from engine.testing.gate_contract import order
from engine.testing.virtual_clock import VirtualClock, settle
from tests.gate.stock import HandStock

SETTINGS = GateSettings(staleness_ms_max=3_000, rebuild_seconds=60)
REFRESH_SECONDS = 1.0
BOUND_SECONDS = 3.0


class Fed:
    """A gate in memory that is fed from a stock in hand."""

    def __init__(self, stock: HandStock) -> None:
        self.clock = VirtualClock()
        self.gate = MemoryGate(SETTINGS, self.clock)
        self.stock = stock
        self.task = asyncio.create_task(GateFeed(self.gate, stock, SETTINGS, self.clock).run())

    async def verdict(self, sku: str) -> str:
        await settle()
        return (await self.gate.check([order(sku)]))[0].kind

    async def let_pass(self, seconds: float) -> None:
        """In small steps, so that the feed gets its turn in between."""
        for _ in range(round(seconds * 10)):
            self.clock.advance(0.1)
            await settle()

    async def stop(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


@asynccontextmanager
async def fed(**units: int) -> AsyncIterator[Fed]:
    one = Fed(HandStock(**units))
    await settle()
    try:
        yield one
    finally:
        await one.stop()


async def test_at_the_start_what_the_store_has_no_units_of_is_flagged() -> None:
    async with fed(PHONE=0, BAG=3) as one:
        assert [await one.verdict(sku) for sku in ("PHONE", "BAG", "OTHER")] == [
            "sold_out",
            "pass",
            "pass",
        ]


async def test_a_change_counts_at_once_both_ways() -> None:
    async with fed(PHONE=1) as one:
        for units, verdict in ((0, "sold_out"), (5, "pass"), (0, "sold_out")):
            one.stock.change(PHONE=units)
            assert await one.verdict("PHONE") == verdict
        assert one.stock.reads == 1


@pytest.mark.parametrize("units", [NOT_FOR_SALE, 7])
async def test_a_sku_that_is_paused_or_restocked_is_not_called_sold_out(units: int) -> None:
    async with fed(PHONE=0) as one:
        one.stock.change(PHONE=units)
        assert await one.verdict("PHONE") == "pass"


async def test_what_is_back_before_the_feed_had_its_turn_is_not_flagged() -> None:
    async with fed(PHONE=1) as one:
        one.stock.change(PHONE=0)
        one.stock.change(PHONE=4)
        assert await one.verdict("PHONE") == "pass"
        await one.let_pass(BOUND_SECONDS)
        assert await one.verdict("PHONE") == "pass"


async def test_what_is_told_while_the_store_is_read_is_newer_than_what_is_read() -> None:
    stock = HandStock(PHONE=0, BAG=1)
    stock.slow = asyncio.Event()
    one = Fed(stock)
    await settle()
    # Both were read already, as they were before.
    stock.change(PHONE=5, BAG=0)
    stock.slow.set()
    try:
        assert [await one.verdict(sku) for sku in ("PHONE", "BAG")] == ["pass", "sold_out"]
    finally:
        await one.stop()


async def test_a_flag_lives_while_it_is_fed_and_ends_within_the_bound_when_it_is_not() -> None:
    async with fed(PHONE=0) as one:
        await one.let_pass(10 * BOUND_SECONDS)
        assert await one.verdict("PHONE") == "sold_out"
        assert one.stock.reads == 1
        await one.stop()
        assert not one.stock.heard
        await one.let_pass(BOUND_SECONDS)
        assert await one.verdict("PHONE") == "pass"


async def test_what_the_source_did_not_tell_is_noticed_at_the_next_rebuild() -> None:
    async with fed(PHONE=0) as one:
        one.stock.units["PHONE"] = 5
        await one.let_pass(SETTINGS.rebuild_seconds - REFRESH_SECONDS)
        assert await one.verdict("PHONE") == "sold_out"
        await one.let_pass(2 * REFRESH_SECONDS)
        assert await one.verdict("PHONE") == "pass"


async def test_with_a_store_that_cannot_be_read_flags_lapse_and_it_is_asked_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with fed(PHONE=0) as one:
        one.stock.broken = True
        await one.let_pass(SETTINGS.rebuild_seconds + BOUND_SECONDS + REFRESH_SECONDS)
        assert await one.verdict("PHONE") == "pass"
        # Once a refresh, not as fast as it fails.
        assert 3 <= one.stock.reads <= 6
        assert "could not read the stock" in caplog.text
        one.stock.broken = False
        await one.let_pass(REFRESH_SECONDS)
        assert await one.verdict("PHONE") == "sold_out"


async def test_changes_do_not_make_a_store_that_cannot_be_read_be_asked_more_often() -> None:
    async with fed(PHONE=0, BAG=0) as one:
        one.stock.broken = True
        await one.let_pass(SETTINGS.rebuild_seconds)
        before = one.stock.reads
        for n in range(30):
            one.stock.change(BAG=n % 2)
            await one.let_pass(0.1)
        assert one.stock.reads - before <= 4


async def test_what_comes_back_is_told_also_while_the_store_cannot_be_read() -> None:
    async with fed(PHONE=0) as one:
        one.stock.broken = True
        await one.let_pass(SETTINGS.rebuild_seconds)
        assert await one.verdict("PHONE") == "sold_out"
        one.stock.change(PHONE=1)
        assert await one.verdict("PHONE") == "pass"


async def test_a_gate_that_forgets_at_once_does_not_make_the_feed_read_without_end() -> None:
    async with fed(PHONE=0) as one:

        async def forget(sold_out: object) -> None:
            one.gate._generation = 0
            raise FlagsLost("forgotten")

        one.gate.mark = forget  # type: ignore[method-assign]
        await one.let_pass(10 * REFRESH_SECONDS)
        assert 9 <= one.stock.reads <= 12
