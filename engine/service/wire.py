"""The bodies of requests and replies. The OpenAPI document is made from these types.

Times are milliseconds since 1970 (UTC), quantities whole units. Unknown fields are refused.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal, TypeAlias

import msgspec
from msgspec import UNSET, Meta, UnsetType

from engine.cqrs.messages import ID_LENGTH_MAX
from engine.inventory.commands import HOLD_SECONDS_MAX, QUANTITY_MAX, STOCK_MAX
from engine.live_stock import StockRow

LIST_ORDERS_MAX: Final = 10_000
"""Orders of one list: more gain nothing, and hold everybody of the list up longer."""

ORDER_LINES_MAX: Final = 100
"""Lines of one order over several SKUs."""

Text: TypeAlias = Annotated[str, Meta(min_length=1, max_length=ID_LENGTH_MAX)]
Units: TypeAlias = Annotated[int, Meta(ge=1, le=QUANTITY_MAX)]
StockUnits: TypeAlias = Annotated[int, Meta(ge=1, le=STOCK_MAX)]
State: TypeAlias = Literal["held", "final", "paid", "released"]


class Body(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Base of what clients send."""


class ReserveBody(Body, frozen=True):
    """One order, from the shop's backend or where nobody has to show who they are."""

    buyer: Text
    quantity: Units = 1


class TokenReserveBody(Body, frozen=True):
    """One order of a buyer whose purchase token says who that is."""

    quantity: Units = 1


class ListedOrder(Body, frozen=True, gc=False):
    """One order of a list; `id` is its command id."""

    id: str
    sku: str
    buyer: str
    quantity: int = 1


class LineBody(Body, frozen=True):
    sku: Text
    quantity: Units = 1


class PlaceOrderBody(Body, frozen=True):
    """An order over several SKUs: all of its lines or none."""

    buyer: Text
    lines: Annotated[tuple[LineBody, ...], Meta(min_length=1, max_length=ORDER_LINES_MAX)]


class OpenBody(Body, frozen=True):
    """`limit_per_buyer` 0: no limit; `hold_seconds` 0: every reservation is final."""

    stock: Annotated[int, Meta(ge=0, le=STOCK_MAX)]
    limit_per_buyer: Annotated[int, Meta(ge=0, le=STOCK_MAX)] = 0
    hold_seconds: Annotated[int, Meta(ge=0, le=HOLD_SECONDS_MAX)] = 0


class QuantityBody(Body, frozen=True):
    quantity: StockUnits


class TokenBody(Body, frozen=True):
    """Asks for a purchase token: `seconds` from now it ends."""

    buyer: Text
    sku: Text
    seconds: Annotated[int, Meta(ge=1, le=7 * 24 * 3_600)] = 900


class Reservation(msgspec.Struct, frozen=True, gc=False):
    """What a buyer has. `held_until_ms` is null unless it is held for a time."""

    id: str
    sku: str
    buyer: str
    quantity: int
    state: State
    held_until_ms: int | None = None


class ReservationRow(Reservation, frozen=True, kw_only=True, gc=False):
    """A reservation in a list. `order_id` is empty unless it is a line of an order."""

    order_id: str
    reserved_at_ms: int


class ReservationPage(msgspec.Struct, frozen=True):
    """`next` is the value of `after` for the next page, null on the last one."""

    reservations: list[ReservationRow]
    next: str | None


class ListedOutcome(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """What became of one order of a list; `status` is what it would have been answered alone."""

    id: str
    status: int
    quantity: int | UnsetType = UNSET
    held_until_ms: int | UnsetType = UNSET
    reason: str | UnsetType = UNSET
    detail: str | UnsetType = UNSET


class InDoubt(msgspec.Struct, frozen=True):
    """Not known yet: ask `link`, or send the request again with the same Idempotency-Key."""

    id: str
    link: str
    status: Literal["in_doubt"] = "in_doubt"


class CommandView(msgspec.Struct, frozen=True):
    """What became of a command. Refused ones are remembered for a while only."""

    id: str
    status: Literal["executed", "refused"]
    reservation: Reservation | None = None
    events: list[dict[str, Any]] = []
    reason: str | None = None
    detail: str | None = None


class OrderLine(msgspec.Struct, frozen=True):
    sku: str
    quantity: int


class OrderView(msgspec.Struct, frozen=True):
    """An order over several SKUs. `refused` says why it could not be had, `waiting_for` what is next."""

    id: str
    buyer: str
    step: str
    lines: list[OrderLine]
    held_until_ms: int | None
    waiting_for: str
    refused: str


class SkuPage(msgspec.Struct, frozen=True):
    """`next` is the value of `after` for the next page, null on the last one."""

    skus: list[StockRow]
    next: str | None


class StoreAbout(msgspec.Struct, frozen=True):
    kind: str
    version: str
    durability: str


class About(msgspec.Struct, frozen=True):
    """What is running. `admin_url` is null where it is not for everybody to know.

    `public_url` is empty at an engine of a cluster: buyers come to the gateways.
    """

    version: str
    store: StoreAbout
    auth: Literal["none", "token"]
    public_url: str
    admin_url: str | None


class TokenView(msgspec.Struct, frozen=True):
    token: str


class Problem(msgspec.Struct, frozen=True, omit_defaults=True):
    """RFC 9457. `reason` is the stable name; `retry_after_ms` is there when trying again helps."""

    type: str
    title: str
    status: int
    detail: str
    reason: str
    retry_after_ms: int | UnsetType = UNSET
