"""A sale is over when nothing is held, no cart waits for a partition, and all of it has been seen."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from engine.cqrs.event_store import Value
from engine.cqrs.query_side.read_model import WAITS, DeadLetter
from engine.engine import Engine
from engine.inventory.checkout import CHECKOUT
from engine.testing.virtual_clock import VirtualClock
from engine.testing.virtual_clock import settle as let_run
from loadtest.settings import WorkloadSettings
from loadtest.simulation.crowd import Crowd
from loadtest.simulation.settle import LOOK_SECONDS, SETTLE_SECONDS_MAX, settle
from loadtest.workload import generate

HOLD_SECONDS = 10
WAITING = DeadLetter(0, 7, "order", "cart-1", f"{WAITS}the partition of SKU-1 does not answer")
POISONED = DeadLetter(0, 8, "order", "cart-2", "KeyError('SKU-2')")


@dataclass
class Shop:
    """What `settle` asks of an engine; it is its own `queries` and `reader`."""

    held: int = 0
    letters: list[DeadLetter] = field(default_factory=list)
    positions: list[int] = field(default_factory=lambda: [3])
    partitions: int = 1
    stopped: bool = False

    @property
    def queries(self) -> Shop:
        return self

    reader = queries

    async def dead_letters(self, name: str) -> list[DeadLetter]:
        assert name == CHECKOUT.name
        return self.letters

    async def caught_up(self) -> None:
        """What a manager sends when it has caught up."""
        if len(self.positions) > 1:
            self.positions.pop(0)

    async def read_rows(self, _: str) -> list[dict[str, Value]]:
        return [{"sku": "SKU-1", "reserved": self.held}, {"sku": "of another sale", "reserved": 5}]

    async def read_position(self, _: int) -> int:
        return self.positions[0]


def settling(shop: Shop, clock: VirtualClock) -> asyncio.Task[None]:
    workload = generate(WorkloadSettings(hold_seconds=HOLD_SECONDS))
    assert workload.skus == ["SKU-1"]
    both: Any = shop
    return asyncio.create_task(settle(cast(Engine, both), workload, cast(Crowd, both), clock))


async def looked(task: asyncio.Task[None], clock: VirtualClock, seconds: float) -> bool:
    """Whether it is over after so many seconds."""
    await let_run()
    clock.advance(seconds)
    await let_run()
    return task.done()


async def test_it_is_over_at_once_when_nothing_is_open() -> None:
    assert await looked(settling(Shop(letters=[POISONED]), clock := VirtualClock()), clock, 0)


async def test_it_waits_for_holds() -> None:
    shop, clock = Shop(held=2), VirtualClock()
    task = settling(shop, clock)
    assert not await looked(task, clock, LOOK_SECONDS)
    shop.held = 0
    assert await looked(task, clock, LOOK_SECONDS)


async def test_it_waits_for_a_cart_that_was_laid_aside_though_nothing_is_held() -> None:
    shop, clock = Shop(letters=[POISONED, WAITING]), VirtualClock()
    task = settling(shop, clock)
    assert not await looked(task, clock, LOOK_SECONDS)
    shop.letters = [POISONED]
    assert await looked(task, clock, LOOK_SECONDS)


@pytest.mark.parametrize("shop", [Shop(held=1), Shop(letters=[WAITING])])
async def test_what_never_ends_is_left_to_the_books(shop: Shop) -> None:
    clock = VirtualClock()
    task = settling(shop, clock)
    assert not await looked(task, clock, HOLD_SECONDS + SETTLE_SECONDS_MAX - 1)
    assert await looked(task, clock, 2)


async def test_it_goes_on_until_what_was_sent_meanwhile_has_been_seen() -> None:
    shop, clock = Shop(positions=[3, 4, 5]), VirtualClock()
    assert await looked(settling(shop, clock), clock, 0)
    assert shop.positions == [5]


async def test_a_sale_that_was_stopped_waits_for_nothing() -> None:
    clock = VirtualClock()
    shop = Shop(held=1, letters=[WAITING], positions=[3, 4], stopped=True)
    assert await looked(settling(shop, clock), clock, 0)
    assert shop.positions == [3, 4]
