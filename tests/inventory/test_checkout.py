"""An order over several SKUs whose lines are out of reach, or answered with an error."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from engine.clock import SystemClock
from engine.cqrs.messages import Answer, Command
from engine.cqrs.send import Send
from engine.errors import (
    AggregateHalted,
    CommandFailed,
    EngineClosed,
    OutcomeUnknown,
    PartitionLost,
    SeckillError,
    WrongExpectedVersion,
)
from engine.inventory.checkout import CHECKOUT
from engine.inventory.commands import ReserveLine
from engine.inventory.order import STILL_RESERVING, Order
from engine.inventory.order_messages import AskOrder, Line, OrderPlaced
from tests.test_queries import shop, until_step


@pytest.mark.parametrize(
    "error",
    [
        PartitionLost("nobody owns it"),
        EngineClosed("closed"),
        AggregateHalted(("stock", "PHONE"), "its events cannot be read"),
        CommandFailed("a rule raised"),
        WrongExpectedVersion(frozenset({("stock", "PHONE")})),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_an_order_whose_lines_cannot_be_reached_is_placed_and_not_said_to_have_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: SeckillError
) -> None:
    async with shop(f"sqlite:{tmp_path / 'sale.db'}") as engine:
        await engine.open_sale("PHONE", stock=5, hold_seconds=60)
        real = engine.execute

        async def out_of_reach(command: Command, *, timeout_ms: int | None = None) -> Answer:
            if isinstance(command, ReserveLine):
                raise error
            return await real(command, timeout_ms=timeout_ms)

        with monkeypatch.context() as patch:
            patch.setattr(engine, "execute", out_of_reach)
            with pytest.raises(OutcomeUnknown):
                await engine.place_order("o-1", buyer="ann", lines={"PHONE": 1}, timeout_ms=1_000)
        # It goes on by itself, and who asks again is told.
        await until_step(engine, "o-1", "awaiting_payment")
        order = await engine.place_order("o-1", buyer="ann", lines={"PHONE": 1})
        assert isinstance(order, Order)
        assert order.step == "awaiting_payment"


async def test_nothing_is_sent_any_more_when_a_reaction_fails() -> None:
    """A line that is reserved after the others were given back would be held for nobody."""
    ended: list[str] = []

    async def execute(command: Command) -> Answer:
        if isinstance(command, AskOrder):
            return STILL_RESERVING
        if command.aggregate_id == "A":
            raise PartitionLost("nobody owns it")
        for _ in range(50):
            await asyncio.sleep(0)
        ended.append(command.aggregate_id)
        raise PartitionLost("nobody owns it either")

    send = Send(execute, CHECKOUT.name, ("order", "o-1"), 1, SystemClock())
    lines = (Line("A"), Line("B"))
    with pytest.raises(PartitionLost, match=r"owns it$"):
        await CHECKOUT.react("o-1", OrderPlaced("o-1", "bob", lines), send)
    assert ended == ["B"]
