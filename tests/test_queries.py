"""Read models, holds that expire and orders over several SKUs, on a whole engine."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from engine.clock import SystemClock
from engine.config import Settings, load_settings
from engine.cqrs.messages import Answer, Command, Rejected
from engine.cqrs.send import Send
from engine.engine import Engine
from engine.errors import ConfigError, EngineClosed
from engine.inventory.audit import audit
from engine.inventory.checkout import CHECKOUT, line_id
from engine.inventory.commands import Release
from engine.inventory.events import HoldExpired, Reserved
from engine.inventory.hold_expiry import HoldExpiry
from engine.inventory.order import Order
from engine.inventory.order_messages import (
    Line,
    OrderPaid,
    OrderPaidTooLate,
    OrderPlaced,
    PlaceOrder,
)
from engine.runtime import initialise_store, open_engine


class JumpingClock(SystemClock):
    """The system's clock, whose wall a test moves."""

    def __init__(self) -> None:
        super().__init__()
        self.ahead_us = 0

    def wall_us(self) -> int:
        return super().wall_us() + self.ahead_us

    def jump(self, seconds: float) -> None:
        self.ahead_us += int(seconds * 1_000_000)


@pytest.fixture(params=["sqlite", "mysql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:{tmp_path / 'sale.db'}"
    return str(request.getfixturevalue("mariadb_url"))


def settings_for(url: str, mode: str = "async") -> Settings:
    modes = {"query_side.orders": mode, "query_side.sales": mode}
    return load_settings(None, {"store.url": url, **modes}, {})


@asynccontextmanager
async def shop(
    url: str, mode: str = "async", clock: SystemClock | None = None
) -> AsyncIterator[Engine]:
    settings = settings_for(url, mode)
    await initialise_store(settings)
    async with open_engine(settings, clock=clock) as engine:
        yield engine


async def buy(engine: Engine, buyer: str, sku: str = "PHONE", quantity: int = 1) -> str:
    answer = await engine.reserve(sku, buyer=buyer, quantity=quantity)
    assert isinstance(answer, Reserved)
    return answer.command_id


async def states(engine: Engine, buyer: str) -> list[str]:
    return [each.state for each in await engine.queries.reservations_of(buyer)]


async def until_step(engine: Engine, order_id: str, step: str) -> Order:
    while (order := await engine.queries.order(order_id)) is None or order.step != step:  # noqa: ASYNC110
        await asyncio.sleep(0)
    return order


async def until_available(engine: Engine, sku: str, units: int) -> None:
    while (row := await engine.stock(sku)) is None or row.available != units:  # noqa: ASYNC110
        await asyncio.sleep(0)


@pytest.mark.parametrize("mode", ["async", "inline"])
async def test_reservations_and_figures_are_found_by_buyer_and_second(url: str, mode: str) -> None:
    async with shop(url, mode) as engine:
        await engine.open_sale("PHONE", stock=10, hold_seconds=60)
        await engine.open_sale("CASE", stock=10)
        paid = await buy(engine, "ann", quantity=2)
        back = await buy(engine, "ann")
        await buy(engine, "ann", "CASE")
        await buy(engine, "bob")
        await engine.confirm("PHONE", paid)
        await engine.release("PHONE", back)
        if mode == "async":
            await engine.queries.caught_up()
        assert sorted(await states(engine, "ann")) == ["final", "paid", "released"]
        assert await states(engine, "bob") == ["held"]
        rows = await engine.queries.sales_of("PHONE")
        totals = [
            sum(column)
            for column in zip(
                *[(r.orders, r.sold, r.paid, r.given_back, r.added) for r in rows], strict=True
            )
        ]
        assert totals == [3, 4, 2, 1, 10]
        assert all(
            each.commits == 0
            for each in await engine.queries.lag()
            if each.name in ("orders", "sales")
        )


async def test_a_mode_may_change_between_two_starts(url: str) -> None:
    async with shop(url, "async") as engine:
        await engine.open_sale("PHONE", stock=10)
        await buy(engine, "ann")
    async with shop(url, "inline") as engine:
        await buy(engine, "ann")
        assert await states(engine, "ann") == ["final", "final"]
    async with shop(url, "async") as engine:
        await buy(engine, "ann")
        await engine.queries.caught_up()
        assert await states(engine, "ann") == ["final"] * 3


@pytest.mark.parametrize("mode", ["async", "inline"])
async def test_a_read_model_is_rebuilt_while_the_sale_goes_on(url: str, mode: str) -> None:
    async with shop(url, mode) as engine:
        await engine.open_sale("PHONE", stock=1_000)
        for n in range(5):
            await buy(engine, f"early-{n}")
        selling = asyncio.gather(*(buy(engine, f"late-{n}") for n in range(200)))
        await engine.queries.rebuild("orders")
        await selling
        await buy(engine, "last")
        await engine.queries.caught_up()
        for buyer in ("early-4", "late-0", "late-199", "last"):
            assert await states(engine, buyer) == ["final"]
        assert (await audit(engine.reader)).ok
        with pytest.raises(ConfigError, match="no projection 'nope'"):
            await engine.queries.rebuild("nope")


async def test_an_inline_read_model_is_whole_when_its_rebuild_returns(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with shop(url, "inline") as engine:
        await engine.open_sale("PHONE", stock=10)
        views = engine.queries._place("orders")
        promote = views.promote

        async def sell_and_promote(projection: str, generation: int) -> None:
            await buy(engine, "between")
            await promote(projection, generation)

        monkeypatch.setattr(views, "promote", sell_and_promote)
        await engine.queries.rebuild("orders")
        assert await states(engine, "between") == ["final"]


async def test_a_hold_is_given_back_when_its_time_is_up_and_not_before(url: str) -> None:
    clock = JumpingClock()
    async with shop(url, clock=clock) as engine:
        await engine.open_sale("PHONE", stock=5, hold_seconds=60)
        name = await buy(engine, "ann", quantity=5)
        clock.jump(59)
        expiry = HoldExpiry(engine.queries._place("orders"), engine.execute_many, clock)
        await engine.queries.caught_up()
        assert await expiry.give_back_due() == 0
        clock.jump(2)
        await asyncio.gather(*(expiry.give_back_due() for _ in range(3)))
        await until_available(engine, "PHONE", 5)
        assert isinstance(await engine.confirm("PHONE", name), HoldExpired)
        await buy(engine, "bob", quantity=5)
        released = [
            event
            for commit in await engine.reader.read_stream(("stock", "PHONE"), 0, 100)
            for event in [commit.events]
            if b"released.1" in event
        ]
        assert len(released) == 1
        assert (await audit(engine.reader)).ok


async def test_holds_expire_after_a_restart(url: str) -> None:
    clock = JumpingClock()
    async with shop(url, clock=clock) as engine:
        await engine.open_sale("PHONE", stock=5, hold_seconds=60)
        await buy(engine, "ann")
    clock.jump(3_600)
    async with shop(url, clock=clock) as engine:
        await until_available(engine, "PHONE", 5)


async def test_an_order_reserves_every_line_and_is_confirmed_when_paid(url: str) -> None:
    async with shop(url) as engine:
        await engine.open_sale("PHONE", stock=5, hold_seconds=60)
        await engine.open_sale("CASE", stock=5, hold_seconds=60)
        order = await engine.place_order("o-1", buyer="ann", lines={"PHONE": 1, "CASE": 2})
        assert isinstance(order, Order)
        assert (order.step, order.waiting_for) == ("awaiting_payment", "payment")
        again = await engine.place_order("o-1", buyer="ann", lines={"PHONE": 1, "CASE": 2})
        assert again == order
        line = await engine.release("PHONE", line_id("o-1", "PHONE"))
        assert isinstance(line, Rejected)
        assert line.reason == "belongs_to_order"
        assert isinstance(await engine.pay_order("o-1"), OrderPaid)
        await until_step(engine, "o-1", "confirmed")
        rows = [await engine.stock(sku) for sku in ("PHONE", "CASE")]
        assert [(row.available, row.reserved, row.paid) for row in rows if row] == [
            (4, 0, 1),
            (3, 0, 2),
        ]
        assert (await audit(engine.reader)).ok


async def test_an_order_of_which_one_line_cannot_be_had_gives_the_others_back(url: str) -> None:
    async with shop(url) as engine:
        await engine.open_sale("PHONE", stock=5, hold_seconds=60)
        await engine.open_sale("CASE", stock=1, hold_seconds=60)
        await engine.open_sale("FINAL", stock=5)
        for number, (lines, why) in enumerate(
            [
                ({"PHONE": 1, "CASE": 2}, "CASE: sold_out"),
                ({"PHONE": 1, "NONE": 1}, "NONE: unknown_sku"),
                ({"PHONE": 1, "FINAL": 1}, "FINAL: no_holds"),
            ]
        ):
            order = await engine.place_order(f"o-{number}", buyer="ann", lines=lines)
            assert isinstance(order, Order)
            assert (order.step, order.refused) == ("released", why)
            assert isinstance(await engine.pay_order(f"o-{number}"), OrderPaidTooLate)
        await engine.queries.caught_up()
        rows = [await engine.stock(sku) for sku in ("PHONE", "CASE", "FINAL")]
        assert [row.available for row in rows if row] == [5, 1, 5]
        assert (await audit(engine.reader)).ok


async def test_an_order_that_is_not_paid_in_time_or_is_cancelled_comes_back_whole(url: str) -> None:
    clock = JumpingClock()
    async with shop(url, clock=clock) as engine:
        await engine.open_sale("PHONE", stock=5, hold_seconds=60)
        await engine.open_sale("CASE", stock=5, hold_seconds=600)
        await engine.place_order("late", buyer="ann", lines={"PHONE": 1, "CASE": 1})
        await engine.place_order("off", buyer="bob", lines={"PHONE": 1, "CASE": 1})
        assert not isinstance(await engine.cancel_order("off"), Rejected)
        await until_step(engine, "off", "released")
        clock.jump(61)
        await until_step(engine, "late", "released")
        assert isinstance(await engine.pay_order("late"), OrderPaidTooLate)
        rows = [await engine.stock(sku) for sku in ("PHONE", "CASE")]
        assert [row.available for row in rows if row] == [5, 5]
        events = [
            commit.events for commit in await engine.reader.read_stream(("stock", "CASE"), 0, 100)
        ]
        # The line whose own time was not up was given back by its order, not by time.
        assert b'"expired":true' not in b"".join(events)
        assert (await audit(engine.reader)).ok


async def test_what_a_killed_process_left_undone_is_finished_by_the_next(url: str) -> None:
    """The order is placed and paid while nobody reacts, as if the process died in between."""
    settings = load_settings(
        None,
        {"store.url": url, "query_side.managers": False},
        {},
    )
    await initialise_store(settings)
    async with open_engine(settings) as engine:
        await engine.open_sale("PHONE", stock=5, hold_seconds=60)
        await engine.open_sale("CASE", stock=5, hold_seconds=60)
        await engine.place_order("paid", buyer="ann", lines={"PHONE": 1, "CASE": 1})
        await engine.pay_order("paid")
        await engine.place_order("off", buyer="ann", lines={"PHONE": 1, "CASE": 1})
        await engine.cancel_order("off")
    async with shop(url) as engine:
        await until_step(engine, "paid", "confirmed")
        await until_step(engine, "off", "released")
        await engine.queries.caught_up()
        rows = [await engine.stock(sku) for sku in ("PHONE", "CASE")]
        assert [(row.available, row.paid) for row in rows if row] == [(4, 1), (4, 1)]
    async with shop(url) as engine:
        await engine.queries.caught_up()
        assert [each.dead_letters for each in await engine.queries.lag()] == [0, 0, 0]


async def test_an_order_that_was_refused_and_is_refused_for_another_reason_ends(url: str) -> None:
    """The first process dies once the order is refused; the next one is told otherwise by the SKU."""
    settings = load_settings(None, {"store.url": url, "query_side.managers": False}, {})
    await initialise_store(settings)
    async with open_engine(settings) as engine:
        await engine.open_sale("PHONE", stock=5, hold_seconds=60)
        await engine.pause_sale("PHONE")
        placed = await engine.execute(PlaceOrder("o-1", "o-1", "ann", (Line("PHONE"),)))
        assert isinstance(placed, tuple)

        async def until_refused(command: Command) -> Answer:
            if isinstance(command, Release):
                raise EngineClosed("killed")
            return await engine.execute(command)

        send = Send(until_refused, CHECKOUT.name, ("order", "o-1"), 1, SystemClock())
        with pytest.raises(EngineClosed):
            await CHECKOUT.react("o-1", placed[0], send)
        await engine.close_sale("PHONE")
    async with shop(url) as engine:
        order = await until_step(engine, "o-1", "released")
        assert order.refused == "PHONE: paused"
        await engine.queries.caught_up()
        assert [each.dead_letters for each in await engine.queries.lag()] == [0, 0, 0]


async def test_events_that_come_again_after_a_restart_reserve_nothing_for_a_refused_order(
    url: str,
) -> None:
    """As when the checkpoint of checkout is lost: refusals are forgotten by then."""
    async with shop(url) as engine:
        await engine.open_sale("PHONE", stock=1, hold_seconds=60)
        await buy(engine, "ann")
        refused = await engine.place_order("o-1", buyer="bob", lines={"PHONE": 1})
        assert isinstance(refused, Order)
        assert refused.refused == "PHONE: sold_out"
    async with shop(url) as engine:
        await engine.restock("PHONE", quantity=1)
        before = await engine.stock("PHONE")
        send = Send(engine.execute, CHECKOUT.name, ("order", "o-1"), 1, SystemClock())
        await CHECKOUT.react("o-1", OrderPlaced("o-1", "bob", (Line("PHONE"),)), send)
        assert await engine.stock("PHONE") == before


async def test_two_checkouts_and_two_expiries_at_once_do_nothing_twice(url: str) -> None:
    clock = JumpingClock()
    async with shop(url, clock=clock) as engine:
        for sku in ("A", "B", "C"):
            await engine.open_sale(sku, stock=20, hold_seconds=60)
        # The same manager under another name has a checkpoint of its own: it reacts to every event
        # that the first one reacted to, and its commands have other ids.
        views = engine.queries._place("orders")
        query_side = engine.queries.query_side
        second = replace(CHECKOUT, name="second-checkout")
        query_side.start_manager(second, engine.execute, views)
        expiries = [HoldExpiry(views, engine.execute_many, clock) for _ in range(2)]

        async def order(n: int) -> None:
            lines = {"A": 1 + n % 2, "B": 1} if n % 3 else {"B": 2, "C": 1}
            placed = await engine.place_order(f"o{n}", buyer=f"b{n}", lines=lines)
            assert isinstance(placed, Order)
            if placed.step == "awaiting_payment" and n % 4 == 0:
                await engine.pay_order(f"o{n}")
            elif n % 4 == 1:
                await engine.cancel_order(f"o{n}")

        await asyncio.gather(*(order(n) for n in range(40)))
        await engine.queries.caught_up()
        clock.jump(61)
        await asyncio.gather(*(each.give_back_due() for each in expiries))
        bought = {"A": 0, "B": 0, "C": 0}
        for n in range(40):
            state = await engine.queries.order(f"o{n}")
            assert state is not None
            ended = await until_step(
                engine,
                f"o{n}",
                "confirmed" if state.step in ("confirming", "confirmed") else "released",
            )
            for line in ended.lines if ended.step == "confirmed" else ():
                bought[line.sku] += line.quantity
        assert sum(bought.values()) > 0
        for sku, units in bought.items():
            await until_available(engine, sku, 20 - units)
            row = await engine.stock(sku)
            assert row is not None
            assert (row.reserved, row.paid) == (0, units)
        await engine.queries.caught_up()
        assert sum(each.dead_letters for each in await engine.queries.lag()) == 0
        report = await audit(engine.reader)
        assert report.ok, report.checks
