"""One SKU: every rule of the sale.

`decide` looks and answers, `evolve` applies; neither reads a clock, a database or anything else.
First come, first served: commands are decided in the order they arrived, each against the state
that the ones before it left, also inside one batch.

    reserved --Confirm--> paid
        |----Release----> released, and for sale again

A reservation ends once. Its time may be up long before it is released (late), never after (early): a
payment that finds it still held is in time, one that finds it released is told HoldExpired.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec

from engine.cqrs.aggregate import AggregateType
from engine.cqrs.messages import Answer, Command, Event, Rejected
from engine.inventory.commands import (
    STOCK_MAX,
    CloseSale,
    Confirm,
    CountRefusals,
    ExtendHold,
    OpenSale,
    PauseSale,
    Release,
    Reserve,
    ReserveLine,
    Restock,
    ResumeSale,
    Withdraw,
)
from engine.inventory.events import (
    Confirmed,
    HoldExpired,
    HoldExtended,
    LineReserved,
    RefusalsCounted,
    Released,
    Reserved,
    Restocked,
    SaleClosed,
    SaleOpened,
    SalePaused,
    SaleResumed,
    Withdrawn,
)

Phase: TypeAlias = Literal["new", "open", "paused", "closed"]

SECOND_US = 1_000_000

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
NO_HOLDS = Rejected("no_holds", "reservations of this sale are final")
UNKNOWN_RESERVATION = Rejected("unknown_reservation", "this SKU has no such reservation")
ALREADY_PAID = Rejected("already_paid", "the reservation was paid before")
ALREADY_RELEASED = Rejected("already_released", "the reservation was given back before")
ALREADY_EXTENDED = Rejected("already_extended", "a hold is extended once at most")
BELONGS_TO_ORDER = Rejected(
    "belongs_to_order", "the reservation is a line of an order; confirm or cancel that order"
)
NOT_DUE = Rejected("not_due", "the time of the reservation is not up")


class Hold(msgspec.Struct, frozen=True, gc=False):
    """A reservation that was neither paid nor given back yet."""

    buyer: str
    quantity: int
    until_us: int
    extended: bool = False
    order_id: str = ""


class Standing(msgspec.Struct, frozen=True):
    """What a reservation is now. `held_until_us` counts while it is held; 0 is for good."""

    state: Literal["held", "paid", "released"]
    held_until_us: int = 0


class Stock(msgspec.Struct):
    """The state of one SKU.

    `reserved` counts the units of reservations that were not paid, `paid` those that were. Reservations
    are known one by one only when they are held for a time, `bought` only with a limit per buyer.
    """

    phase: Phase = "new"
    available: int = 0
    reserved: int = 0
    paid: int = 0
    limit_per_buyer: int = 0
    hold_us: int = 0
    bought: dict[str, int] = {}
    held: dict[str, Hold] = {}
    paid_ids: set[str] = set()
    released_ids: set[str] = set()


def initial() -> Stock:
    return Stock()


def decide(state: Stock, command: Command, at_us: int) -> Answer:
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
        if state.hold_us:
            return (Reserved(command.id, command.buyer, quantity, at_us + state.hold_us),)
        return (Reserved(command.id, command.buyer, quantity),)
    match command:
        case ReserveLine():
            return _decide_line(state, command, at_us)
        case OpenSale(id=id, stock=stock, limit_per_buyer=limit, hold_seconds=seconds):
            opened = SaleOpened(id, stock, limit, seconds)
            return (opened,) if state.phase == "new" else ALREADY_OPEN
        case _ if state.phase == "new":
            return UNKNOWN_SKU
        # Whoever has reserved may pay or give back, also when nothing more is sold.
        case Confirm() | Release() | ExtendHold():
            return _decide_hold(state, command, at_us)
        case CountRefusals(id=id, sold_out=sold_out, over_limit=over_limit):
            return (RefusalsCounted(id, sold_out, over_limit, command.paused, command.closed),)
        case _ if state.phase == "closed":
            return CLOSED
        case Restock(id=id, quantity=quantity):
            if state.available + state.reserved + state.paid + quantity > STOCK_MAX:
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


def _decide_line(state: Stock, command: ReserveLine, at_us: int) -> Answer:
    """A line is decided like any order, and can be given back."""
    plain = Reserve(command.id, command.aggregate_id, command.buyer, command.quantity)
    answer = decide(state, plain, at_us)
    if isinstance(answer, Rejected):
        return answer
    if not state.hold_us:
        return NO_HOLDS
    until_us = at_us + state.hold_us
    return (
        LineReserved(
            command.id, command.buyer, command.quantity, until_us, order_id=command.order_id
        ),
    )


def _decide_hold(state: Stock, command: Confirm | Release | ExtendHold, at_us: int) -> Answer:
    name = command.reservation_id
    hold = state.held.get(name)
    if hold is None:
        return _decide_ended(state, command)
    if hold.order_id != command.order_id:
        return BELONGS_TO_ORDER
    match command:
        case Confirm(id=id):
            return (Confirmed(id, name, hold.quantity),)
        case Release(id=id, if_due=if_due):
            due = at_us >= hold.until_us
            return NOT_DUE if if_due and not due else (Released(id, name, hold.quantity, if_due),)
        case ExtendHold(id=id):
            if hold.extended:
                return ALREADY_EXTENDED
            # Never shorter, also when another machine's clock says that it is earlier.
            return (HoldExtended(id, name, max(hold.until_us, at_us + state.hold_us)),)


def _decide_ended(state: Stock, command: Confirm | Release | ExtendHold) -> Answer:
    """Answer about a reservation that is not held: it ended, or there never was one."""
    if not state.hold_us:
        return NO_HOLDS
    if command.reservation_id in state.paid_ids:
        return ALREADY_PAID
    if command.reservation_id not in state.released_ids:
        return UNKNOWN_RESERVATION
    if type(command) is Confirm:
        return (HoldExpired(command.id, command.reservation_id),)
    return ALREADY_RELEASED


def evolve(state: Stock, event: Event) -> Stock:
    """Apply one event in place and return the state."""
    if type(event) is Reserved:
        quantity = event.quantity
        state.available -= quantity
        state.reserved += quantity
        if state.limit_per_buyer:
            bought = state.bought
            bought[event.buyer] = bought.get(event.buyer, 0) + quantity
        if event.held_until_us:
            state.held[event.command_id] = Hold(event.buyer, quantity, event.held_until_us)
        return state
    match event:
        case LineReserved(command_id=name, buyer=buyer, quantity=quantity, held_until_us=until_us):
            evolve(state, Reserved(name, buyer, quantity, until_us))
            state.held[name] = Hold(buyer, quantity, until_us, order_id=event.order_id)
        case Confirmed(reservation_id=name, quantity=quantity):
            del state.held[name]
            state.paid_ids.add(name)
            state.reserved -= quantity
            state.paid += quantity
        case Released(reservation_id=name, quantity=quantity):
            _give_back(state, name, quantity)
        case HoldExtended(reservation_id=name, held_until_us=until_us):
            hold = state.held[name]
            state.held[name] = Hold(hold.buyer, hold.quantity, until_us, True, hold.order_id)
        case HoldExpired() | RefusalsCounted():
            pass
        case SaleOpened(stock=stock, limit_per_buyer=limit, hold_seconds=seconds):
            state.phase, state.available, state.limit_per_buyer = "open", stock, limit
            state.hold_us = seconds * SECOND_US
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


def _give_back(state: Stock, reservation_id: str, quantity: int) -> None:
    hold = state.held.pop(reservation_id)
    state.released_ids.add(reservation_id)
    state.reserved -= quantity
    state.available += quantity
    if state.limit_per_buyer:
        left = state.bought[hold.buyer] - quantity
        if left:
            state.bought[hold.buyer] = left
        else:
            del state.bought[hold.buyer]


def standing(state: Stock, command_id: str) -> Standing | None:
    """What became of the reservation of that command; None when it reserved nothing."""
    if (hold := state.held.get(command_id)) is not None:
        return Standing("held", hold.until_us)
    if command_id in state.paid_ids:
        return Standing("paid")
    return Standing("released") if command_id in state.released_ids else None


STOCK: AggregateType[Stock] = AggregateType(
    name="stock",
    state=Stock,
    commands={
        OpenSale: (SaleOpened,),
        Reserve: (Reserved,),
        ReserveLine: (LineReserved,),
        Confirm: (Confirmed, HoldExpired),
        Release: (Released,),
        ExtendHold: (HoldExtended,),
        Restock: (Restocked,),
        Withdraw: (Withdrawn,),
        PauseSale: (SalePaused,),
        ResumeSale: (SaleResumed,),
        CloseSale: (SaleClosed,),
        CountRefusals: (RefusalsCounted,),
    },
    initial=initial,
    decide=decide,
    evolve=evolve,
    snapshot_version=3,
    standing=standing,
    standing_type=Standing | None,
)
