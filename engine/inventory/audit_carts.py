"""Orders over several SKUs, followed a second time for the audit: every line or none.

Nothing here is shared with `order.py`, `order_messages.py` or the codec. An order and its lines are
streams of several partitions, which are read one after the other while an engine may go on: what
one partition shows may be newer than what another one showed. So nothing is concluded from how
things stand. Every rule says instead that something seen (a line was paid) must have had a cause
that was stored before it (the order was paid). Events never go away: a cause that is missing after
everything was read once more, to the end, was never there. `Carts.judge` is therefore called
twice, with a reading in between, and only what both find counts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeAlias

import msgspec

from engine.inventory.audit_report import AuditCheck

SECOND_US = 1_000_000


class CartEvent(msgspec.Struct, tag_field="type", gc=False):
    command_id: str


class AskedLine(msgspec.Struct, gc=False):
    sku: str
    quantity: int


class Placed(CartEvent, tag="order-placed.1"):
    buyer: str
    lines: list[AskedLine]


class LinesReserved(CartEvent, tag="order-reserved.1"):
    held_until_us: int


class Refused(CartEvent, tag="order-refused.1"):
    sku: str
    reason: str


class CartPaid(CartEvent, tag="order-paid.1"):
    lines: list[AskedLine]


class CartPaidTooLate(CartEvent, tag="order-paid-too-late.1"):
    pass


class Cancelled(CartEvent, tag="order-cancelled.1"):
    expired: bool
    lines: list[AskedLine]


class Finished(CartEvent, tag="order-finished.1"):
    pass


AnyCartEvent: TypeAlias = (
    Placed | LinesReserved | Refused | CartPaid | CartPaidTooLate | Cancelled | Finished
)

# Of each event: the steps in which it may come, and the step after it.
STEPS: dict[type[CartEvent], tuple[tuple[str, ...], str]] = {
    Placed: (("new",), "reserving"),
    LinesReserved: (("reserving",), "awaiting payment"),
    Refused: (("reserving",), "releasing"),
    CartPaid: (("awaiting payment",), "confirming"),
    Cancelled: (("reserving", "awaiting payment"), "releasing"),
    Finished: (("confirming", "releasing"), ""),
    CartPaidTooLate: (("releasing", "released"), ""),
}


class CartLine:
    """A reservation in the name of an order. `ended` is "", "paid" or "released"."""

    __slots__ = ("at_us", "buyer", "ended", "quantity", "sku", "until_us")

    def __init__(self, sku: str, buyer: str, quantity: int, until_us: int, at_us: int) -> None:
        self.sku = sku
        self.buyer = buyer
        self.quantity = quantity
        self.until_us = until_us
        self.at_us = at_us
        self.ended = ""


class Cart:
    """One order: what was asked, at which step it is, which lines were reserved for it."""

    __slots__ = ("asked", "buyer", "finished_us", "lines", "sound", "step", "until_us", "was_paid")

    def __init__(self) -> None:
        self.step = "new"
        self.buyer = ""
        self.asked: dict[str, int] = {}
        self.lines: list[CartLine] = []
        self.until_us = self.finished_us = 0
        self.was_paid = False
        self.sound = True

    def take(self, event: CartEvent, at_us: int) -> Iterator[str]:
        """Go one step; yield what is wrong with that, as far as the order's own stream tells."""
        allowed, after = STEPS[type(event)]
        if self.step not in allowed:
            yield f"{type(event).__name__.lower()} while it was {self.step}"
            # Where it stands now is anybody's guess: its lines cannot be judged.
            self.sound = False
            return
        match event:
            case Placed(buyer=buyer, lines=lines):
                self.buyer, self.asked = buyer, _quantities(lines)
                if not lines or len(self.asked) < len(lines):
                    yield "placed without a line, or with two lines of one SKU"
            case LinesReserved(held_until_us=until_us):
                self.until_us = until_us
            case Refused(sku=sku):
                if sku not in self.asked:
                    yield f"refused for {sku!r}, which is none of its lines"
            case CartPaid(lines=lines) | Cancelled(lines=lines):
                self.was_paid = isinstance(event, CartPaid)
                if _quantities(lines) != self.asked or len(lines) != len(self.asked):
                    yield f"{type(event).__name__.lower()} with other lines than it was placed with"
            case Finished():
                after = "confirmed" if self.step == "confirming" else "released"
                self.finished_us = at_us
        if isinstance(event, Cancelled) and event.expired and at_us < self.until_us:
            # Without a deadline the lines were not all reserved, and the order had no time yet.
            seconds = (self.until_us - at_us) / SECOND_US
            yield f"cancelled by time, and its time was up {seconds:.3f} s later"
        self.step = after or self.step

    def judge(self, known: Callable[[str], bool]) -> Iterator[str]:
        """Yield what was seen without its cause. Lines of SKUs that are not `known` are unknown."""
        if self.step == "new":
            skus = sorted({each.sku for each in self.lines})
            if skus:
                yield f"lines of {skus} were reserved and the order was never placed"
            return
        reserved: set[str] = set()
        ended = self.step in ("releasing", "released")
        for line in self.lines:
            where = f"the line of {line.sku!r}"
            if line.sku in reserved:
                yield f"{where} was reserved twice"
            reserved.add(line.sku)
            if self.asked.get(line.sku) != line.quantity or line.buyer != self.buyer:
                yield (
                    f"{where} was reserved as {line.quantity:,} for {line.buyer!r}, and asked as "
                    f"{self.asked.get(line.sku, 0):,} for {self.buyer!r}"
                )
            if line.until_us < self.until_us:
                yield f"{where} is held for a shorter time than the order"
            # A line is held while its order goes on; it ends the way the order did.
            if line.ended == "paid" and not self.was_paid:
                yield f"{where} was paid and the order was not"
            elif line.ended == "released" and not ended:
                yield f"{where} was given back and the order had not ended"
            elif self.step == "confirmed" and not line.ended and known(line.sku):
                yield f"{where} is not paid and the order is confirmed"
            elif self.step == "released" and self._left_held(line) and known(line.sku):
                yield f"{where} is still held and the order is released"
        if self.step in ("awaiting payment", "confirming", "confirmed"):
            for sku in sorted(self.asked.keys() - reserved):
                if known(sku):
                    yield f"the line of {sku!r} was never reserved"

    def _left_held(self, line: CartLine) -> bool:
        return not line.ended and line.at_us <= self.finished_us

    def strays(self) -> int:
        """Lines that were reserved after the order had given all back, and are held.

        A second checkout, late and in another process, can leave one: it is given back when its
        time is up at the latest, by whoever gives due holds back.
        """
        if self.step != "released":
            return 0
        return sum(not line.ended and line.at_us > self.finished_us for line in self.lines)


class Carts:
    """Every order of the store, and the check that each is all or nothing."""

    def __init__(self) -> None:
        self.check = AuditCheck("every order over several SKUs is all or nothing", "orders")
        self.carts: dict[str, Cart] = {}

    def line_reserved(self, order_id: str, line: CartLine) -> None:
        self._cart(order_id).lines.append(line)

    def fold(
        self, order_id: str, first_version: int, events: Sequence[AnyCartEvent | None], at_us: int
    ) -> None:
        """Add the events of one commit, written at `at_us`; None is one that could not be read."""
        cart = self._cart(order_id)
        for version, event in enumerate(events, first_version):
            if event is None:
                cart.sound = False
            elif cart.sound:
                for wrong in cart.take(event, at_us):
                    self.check.fail(f"order {order_id!r} version {version:,}: {wrong}")

    def distrust(self, order_id: str) -> None:
        """Stop judging an order of which an event is missing."""
        self._cart(order_id).sound = False

    def judge(self, known: Callable[[str], bool]) -> set[tuple[str, str]]:
        """Return (order, what was seen without its cause); see above for what that proves."""
        return {
            (order_id, wrong)
            for order_id, cart in self.carts.items()
            if cart.sound
            for wrong in cart.judge(known)
        }

    def conclude(self, wrong: set[tuple[str, str]]) -> list[str]:
        """Fail for what was found twice; return what should be known besides."""
        self.check.checked = len(self.carts)
        for order_id, what in sorted(wrong):
            self.check.fail(f"order {order_id!r}: {what}")
        strays = sum(cart.strays() for cart in self.carts.values())
        unsound = sum(not cart.sound for cart in self.carts.values())
        notes = [f"{strays:,} lines were reserved after their order had ended"] if strays else []
        notes += [f"{unsound:,} orders could not be followed to their end"] if unsound else []
        return notes

    def _cart(self, order_id: str) -> Cart:
        cart = self.carts.get(order_id)
        if cart is None:
            cart = self.carts[order_id] = Cart()
        return cart


def _quantities(lines: list[AskedLine]) -> dict[str, int]:
    return {line.sku: line.quantity for line in lines}
