"""What one may ask of a SKU. Quantities are whole units; `aggregate_id` is the SKU."""

from __future__ import annotations

from engine.cqrs.messages import ID_LENGTH_MAX, Command, check_count, check_id
from engine.errors import InvalidCommand

STOCK_MAX = 1_000_000_000
"""Units of one SKU. Sums of a whole batch then stay far inside a signed 64-bit column."""

QUANTITY_MAX = 1_000_000
"""Units of one order."""

REFUSALS_MAX = 1_000_000_000_000
"""Refused orders in one count."""

HOLD_SECONDS_MAX = 30 * 24 * 3_600
"""Thirty days."""


class OpenSale(Command, frozen=True, gc=False):
    """Put `stock` units of a new SKU on sale, at most `limit_per_buyer` a buyer (0: no limit).

    A reservation is held for `hold_seconds`, then released unless it was confirmed; with 0 it is final.
    """

    stock: int
    limit_per_buyer: int = 0
    hold_seconds: int = 0

    def check(self) -> None:
        Command.check(self)
        check_count("stock", self.stock, 0, STOCK_MAX)
        check_count("limit per buyer", self.limit_per_buyer, 0, STOCK_MAX)
        check_count("hold seconds", self.hold_seconds, 0, HOLD_SECONDS_MAX)


class Reserve(Command, frozen=True, gc=False):
    """One buyer asks for `quantity` units: all of them or none."""

    buyer: str
    quantity: int = 1

    def check(self) -> None:
        # One expression, because it runs for every order; the slow path below says what is wrong.
        id_, sku, buyer, quantity = self.id, self.aggregate_id, self.buyer, self.quantity
        if not (
            type(quantity) is int
            and 1 <= quantity <= QUANTITY_MAX
            and type(buyer) is type(id_) is type(sku) is str
            and 0 < len(buyer) <= ID_LENGTH_MAX
            and 0 < len(id_) <= ID_LENGTH_MAX
            and 0 < len(sku) <= ID_LENGTH_MAX
            and buyer.isprintable()
            and id_.isprintable()
            and sku.isprintable()
            and " " not in (buyer[-1], id_[-1], sku[-1])
        ):
            Command.check(self)
            check_id("buyer", self.buyer)
            check_count("quantity", self.quantity, 1, QUANTITY_MAX)


class ReserveLine(Reserve, frozen=True, gc=False):
    """Reserve one line of an order over several SKUs; refused where reservations are final.

    It is then confirmed or released only in the name of that order, so that an order is all or
    nothing.
    """

    order_id: str = ""

    def check(self) -> None:
        Reserve.check(self)
        check_id("order id", self.order_id)


class _OfReservation(Command, frozen=True, gc=False):
    """About one reservation of the SKU: the command id of its Reserve."""

    reservation_id: str


class _EndsHold(_OfReservation, frozen=True, gc=False, kw_only=True):
    """`order_id` is that of the order it is a line of, empty when it is none."""

    order_id: str = ""

    def check(self) -> None:
        Command.check(self)
        check_id("reservation id", self.reservation_id)
        if self.order_id != "":
            check_id("order id", self.order_id)


class Confirm(_EndsHold, frozen=True, gc=False):
    """The reservation was paid."""


class Release(_EndsHold, frozen=True, gc=False):
    """Give a reservation back; with `if_due` only when its time is up."""

    if_due: bool = False

    def check(self) -> None:
        _EndsHold.check(self)
        if type(self.if_due) is not bool:
            raise InvalidCommand(f"if due must be true or false, got {self.if_due!r}")


class ExtendHold(_EndsHold, frozen=True, gc=False):
    """Give a buyer as much time again, counted from now; once."""


class Restock(Command, frozen=True, gc=False):
    """Add `quantity` units."""

    quantity: int

    def check(self) -> None:
        Command.check(self)
        check_count("quantity", self.quantity, 1, STOCK_MAX)


class Withdraw(Command, frozen=True, gc=False):
    """Take `quantity` unsold units out of the sale: all of them or none."""

    quantity: int

    def check(self) -> None:
        Command.check(self)
        check_count("quantity", self.quantity, 1, STOCK_MAX)


class PauseSale(Command, frozen=True, gc=False):
    """Stop selling until ResumeSale."""


class ResumeSale(Command, frozen=True, gc=False):
    """Go on selling after PauseSale."""


class CloseSale(Command, frozen=True, gc=False):
    """End the sale for good."""


class CountRefusals(Command, frozen=True, gc=False):
    """Note how many orders this SKU refused since the last note, by reason; at least one."""

    sold_out: int = 0
    over_limit: int = 0
    paused: int = 0
    closed: int = 0

    def check(self) -> None:
        Command.check(self)
        counts = (self.sold_out, self.over_limit, self.paused, self.closed)
        for each in counts:
            check_count("refused orders", each, 0, REFUSALS_MAX)
        if not any(counts):
            raise InvalidCommand("refused orders must be counted for one reason at least")
