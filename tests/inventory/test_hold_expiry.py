"""Due holds are given back also when those that are due longest cannot be."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import cast

import pytest

from engine.cqrs.event_store import Value
from engine.cqrs.messages import Command, Outcome, Rejected
from engine.cqrs.query_side.read_model import ReadStore, Select
from engine.errors import (
    AggregateHalted,
    EngineClosed,
    Overloaded,
    PartitionLost,
    SeckillError,
)
from engine.inventory.commands import Release
from engine.inventory.events import Released
from engine.inventory.hold_expiry import HOLDS_AT_ONCE, LOOK_SECONDS, HoldExpiry
from engine.testing.virtual_clock import VirtualClock, settle


class DueHolds:
    """The read model of a test: holds in the order of their deadlines, and who gives them back."""

    def __init__(self, skus: Sequence[str]) -> None:
        self.rows: list[dict[str, Value]] = [
            {"sku": sku, "reservation_id": f"{sku}-{n}", "held_until_us": n, "order_id": ""}
            for n, sku in enumerate(skus)
        ]
        self.given_back: list[str] = []

    async def select(self, query: Select) -> list[dict[str, Value]]:
        return self.rows[query.skip : query.skip + query.limit]

    async def execute_many(self, commands: Sequence[Command]) -> list[Outcome]:
        return [self._execute(each) for each in commands]

    def _execute(self, command: Command) -> Outcome:
        assert isinstance(command, Release)
        if command.aggregate_id == "FROZEN":
            # The read model has a dead letter: it still says held.
            return Rejected("already_released", "")
        if command.aggregate_id == "HALTED":
            return AggregateHalted(("stock", "HALTED"), "its row was changed")
        self.given_back.append(command.reservation_id)
        return (Released(command.id, command.reservation_id, 1, expired=True),)


@pytest.mark.parametrize("sku", ["HALTED", "FROZEN"])
async def test_a_sku_that_is_stuck_does_not_keep_the_holds_of_others(sku: str) -> None:
    holds = DueHolds([sku] * (HOLDS_AT_ONCE + 5) + ["PHONE"] * 3)
    expiry = HoldExpiry(cast(ReadStore, holds), holds.execute_many, VirtualClock())
    await expiry.give_back_due()
    assert set(holds.given_back) == {f"PHONE-{HOLDS_AT_ONCE + n}" for n in (5, 6, 7)}


async def test_one_look_sends_a_page_when_all_of_it_can_be_given_back() -> None:
    holds = DueHolds(["PHONE"] * (HOLDS_AT_ONCE + 5))
    expiry = HoldExpiry(cast(ReadStore, holds), holds.execute_many, VirtualClock())
    assert await expiry.give_back_due() == HOLDS_AT_ONCE
    assert len(holds.given_back) == HOLDS_AT_ONCE


async def test_what_is_refused_as_a_whole_is_looked_for_again_and_stops_nothing() -> None:
    holds = DueHolds(["PHONE"] * 3)
    errors: list[SeckillError] = [EngineClosed(), PartitionLost(), Overloaded(9, 9, 0.1)]

    async def execute_many(commands: Sequence[Command]) -> list[Outcome]:
        if errors:
            raise errors.pop()
        return await holds.execute_many(commands)

    clock = VirtualClock()
    expiry = HoldExpiry(cast(ReadStore, holds), execute_many, clock)
    running = asyncio.create_task(expiry.run())
    for _ in range(4):
        await settle()
        clock.advance(LOOK_SECONDS)
    await settle()
    assert len(set(holds.given_back)) == 3
    assert not running.done()
    running.cancel()


async def test_a_list_is_never_longer_than_the_queue_takes() -> None:
    holds = DueHolds(["PHONE"] * 30)
    sizes: list[int] = []

    async def execute_many(commands: Sequence[Command]) -> list[Outcome]:
        sizes.append(len(commands))
        return await holds.execute_many(commands)

    await HoldExpiry(cast(ReadStore, holds), execute_many, VirtualClock(), 10).give_back_due()
    assert sizes == [10]
