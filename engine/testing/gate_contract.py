"""What every gate must do. Subclass it, say how a gate is opened, and run it with pytest.

class TestMyGate(GateContract):
    async def open_gate(self, settings):
        return MyGate(settings, ...)

    async def pass_time(self, seconds):
        clock.advance(seconds)
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest

from engine.config import GateSettings
from engine.gate.gate import PASS, SOLD_OUT, FlagsLost, Gate, GateOrder

LONG_MS, SHORT_MS = 60_000, 400
"""Staleness bounds: one that no test outlives, and one that a gate with a server really waits for."""

TRIES = 5
"""A slow machine may miss the middle of a short time, but not again and again."""

FAR_APART = 0.001
"""Orders a second of one buyer: nobody gets a second one in while a test runs."""


def order(sku: str, buyer: str = "alice") -> GateOrder:
    return GateOrder(sku, buyer, 1)


async def kinds(gate: Gate, *orders: GateOrder) -> list[str]:
    return [verdict.kind for verdict in await gate.check(orders)]


class GateContract(ABC):
    """Each test opens a gate of its own, which no test before has used."""

    @abstractmethod
    async def open_gate(self, settings: GateSettings) -> Gate:
        """A gate that is connected and knows nothing yet."""

    @abstractmethod
    async def pass_time(self, seconds: float) -> None:
        """Let the time pass in which flags and speeds are measured."""

    @asynccontextmanager
    async def gate(
        self,
        orders_per_second_max: float = 0,
        orders_burst_max: int = 1,
        staleness_ms_max: int = LONG_MS,
    ) -> AsyncIterator[Gate]:
        settings = GateSettings(
            staleness_ms_max=staleness_ms_max,
            orders_per_second_max=orders_per_second_max,
            orders_burst_max=orders_burst_max,
        )
        gate = await self.open_gate(settings)
        try:
            yield gate
        finally:
            await gate.close()

    async def test_everything_passes_until_flags_were_built(self) -> None:
        async with self.gate() as gate:
            assert gate.connected
            assert not gate.trusted
            assert await gate.check([order("PHONE")]) == [PASS]
            with pytest.raises(FlagsLost):
                await gate.mark(["PHONE"])

    async def test_what_is_sold_out_is_refused_and_nothing_else(self) -> None:
        async with self.gate() as gate:
            await gate.rebuild(["PHONE", "BAG"])
            assert gate.trusted
            asked = [order("BAG"), order("SHOES"), order("PHONE"), order("BAG")]
            assert await gate.check(asked) == [SOLD_OUT, PASS, SOLD_OUT, SOLD_OUT]

    async def test_a_sku_that_sells_out_is_refused_from_then_on(self) -> None:
        async with self.gate() as gate:
            await gate.rebuild([])
            assert await gate.check([order("PHONE")]) == [PASS]
            await gate.mark(["PHONE"])
            assert await gate.check([order("PHONE")]) == [SOLD_OUT]

    async def test_what_came_back_passes_at_once(self) -> None:
        async with self.gate() as gate:
            await gate.rebuild(["PHONE", "BAG"])
            await gate.clear(["PHONE", "never flagged"])
            assert await gate.check([order("PHONE"), order("BAG")]) == [PASS, SOLD_OUT]

    async def test_a_flag_that_nobody_sets_again_ends_within_the_bound(self) -> None:
        async with self.gate(staleness_ms_max=SHORT_MS) as gate:
            await gate.rebuild(["PHONE", "BAG"])
            await self.pass_time(SHORT_MS / 1_000 / 2)
            await gate.mark(["BAG"])
            await self.pass_time(SHORT_MS / 1_000 / 2)
            assert await gate.check([order("PHONE")]) == [PASS]

    async def test_a_flag_that_is_set_again_lives_on(self) -> None:
        async with self.gate(staleness_ms_max=SHORT_MS) as gate:
            for _ in range(TRIES):
                await gate.rebuild(["PHONE"])
                await self.pass_time(SHORT_MS / 1_000 * 0.6)
                await gate.mark(["PHONE"])
                await self.pass_time(SHORT_MS / 1_000 * 0.6)
                if await gate.check([order("PHONE")]) == [SOLD_OUT]:
                    return
            raise AssertionError("it ended although it was set again")

    async def test_flags_of_the_generation_before_count_no_more(self) -> None:
        async with self.gate() as gate:
            await gate.rebuild(["PHONE", "BAG"])
            before = gate.statistics()
            await gate.rebuild(["BAG"])
            assert await gate.check([order("PHONE"), order("BAG")]) == [PASS, SOLD_OUT]
            after = gate.statistics()
            assert (before.rebuilds, after.rebuilds) == (1, 2)
            assert before.generation != after.generation != ""

    async def test_a_rested_buyer_gets_a_burst_and_then_is_too_fast(self) -> None:
        async with self.gate(FAR_APART, 3) as gate:
            verdicts = await gate.check([order("PHONE")] * 5)
            assert [each.kind for each in verdicts] == ["pass"] * 3 + ["too_fast"] * 2
            assert 0 < verdicts[3].retry_after_seconds <= 1 / FAR_APART
            assert verdicts[3] == verdicts[4]
            assert await kinds(gate, order("BAG")) == ["too_fast"]
            assert await kinds(gate, order("PHONE", "bob")) == ["pass"]

    async def test_after_the_told_seconds_the_order_passes(self) -> None:
        async with self.gate(20, 1) as gate:
            verdicts = await gate.check([order("PHONE")] * 2)
            assert [each.kind for each in verdicts] == ["pass", "too_fast"]
            await self.pass_time(verdicts[1].retry_after_seconds + 0.001)
            assert await kinds(gate, order("PHONE")) == ["pass"]

    async def test_asking_again_too_fast_does_not_put_the_time_off(self) -> None:
        async with self.gate(FAR_APART, 1) as gate:
            await gate.check([order("PHONE")])
            first = (await gate.check([order("PHONE")]))[0]
            later = (await gate.check([order("PHONE")] * 50))[-1]
            assert 0 < later.retry_after_seconds <= first.retry_after_seconds

    async def test_the_speed_of_a_buyer_is_looked_at_before_the_stock(self) -> None:
        async with self.gate(FAR_APART, 2) as gate:
            await gate.rebuild(["PHONE"])
            asked = [order("PHONE")] * 3
            assert await kinds(gate, *asked) == ["sold_out", "sold_out", "too_fast"]

    async def test_the_speed_is_limited_before_flags_were_built(self) -> None:
        async with self.gate(FAR_APART, 1) as gate:
            assert await kinds(gate, order("PHONE"), order("PHONE")) == ["pass", "too_fast"]

    async def test_no_limit_is_no_limit(self) -> None:
        async with self.gate() as gate:
            assert set(await kinds(gate, *[order("PHONE")] * 200)) == {"pass"}

    async def test_checks_that_come_together_get_their_own_verdicts(self) -> None:
        async with self.gate() as gate:
            odd = [f"SKU-{n}" for n in range(1, 300, 2)]
            await gate.rebuild(odd)
            lists = [[order(f"SKU-{n}"), order(f"SKU-{n + 1}")] for n in range(300)]
            answers = await asyncio.gather(*(gate.check(each) for each in lists))
            assert answers == [[self._due(odd, each.sku) for each in some] for some in lists]

    async def test_a_caller_that_gives_up_harms_no_other(self) -> None:
        async with self.gate() as gate:
            await gate.rebuild(["PHONE"])
            tasks = [asyncio.create_task(gate.check([order(sku)])) for sku in ("PHONE", "BAG") * 5]
            await asyncio.sleep(0)
            for each in tasks[::3]:
                each.cancel()
            answers = await asyncio.gather(*tasks, return_exceptions=True)
            left = [(n, each) for n, each in enumerate(answers) if isinstance(each, list)]
            assert len(left) >= 6
            assert left == [(n, [PASS] if n % 2 else [SOLD_OUT]) for n, _ in left]
            assert await gate.check([order("PHONE"), order("BAG")]) == [SOLD_OUT, PASS]

    async def test_a_list_is_one_call(self) -> None:
        async with self.gate() as gate:
            skus = [f"SKU-{n}" for n in range(1_000)]
            await gate.rebuild(skus[::2])
            before = gate.statistics().calls
            assert await gate.check([order(sku) for sku in skus]) == [SOLD_OUT, PASS] * 500
            assert gate.statistics().calls == before + 1

    async def test_a_list_may_be_as_long_as_an_api_takes_it(self) -> None:
        async with self.gate() as gate:
            skus = [f"SKU-{n}" for n in range(1_200)]
            await gate.rebuild(skus[::2])
            verdicts = await gate.check([order(skus[n % 1_200]) for n in range(9_600)])
            assert verdicts == [SOLD_OUT, PASS] * 4_800

    @pytest.mark.parametrize("name", ["", "a:b", "sold-out:PHONE", "数 量\n\0", "x" * 3_000])
    async def test_names_are_any_text(self, name: str) -> None:
        async with self.gate(FAR_APART, 2) as gate:
            await gate.rebuild([name])
            verdicts = await kinds(gate, order(name, name), order("BAG", name), order("BAG", name))
            assert verdicts == ["sold_out", "pass", "too_fast"]

    async def test_text_that_is_not_unicode_is_no_error(self) -> None:
        async with self.gate() as gate:
            await gate.rebuild(["PHONE"])
            broken, fine = await asyncio.gather(
                gate.check([order("\ud800"), order("BAG", "\udfff")]), gate.check([order("PHONE")])
            )
            assert (broken, fine) == ([PASS, PASS], [SOLD_OUT])

    async def test_nothing_asked_is_nothing_answered(self) -> None:
        async with self.gate() as gate:
            assert await gate.check([]) == []

    async def test_every_order_is_counted_by_its_verdict(self) -> None:
        async with self.gate(FAR_APART, 2) as gate:
            await gate.rebuild(["PHONE"])
            await gate.check([order("PHONE"), order("BAG"), order("BAG")])
            counted = gate.statistics()
            assert (counted.passed, counted.sold_out, counted.too_fast) == (1, 1, 1)
            assert (counted.calls, counted.unasked, counted.failures) == (1, 0, 0)
            assert counted.trusted

    async def test_a_closed_gate_is_open(self) -> None:
        async with self.gate() as gate:
            await gate.rebuild(["PHONE"])
            await gate.close()
            assert await gate.check([order("PHONE")] * 2) == [PASS, PASS]
            assert gate.statistics().unasked == 2
            assert not gate.connected
            assert not gate.trusted

    @staticmethod
    def _due(sold_out: Sequence[str], sku: str) -> object:
        return SOLD_OUT if sku in sold_out else PASS
