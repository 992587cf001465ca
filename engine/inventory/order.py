"""An order over several SKUs: every line or none.

    reserving --all reserved--> awaiting_payment --PayOrder--> confirming --> confirmed
        |---a line refused--> releasing <--CancelOrder---|          releasing --> released

The order decides, once, between paid and given back; its lines follow (checkout.py). Nobody else
can end a reservation that is held in the name of an order, so no line goes its own way.
"""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

import msgspec

from engine.cqrs.aggregate import AggregateType
from engine.cqrs.messages import Answer, Command, Event, Rejected
from engine.inventory.order_messages import (
    AcceptOrder,
    AskOrder,
    CancelOrder,
    FinishOrder,
    Line,
    OrderCancelled,
    OrderFinished,
    OrderPaid,
    OrderPaidTooLate,
    OrderPlaced,
    OrderRefused,
    OrderReserved,
    PayOrder,
    PlaceOrder,
    RefuseOrder,
)

OrderStep: TypeAlias = Literal[
    "new", "reserving", "awaiting_payment", "confirming", "confirmed", "releasing", "released"
]

WAITING_FOR: Final[dict[str, str]] = {
    "new": "to be placed",
    "reserving": "its lines to be reserved",
    "awaiting_payment": "payment",
    "confirming": "its lines to be confirmed",
    "confirmed": "",
    "releasing": "its lines to be given back",
    "released": "",
}

UNKNOWN_ORDER = Rejected("unknown_order", "no such order was placed")
ALREADY_PLACED = Rejected("already_placed", "an order of this id was placed before")
NOT_RESERVED = Rejected("not_reserved", "the lines of the order are not reserved yet")
ALREADY_PAID = Rejected("already_paid", "the order was paid before")
ENDED = Rejected("ended", "the order was refused or cancelled before")
NOT_DUE = Rejected("not_due", "the time to pay is not up")
STILL_RESERVING = Rejected("reserving", "the lines of the order are being reserved")
OUT_OF_TURN = Rejected("out_of_turn", "the order is at another step")


class Order(msgspec.Struct):
    """The state of one order.

    `refused` says which line could not be had and why, or that it was cancelled before its lines
    were reserved; empty for an order that was, whatever became of it.
    """

    step: OrderStep = "new"
    buyer: str = ""
    lines: tuple[Line, ...] = ()
    held_until_us: int = 0
    refused: str = ""

    @property
    def waiting_for(self) -> str:
        """What has to happen next, in words; empty when nothing has to."""
        return WAITING_FOR[self.step]


def initial() -> Order:
    return Order()


def decide(state: Order, command: Command, at_us: int) -> Answer:
    step = state.step
    if isinstance(command, PlaceOrder):
        placed = OrderPlaced(command.id, command.buyer, command.lines)
        return (placed,) if step == "new" else ALREADY_PLACED
    if step == "new":
        return UNKNOWN_ORDER
    ended = step in ("releasing", "released")
    match command:
        case AskOrder():
            if ended:
                return ENDED
            return STILL_RESERVING if step == "reserving" else OUT_OF_TURN
        case AcceptOrder(id=id, held_until_us=until_us):
            if ended:
                return ENDED
            return (OrderReserved(id, until_us),) if step == "reserving" else OUT_OF_TURN
        case RefuseOrder(id=id, sku=sku, reason=reason):
            if ended:
                return ENDED
            return (OrderRefused(id, sku, reason),) if step == "reserving" else OUT_OF_TURN
        case PayOrder(id=id):
            if ended:
                return (OrderPaidTooLate(id),)
            if step == "awaiting_payment":
                return (OrderPaid(id, state.lines),)
            return NOT_RESERVED if step == "reserving" else ALREADY_PAID
        case CancelOrder(id=id, if_due=if_due):
            if ended:
                return ENDED
            if step not in ("reserving", "awaiting_payment"):
                return ALREADY_PAID
            if if_due and at_us < state.held_until_us:
                return NOT_DUE
            return (OrderCancelled(id, if_due, state.lines),)
        case FinishOrder(id=id):
            going_on = step in ("confirming", "releasing")
            return (OrderFinished(id),) if going_on else OUT_OF_TURN
    raise TypeError(f"Order has no rule for {type(command).__name__}")


def evolve(state: Order, event: Event) -> Order:
    match event:
        case OrderPlaced(buyer=buyer, lines=lines):
            state.step, state.buyer, state.lines = "reserving", buyer, lines
        case OrderReserved(held_until_us=until_us):
            state.step, state.held_until_us = "awaiting_payment", until_us
        case OrderRefused(sku=sku, reason=reason):
            state.step, state.refused = "releasing", f"{sku}: {reason}"
        case OrderPaid():
            state.step = "confirming"
        case OrderCancelled():
            if state.step == "reserving":
                # It never had all its lines: whoever asks again must not take it for accepted.
                state.refused = "cancelled"
            state.step = "releasing"
        case OrderFinished():
            state.step = "confirmed" if state.step == "confirming" else "released"
        case OrderPaidTooLate():
            pass
        case _:
            raise TypeError(f"Order cannot apply {type(event).__name__}")
    return state


ORDER: AggregateType[Order] = AggregateType(
    name="order",
    state=Order,
    commands={
        PlaceOrder: (OrderPlaced,),
        AskOrder: (),
        AcceptOrder: (OrderReserved,),
        RefuseOrder: (OrderRefused,),
        PayOrder: (OrderPaid, OrderPaidTooLate),
        CancelOrder: (OrderCancelled,),
        FinishOrder: (OrderFinished,),
    },
    initial=initial,
    decide=decide,
    evolve=evolve,
)
