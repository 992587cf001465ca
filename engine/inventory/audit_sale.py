"""The rules of the sale, written a second time for the audit: plain sums over stored events.

Nothing here is shared with `stock.py`, `events.py` or the codec, so that a mistake there cannot
excuse itself here. Change both when the stored format or a rule changes.
"""

from __future__ import annotations

from typing import Protocol

from engine.cqrs.event_store import Value
from engine.inventory.audit_carts import CartLine, Carts
from engine.inventory.audit_holds import SECOND_US, Holds, early
from engine.inventory.audit_report import AuditCheck
from engine.inventory.audit_sale_events import (
    Added,
    AnySaleEvent,
    Extended,
    GivenBack,
    Opened,
    Paid,
    PaidTooLate,
    Paused,
    Refused,
    Removed,
    Resumed,
    Sold,
    SoldLine,
)


class SoldOrders(Protocol):
    """Takes every sold order as it was stored."""

    def stored(self, sku: str, command_id: str, buyer: str, quantity: int) -> None: ...


class SaleChecks:
    """The checks and figures of all SKUs together."""

    def __init__(self) -> None:
        self.once = AuditCheck("every accepted command left exactly one event", "events")
        self.stock = AuditCheck("nothing was oversold, at any moment", "changes of stock")
        self.phases = AuditCheck("sold only while open, and no step out of turn", "events")
        self.limits = AuditCheck("no buyer went above the limit", "orders")
        self.holds = AuditCheck("every hold ended once at most, and none before its time", "holds")
        self.table = AuditCheck("the stock table is the sum of its events", "rows")
        self.carts = Carts()
        self.notes: list[str] = []
        self.reservations = 0
        self.oversold = 0
        self.over_limit = 0


class Sku:
    """What the events of one SKU add up to.

    Once an event is missing or unreadable the sums mean nothing: from there on only command ids
    and orders are looked at, and `sound` is false.
    """

    __slots__ = (
        "added",
        "available",
        "bought",
        "command_ids",
        "holds",
        "limit",
        "lines",
        "name",
        "paid",
        "phase",
        "reserved",
        "sound",
        "withdrawn",
    )

    def __init__(self, name: str) -> None:
        self.name = name
        self.phase = "new"
        self.available = self.reserved = self.paid = self.limit = 0
        self.added = self.withdrawn = 0
        self.holds = Holds()
        self.lines: dict[str, CartLine] = {}
        self.bought: dict[str, int] = {}
        self.command_ids: set[str] = set()
        self.sound = True

    def row(self, version: int) -> dict[str, Value]:
        """Return the row that the `stock` table must hold at `version`."""
        return {
            "sku": self.name,
            "available": self.available,
            "reserved": self.reserved,
            "paid": self.paid,
            "limit_per_buyer": self.limit,
            "hold_seconds": self.holds.hold_us // SECOND_US,
            "version": version,
            "phase": self.phase,
        }

    def distrust(self, version: int, checks: SaleChecks) -> None:
        """Stop adding up: what happened at `version` is not known."""
        if self.sound:
            self.sound = False
            checks.notes.append(
                f"stock {self.name!r}: its rules and its row cannot be checked "
                f"from version {version} on"
            )

    def fold(
        self,
        first_version: int,
        events: list[AnySaleEvent | None],
        checks: SaleChecks,
        orders: SoldOrders | None,
        at_us: int,
    ) -> None:
        """Add the events of one commit, written at `at_us`; None is one that could not be read."""
        command_ids = self.command_ids
        for version, event in enumerate(events, first_version):
            if event is None:
                self.distrust(version, checks)
                continue
            command_id = event.command_id
            repeated = command_id in command_ids
            if repeated:
                checks.once.fail(f"{self._at(version)}: command {command_id!r} had its event")
            else:
                command_ids.add(command_id)
            if isinstance(event, Sold):
                if orders is not None and not repeated:
                    orders.stored(self.name, command_id, event.buyer, event.quantity)
                if self.sound:
                    self._sell(version, event, checks, at_us)
            elif not self.sound:
                continue
            elif isinstance(event, Paid | GivenBack | Extended | PaidTooLate):
                self._follow(version, event, checks, at_us)
            else:
                self._change(version, event, checks)
        checks.once.checked += len(events)

    def _sell(self, version: int, event: Sold, checks: SaleChecks, at_us: int) -> None:
        quantity = event.quantity
        checks.reservations += 1
        self.reserved += quantity
        wrong = self.holds.begin(
            event.command_id, event.buyer, quantity, event.held_until_us, at_us
        )
        if wrong:
            checks.holds.fail(f"{self._at(version)}: {wrong}")
        if isinstance(event, SoldLine):
            line = CartLine(self.name, event.buyer, quantity, event.held_until_us, at_us)
            self.lines[event.command_id] = line
            checks.carts.line_reserved(event.order_id, line)
        self._take(version, quantity, "sold", checks)
        checks.phases.checked += 1
        if self.phase != "open":
            checks.phases.fail(f"{self._at(version)}: sold while the sale was {self.phase}")
        if self.limit:
            buyer = event.buyer
            held = self.bought[buyer] = self.bought.get(buyer, 0) + quantity
            checks.limits.checked += 1
            if held > self.limit:
                checks.over_limit += 1
                checks.limits.fail(
                    f"{self._at(version)}: {buyer!r} holds {held:,} where {self.limit:,} are allowed"
                )

    def _follow(
        self,
        version: int,
        event: Paid | GivenBack | Extended | PaidTooLate,
        checks: SaleChecks,
        at_us: int,
    ) -> None:
        """One reservation goes on or ends."""
        name, wrong = event.reservation_id, ""
        match event:
            case Paid(quantity=quantity):
                hold, wrong = self.holds.end(name, quantity, "paid")
                self.reserved -= quantity
                self.paid += quantity
            case GivenBack(quantity=quantity):
                hold, wrong = self.holds.end(name, quantity, "released")
                self.reserved -= quantity
                self.available += quantity
                if hold is not None and self.limit:
                    self.bought[hold.buyer] = self.bought.get(hold.buyer, 0) - quantity
                if hold is not None and event.expired:
                    early(checks.holds, self._at(version), hold, at_us)
            case Extended(held_until_us=until_us):
                wrong = self.holds.extend(name, until_us)
            case PaidTooLate():
                wrong = self.holds.paid_too_late(name)
        if name in self.lines and (how := self.holds.ended.get(name)):
            self.lines[name].ended = how
        checks.holds.checked += 1
        if wrong:
            checks.holds.fail(f"{self._at(version)}: reservation {name!r}: {wrong}")

    def _take(self, version: int, quantity: int, verb: str, checks: SaleChecks) -> None:
        before = self.available
        self.available = before - quantity
        checks.stock.checked += 1
        if quantity > before:
            missing = min(quantity, quantity - before)
            if verb == "sold":
                checks.oversold += missing
            checks.stock.fail(
                f"{self._at(version)}: {quantity:,} {verb} where {max(0, before):,} were left"
            )

    def _change(self, version: int, event: AnySaleEvent, checks: SaleChecks) -> None:
        phase = self.phase
        in_turn = phase in ("open", "paused")
        match event:
            case Opened(stock=stock, limit_per_buyer=limit, hold_seconds=seconds):
                in_turn = phase == "new"
                self.phase, self.limit = "open", limit
                self.holds.hold_us = seconds * SECOND_US
                self.available += stock
                self.added += stock
            case Added(quantity=quantity):
                self.available += quantity
                self.added += quantity
            case Removed(quantity=quantity):
                self._take(version, quantity, "withdrawn", checks)
                self.withdrawn += quantity
            case Paused():
                in_turn = phase == "open"
                self.phase = "paused"
            case Resumed():
                in_turn = phase == "paused"
                self.phase = "open"
            case Refused():
                in_turn = phase != "new"
            case _:
                self.phase = "closed"
        checks.phases.checked += 1
        if not in_turn:
            step = type(event).__name__.lower()
            checks.phases.fail(f"{self._at(version)}: {step} while the sale was {phase}")

    def _at(self, version: int) -> str:
        return f"stock {self.name!r} version {version:,}"
