"""An order that never had all its lines is refused, however it ended."""

from __future__ import annotations

from engine.cqrs.messages import Event
from engine.inventory.order import Order, evolve, initial
from engine.inventory.order_messages import (
    Line,
    OrderCancelled,
    OrderFinished,
    OrderPlaced,
    OrderReserved,
)

LINES = (Line("PHONE"), Line("CASE"))


def after(*events: Event) -> Order:
    state = initial()
    for event in events:
        state = evolve(state, event)
    return state


def test_an_order_whose_time_is_up_before_its_lines_are_reserved_is_refused() -> None:
    order = after(
        OrderPlaced("o", "ann", LINES), OrderCancelled("c", True, LINES), OrderFinished("f")
    )
    assert (order.step, order.refused) == ("released", "cancelled")


def test_an_order_that_was_reserved_is_not_refused_whatever_becomes_of_it() -> None:
    order = after(
        OrderPlaced("o", "ann", LINES),
        OrderReserved("a", 7),
        OrderCancelled("c", True, LINES),
        OrderFinished("f"),
    )
    assert (order.step, order.refused) == ("released", "")
