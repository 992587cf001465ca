"""Due holds are given back also when those that are due longest cannot be."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import cast

import pytest

from engine.cqrs.event_store import Value
from engine.cqrs.messages import Command, Outcome, Rejected
from engine.cqrs.partitioning import partition_of
from engine.cqrs.query_side.read_model import ReadStore, Select
from engine.errors import (
    AggregateHalted,
    DeadlineExceeded,
    EngineClosed,
    OutcomeUnknown,
    Overloaded,
    PartitionLost,
    SeckillError,
    StoreUnavailable,
)
from engine.inventory.commands import Release
from engine.inventory.events import Released
from engine.inventory.hold_expiry import (
    HOLDS_AT_ONCE,
    LEFT_ALONE_SECONDS,
    LOOK_SECONDS,
    HoldExpiry,
)
from engine.inventory.order_messages import CancelOrder, OrderCancelled
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
    for seconds in (LOOK_SECONDS, LEFT_ALONE_SECONDS + LOOK_SECONDS, LOOK_SECONDS):
        await settle()
        clock.advance(seconds)
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


DEAD, LIVE = (next(f"s{n}" for n in range(99) if partition_of(f"s{n}", 2) == p) for p in (0, 1))
"""SKUs of two partitions, the first of which does not work."""


class HalfDead:
    """Executes what goes to one of two partitions; the other one answers with an error."""

    def __init__(self, holds: DueHolds, error: SeckillError, *, is_raised: bool = False) -> None:
        self.holds = holds
        self.error = error
        self.is_raised = is_raised
        self.is_dead, self.is_slow = True, False
        self.answers = asyncio.Event()
        self.tries = 0
        self.cancelled: list[str] = []

    async def execute_many(self, commands: Sequence[Command]) -> list[Outcome]:
        found: list[Outcome] = []
        is_hit = False
        for each in commands:
            if self.is_dead and partition_of(each.aggregate_id, 2) == 0:
                is_hit = True
                found.append(self.error)
            elif isinstance(each, CancelOrder):
                self.cancelled.append(each.aggregate_id)
                found.append((OrderCancelled(each.id, expired=True, lines=()),))
            else:
                found += await self.holds.execute_many([each])
        self.tries += is_hit
        if is_hit and self.is_slow:
            await self.answers.wait()
        if is_hit and self.is_raised:
            raise self.error
        return found


@pytest.mark.parametrize(
    "error",
    [
        PartitionLost("nobody owns it"),
        OutcomeUnknown("x"),
        DeadlineExceeded("late"),
        StoreUnavailable("gone"),
    ],
    ids=lambda each: type(each).__name__,
)
async def test_a_partition_that_does_not_work_keeps_no_hold_of_another_and_is_tried_again_later(
    error: SeckillError,
) -> None:
    # The dead one's are due longest, and fill more than a page.
    holds = DueHolds([DEAD] * 25 + [LIVE] * 3)
    half = HalfDead(holds, error)
    clock = VirtualClock()
    expiry = HoldExpiry(cast(ReadStore, holds), half.execute_many, clock, 10, partitions=2)
    assert await expiry.give_back_due() == 3
    assert set(holds.given_back) == {f"{LIVE}-{n}" for n in (25, 26, 27)}
    assert half.tries == 1
    # The next looks do not wait for it, also when it is tried again.
    clock.advance(LOOK_SECONDS)
    await expiry.give_back_due()
    assert half.tries == 1
    half.is_slow = True
    clock.advance(LEFT_ALONE_SECONDS)
    for _ in range(2):
        await expiry.give_back_due()
        await settle()
    assert half.tries == 2
    half.answers.set()
    await settle()
    half.is_dead = False
    clock.advance(LEFT_ALONE_SECONDS)
    await expiry.give_back_due()
    await settle()
    assert f"{DEAD}-0" in holds.given_back
    # It is waited for again, as all others are.
    assert await expiry.give_back_due() == 10


async def test_partitions_that_do_not_work_are_named_once_each(
    caplog: pytest.LogCaptureFixture,
) -> None:
    holds = DueHolds([DEAD, LIVE])

    async def execute_many(commands: Sequence[Command]) -> list[Outcome]:
        return [PartitionLost(f"nobody owns that of {each.aggregate_id}") for each in commands]

    clock = VirtualClock()
    expiry = HoldExpiry(cast(ReadStore, holds), execute_many, clock, partitions=2)
    running = asyncio.create_task(expiry.run())
    for _ in range(4):
        await settle()
        clock.advance(LEFT_ALONE_SECONDS)
    assert len(caplog.records) == 2
    running.cancel()


async def test_what_is_tried_beside_the_looks_ends_with_them() -> None:
    holds = DueHolds([DEAD])
    half = HalfDead(holds, PartitionLost("nobody owns it"))
    clock = VirtualClock()
    expiry = HoldExpiry(cast(ReadStore, holds), half.execute_many, clock, partitions=2)
    running = asyncio.create_task(expiry.run())
    await settle()
    half.is_slow = True
    clock.advance(LEFT_ALONE_SECONDS)
    await settle()
    assert half.tries == 2
    running.cancel()
    await settle()
    assert not [each for each in asyncio.all_tasks() if each.get_name().startswith("holds-of")]


async def test_a_list_that_a_full_partition_refuses_is_no_list_of_another() -> None:
    holds = DueHolds([DEAD, LIVE])
    half = HalfDead(holds, Overloaded(9, 9, 0.1), is_raised=True)
    clock = VirtualClock()
    expiry = HoldExpiry(cast(ReadStore, holds), half.execute_many, clock, 10, partitions=2)
    assert await expiry.give_back_due() == 1
    half.is_dead = False
    # It has room a moment later.
    clock.advance(LOOK_SECONDS)
    await expiry.give_back_due()
    assert f"{DEAD}-0" in holds.given_back


async def test_orders_over_several_lines_end_beside_those_of_a_partition_that_does_not_work() -> (
    None
):
    holds = DueHolds([LIVE] * 4)
    for row, order in zip(holds.rows, (DEAD, LIVE, DEAD, LIVE), strict=True):
        row["order_id"] = order
    half = HalfDead(holds, PartitionLost("nobody owns it"))
    expiry = HoldExpiry(cast(ReadStore, holds), half.execute_many, VirtualClock(), 10, partitions=2)
    assert await expiry.give_back_due() == 1
    assert half.cancelled == [LIVE]
    assert holds.given_back == []
