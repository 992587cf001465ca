"""One SKU: every rule of the sale.

`decide` looks and answers, `evolve` applies; neither reads a clock, a database or anything else.
First come, first served: commands are decided in the order they arrived, each against the state
that the ones before it left, also inside one batch.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec

from engine.cqrs.aggregate import AggregateType
from engine.cqrs.messages import Answer, Command, Event, Rejected
from engine.inventory.commands import (
    STOCK_MAX,
    CloseSale,
    OpenSale,
    PauseSale,
    Reserve,
    Restock,
    ResumeSale,
    Withdraw,
)
from engine.inventory.events import (
    Reserved,
    Restocked,
    SaleClosed,
    SaleOpened,
    SalePaused,
    SaleResumed,
    Withdrawn,
)

Phase: TypeAlias = Literal["new", "open", "paused", "closed"]

SOLD_OUT = Rejected("sold_out", "not enough units are left")
OVER_LIMIT = Rejected("over_limit", "the buyer would hold more than the limit per buyer")
UNKNOWN_SKU = Rejected("unknown_sku", "no sale of this SKU was ever opened")
PAUSED = Rejected("paused", "the sale is paused")
CLOSED = Rejected("closed", "the sale is closed")
ALREADY_OPEN = Rejected("already_open", "a sale of this SKU was opened before")
NOT_PAUSED = Rejected("not_paused", "the sale is not paused")
NOT_ENOUGH_LEFT = Rejected("not_enough_left", "fewer unsold units are left than to be withdrawn")
NOT_SELLING = {"new": UNKNOWN_SKU, "paused": PAUSED, "closed": CLOSED}
STOCK_TOO_LARGE = Rejected("stock_too_large", f"a SKU holds at most {STOCK_MAX:,} units")


class Stock(msgspec.Struct):
    """The state of one SKU. `bought` is kept only when the sale has a limit per buyer."""

    phase: Phase = "new"
    available: int = 0
    reserved: int = 0
    limit_per_buyer: int = 0
    bought: dict[str, int] = {}


def initial() -> Stock:
    return Stock()


def decide(state: Stock, command: Command) -> Answer:
    """Answer one command. Reserve comes first and inline: it is all but a few of the commands."""
    if type(command) is Reserve:
        quantity = command.quantity
        if state.phase != "open":
            return NOT_SELLING[state.phase]
        if quantity > state.available:
            return SOLD_OUT
        limit = state.limit_per_buyer
        if limit and state.bought.get(command.buyer, 0) + quantity > limit:
            return OVER_LIMIT
        return (Reserved(command.id, command.buyer, quantity),)
    match command:
        case OpenSale(id=id, stock=stock, limit_per_buyer=limit):
            return (SaleOpened(id, stock, limit),) if state.phase == "new" else ALREADY_OPEN
        case _ if state.phase == "new":
            return UNKNOWN_SKU
        case _ if state.phase == "closed":
            return CLOSED
        case Restock(id=id, quantity=quantity):
            if state.available + state.reserved + quantity > STOCK_MAX:
                return STOCK_TOO_LARGE
            return (Restocked(id, quantity),)
        case Withdraw(id=id, quantity=quantity):
            return (Withdrawn(id, quantity),) if quantity <= state.available else NOT_ENOUGH_LEFT
        case PauseSale(id=id):
            return (SalePaused(id),) if state.phase == "open" else PAUSED
        case ResumeSale(id=id):
            return (SaleResumed(id),) if state.phase == "paused" else NOT_PAUSED
        case CloseSale(id=id):
            return (SaleClosed(id),)
    raise TypeError(f"Stock has no rule for {type(command).__name__}")


def evolve(state: Stock, event: Event) -> Stock:
    """Apply one event in place and return the state."""
    if type(event) is Reserved:
        quantity = event.quantity
        state.available -= quantity
        state.reserved += quantity
        if state.limit_per_buyer:
            bought = state.bought
            bought[event.buyer] = bought.get(event.buyer, 0) + quantity
        return state
    match event:
        case SaleOpened(stock=stock, limit_per_buyer=limit):
            state.phase, state.available, state.limit_per_buyer = "open", stock, limit
        case Restocked(quantity=quantity):
            state.available += quantity
        case Withdrawn(quantity=quantity):
            state.available -= quantity
        case SalePaused():
            state.phase = "paused"
        case SaleResumed():
            state.phase = "open"
        case SaleClosed():
            state.phase = "closed"
        case _:
            raise TypeError(f"Stock cannot apply {type(event).__name__}")
    return state


STOCK: AggregateType[Stock] = AggregateType(
    name="stock",
    state=Stock,
    commands={
        OpenSale: (SaleOpened,),
        Reserve: (Reserved,),
        Restock: (Restocked,),
        Withdraw: (Withdrawn,),
        PauseSale: (SalePaused,),
        ResumeSale: (SaleResumed,),
        CloseSale: (SaleClosed,),
    },
    initial=initial,
    decide=decide,
    evolve=evolve,
    snapshot_version=1,
)
