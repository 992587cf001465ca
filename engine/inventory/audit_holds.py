"""The holds of one SKU, followed a second time for the audit: each ends once, none early."""

from __future__ import annotations

from typing import NamedTuple

from engine.inventory.audit_report import AuditCheck

SECOND_US = 1_000_000


class AuditedHold(NamedTuple):
    """A reservation that has not ended."""

    buyer: str
    quantity: int
    until_us: int
    extended: bool


class Holds:
    """What is held now and how everything else ended. Methods return what is wrong, or nothing.

    `final`, `paid` and `given_back` count units, as many as were reserved.
    """

    __slots__ = ("ended", "final", "given_back", "hold_us", "open", "paid")

    def __init__(self) -> None:
        self.hold_us = self.final = self.paid = self.given_back = 0
        self.open: dict[str, AuditedHold] = {}
        self.ended: dict[str, str] = {}

    def begin(self, name: str, buyer: str, quantity: int, until_us: int, at_us: int) -> str:
        if not until_us or not self.hold_us:
            self.final += quantity
        if bool(until_us) != bool(self.hold_us):
            return (
                "a reservation without a deadline"
                if self.hold_us
                else "a deadline nobody asked for"
            )
        if not until_us:
            return ""
        self.open[name] = AuditedHold(buyer, quantity, until_us, extended=False)
        # It was decided shortly before it was written.
        return (
            "it is held for longer than the sale allows" if until_us > at_us + self.hold_us else ""
        )

    def extend(self, name: str, until_us: int) -> str:
        hold = self.open.get(name)
        if hold is None:
            return f"extended, but it {self._what_is(name)}"
        self.open[name] = hold._replace(until_us=until_us, extended=True)
        if hold.extended:
            return "extended a second time"
        return "its time was cut" if until_us < hold.until_us else ""

    def end(self, name: str, quantity: int, how: str) -> tuple[AuditedHold | None, str]:
        """End a hold; return it, and what is wrong with that."""
        hold = self.open.pop(name, None)
        if hold is None:
            return None, f"{how}, but it {self._what_is(name)}"
        self.ended[name] = how
        if how == "paid":
            self.paid += hold.quantity
        else:
            self.given_back += hold.quantity
        if quantity != hold.quantity:
            return hold, f"{how} with {quantity:,} units of {hold.quantity:,}"
        return hold, ""

    def paid_too_late(self, name: str) -> str:
        return (
            "" if self.ended.get(name) == "released" else f"refunded, but it {self._what_is(name)}"
        )

    def _what_is(self, name: str) -> str:
        if name in self.open:
            return "is held"
        return f"was {self.ended[name]} before" if name in self.ended else "never was"


def early(check: AuditCheck, where: str, hold: AuditedHold, at_us: int) -> None:
    """Note a hold that ended by time before its time. `at_us` is when that was written."""
    if at_us < hold.until_us:
        seconds = (hold.until_us - at_us) / SECOND_US
        check.fail(f"{where}: its time was up {seconds:.3f} s later")
