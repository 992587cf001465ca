"""What one may ask of an order over several SKUs, and what happened to it.

`aggregate_id` is the order's id. The events that lead to further steps carry the lines, so that
whoever reacts to one needs nothing else.
"""

from __future__ import annotations

from typing import Final

import msgspec

from engine.cqrs.messages import Command, Event, check_count, check_id
from engine.errors import InvalidCommand
from engine.inventory.commands import QUANTITY_MAX

LINES_MAX: Final = 50


class Line(msgspec.Struct, frozen=True, gc=False):
    """`quantity` units of one SKU."""

    sku: str
    quantity: int = 1


class PlaceOrder(Command, frozen=True, gc=False):
    """One buyer asks for all lines or none, each SKU in one line."""

    buyer: str
    lines: tuple[Line, ...]

    def check(self) -> None:
        Command.check(self)
        check_id("buyer", self.buyer)
        if type(self.lines) is not tuple or not 0 < len(self.lines) <= LINES_MAX:
            raise InvalidCommand(f"an order must be a tuple of 1 to {LINES_MAX} lines")
        for line in self.lines:
            if type(line) is not Line:
                raise InvalidCommand(f"a line must be a Line, got {type(line).__name__}")
            check_id("SKU", line.sku)
            check_count("quantity", line.quantity, 1, QUANTITY_MAX)
        if len({line.sku for line in self.lines}) < len(self.lines):
            raise InvalidCommand("an order must name each SKU in one line only")


class AskOrder(Command, frozen=True, gc=False):
    """Is the order still being reserved? The answer is a refusal that says so, never an event."""


class AcceptOrder(Command, frozen=True, gc=False):
    """Every line is reserved, until `held_until_us` at least. Sent by checkout."""

    held_until_us: int


class RefuseOrder(Command, frozen=True, gc=False):
    """The line of `sku` could not be reserved, for `reason`. Sent by checkout."""

    sku: str
    reason: str


class PayOrder(Command, frozen=True, gc=False):
    """The order was paid."""


class CancelOrder(Command, frozen=True, gc=False):
    """Give every line back; with `if_due` only when the time to pay is up."""

    if_due: bool = False

    def check(self) -> None:
        Command.check(self)
        if type(self.if_due) is not bool:
            raise InvalidCommand(f"if due must be true or false, got {self.if_due!r}")


class FinishOrder(Command, frozen=True, gc=False):
    """Every line is confirmed, or given back. Sent by checkout."""


class OrderPlaced(Event, frozen=True, gc=False, tag="order-placed.1"):
    buyer: str
    lines: tuple[Line, ...]


class OrderReserved(Event, frozen=True, gc=False, tag="order-reserved.1"):
    """All lines are held until `held_until_us` (microseconds since 1970 UTC) at least."""

    held_until_us: int


class OrderRefused(Event, frozen=True, gc=False, tag="order-refused.1"):
    sku: str
    reason: str


class OrderPaid(Event, frozen=True, gc=False, tag="order-paid.1"):
    lines: tuple[Line, ...]


class OrderPaidTooLate(Event, frozen=True, gc=False, tag="order-paid-too-late.1"):
    """A payment came for an order that had ended: refund it."""


class OrderCancelled(Event, frozen=True, gc=False, tag="order-cancelled.1"):
    """By the buyer, or because its time was up when `expired`."""

    expired: bool
    lines: tuple[Line, ...]


class OrderFinished(Event, frozen=True, gc=False, tag="order-finished.1"):
    """Nothing is left to do: every line is the buyer's, or given back."""
