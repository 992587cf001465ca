"""Where the units of a sale went: what came in is sold, held, withdrawn or left.

Each side has a source of its own, so that the balance can fail: what came in and what was withdrawn
are sums of those events; sold, held and given back units are counted reservation by reservation,
with the quantity that was reserved; what is left is what the `stock` table says.
"""

from __future__ import annotations

from collections.abc import Mapping

from engine.cqrs.event_store import Value
from engine.inventory.audit_report import AuditCheck, Units
from engine.inventory.audit_sale import Sku


class UnitsCheck:
    """Balances one SKU after the other and adds them up."""

    def __init__(self) -> None:
        self.check = AuditCheck("every unit is sold, held, withdrawn or left", "units")
        self.total = Units()

    def balance(self, sku: Sku, row: Mapping[str, Value]) -> None:
        """Balance one SKU whose events were followed up to the version of its row."""
        left = row.get("available")
        if not isinstance(left, int):
            # The comparison of the row says so.
            return
        holds = sku.holds
        units = Units(
            added=sku.added,
            final=holds.final,
            paid=holds.paid,
            held=sum(each.quantity for each in holds.open.values()),
            withdrawn=sku.withdrawn,
            left=left,
            given_back=holds.given_back,
        )
        self.total = self.total + units
        self.check.checked += units.added
        found = units.final + units.paid + units.held + units.withdrawn + units.left
        if found != units.added:
            self.check.fail(
                f"stock {sku.name!r}: {units.added:,} units came in and {found:,} are there: "
                f"{units.final:,} sold for good, {units.paid:,} paid, {units.held:,} held, "
                f"{units.withdrawn:,} withdrawn, {units.left:,} left"
            )
