"""A partition that paces itself answers the same as any other, and merges buyers who come back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.config import COMMAND_SIDE_KEYS, load_settings
from engine.cqrs.aggregate import Registry
from engine.cqrs.command_side.batch import BatchLimits
from engine.cqrs.command_side.command_side import CommandSide
from engine.cqrs.event_store import Lease, NewCommit
from engine.cqrs.messages import Rejected
from engine.inventory.audit import audit
from engine.inventory.commands import OpenSale, Reserve
from engine.inventory.sale import sale_registry
from engine.stores.memory import MemoryStore
from engine.testing.virtual_clock import VirtualClock, settle
from tests.cqrs.bank_account import Increment, Incremented, bank_registry

ADAPTIVE = {"batch.mode": "adaptive", "batch.latency_aim_ms": 20}


class TimedStore(MemoryStore):
    """A transaction takes `fixed_seconds`."""

    def __init__(self, clock: VirtualClock, fixed_seconds: float, registry: Registry) -> None:
        super().__init__(1, registry.tables, clock)
        self._time = clock
        self._fixed_seconds = fixed_seconds

    async def append(
        self, lease: Lease, commits: Sequence[NewCommit], *more: Any, **named: Any
    ) -> None:
        await self._time.sleep(self._fixed_seconds)
        await super().append(lease, commits, *more, **named)


@asynccontextmanager
async def counters(clock: VirtualClock, overrides: dict[str, object]) -> AsyncIterator[CommandSide]:
    settings = load_settings(environ={}, overrides=overrides)
    registry = bank_registry()
    side = await CommandSide.open(TimedStore(clock, 0.004, registry), registry, settings, clock)
    try:
        yield side
    finally:
        closing = asyncio.create_task(side.close())
        while not closing.done():
            await settle()
            clock.advance(0.004)


async def two_halves(clock: VirtualClock, side: CommandSide, orders: int) -> None:
    """Ten buyers who order again as soon as they are answered; half of them began later."""

    async def buyer(number: int) -> None:
        if number % 2:
            await clock.sleep(0.002)
        for order in range(orders):
            answer = await side.bus.execute(Increment(f"{number}-{order}", "c"))
            assert answer == (Incremented(f"{number}-{order}"),)

    async def all_of_them() -> None:
        await asyncio.gather(*(buyer(number) for number in range(10)))

    await clock.run(all_of_them())


@pytest.mark.parametrize(
    ("overrides", "merged"), [({}, False), (ADAPTIVE, True)], ids=["fixed", "adaptive"]
)
async def test_half_batches_that_take_turns_are_merged_into_one(
    overrides: dict[str, object], merged: bool
) -> None:
    clock = VirtualClock()
    async with counters(clock, overrides) as side:
        began = clock.monotonic()
        await two_halves(clock, side, 40)
        took = clock.monotonic() - began
        sizes = side.statistics().batch_sizes
    assert sum(size * times for size, times in sizes.items()) == 400
    assert (sizes.get(10, 0) >= 20) is merged
    assert (sizes.get(5, 0) >= 70) is not merged
    # Rounds of 4 ms: 40 and a few, or two for each order; nobody waits for who will not come.
    assert (took < 0.3) is merged


async def test_a_lonely_order_is_answered_in_one_commit() -> None:
    clock = VirtualClock()
    async with counters(clock, ADAPTIVE) as side:
        await two_halves(clock, side, 40)
        clock.advance(1)
        for number in range(5):
            began = clock.monotonic()
            await clock.run(side.bus.execute(Increment(f"lonely-{number}", "c")))
            assert clock.monotonic() - began == pytest.approx(0.004)
            clock.advance(0.02)


async def test_the_limits_are_told_for_every_partition() -> None:
    clock = VirtualClock()
    settings = load_settings(
        environ={}, overrides={"batch.size_max": 9, "batch.delay_ms_max": 5, "store.partitions": 2}
    )
    side = await CommandSide.open(MemoryStore(2), bank_registry(), settings, clock)
    assert side.statistics().batch_limits == dict.fromkeys(range(2), BatchLimits(9, 0.005, 256))
    await side.close()


@given(
    quantities=st.lists(st.integers(1, 4), min_size=1, max_size=60),
    gaps_ms=st.lists(st.sampled_from([0, 0, 1, 3, 30]), min_size=1, max_size=20),
    aim_ms=st.sampled_from([1, 5, 20, 100]),
    size_max=st.sampled_from([1, 3, 8_190]),
    stock=st.integers(0, 80),
)
async def test_whoever_comes_when_the_sale_is_right(
    quantities: list[int], gaps_ms: list[int], aim_ms: int, size_max: int, stock: int
) -> None:
    clock, overrides = VirtualClock(), {**ADAPTIVE, **COMMAND_SIDE_KEYS}
    overrides |= {"batch.latency_aim_ms": aim_ms, "batch.size_max": size_max}
    store = TimedStore(clock, 0.004, sale_registry())
    settings = load_settings(environ={}, overrides=overrides)
    side = await CommandSide.open(store, sale_registry(), settings, clock)
    await clock.run(side.bus.execute(OpenSale("open", "PHONE", stock)))

    async def order(number: int, quantity: int) -> int:
        answer = await side.bus.execute(Reserve(f"{number}", "PHONE", f"b{number}", quantity))
        return 0 if isinstance(answer, Rejected) else quantity

    async def come() -> list[int]:
        orders = []
        for number, quantity in enumerate(quantities):
            await clock.sleep(gaps_ms[number % len(gaps_ms)] / 1_000)
            orders.append(asyncio.create_task(order(number, quantity)))
        return list(await asyncio.gather(*orders))

    sold = await clock.run(come())
    await clock.run(side.close())
    # First come, first served: whoever fits into what is left gets it.
    left, wanted = stock, []
    for quantity in quantities:
        wanted.append(quantity if quantity <= left else 0)
        left -= wanted[-1]
    assert sold == wanted
    report = await audit(store)
    assert report.ok
    assert (report.oversold, report.lost, report.duplicated) == (0, 0, 0)
