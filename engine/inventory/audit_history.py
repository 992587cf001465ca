"""Compare what a client was told with what is stored."""

from __future__ import annotations

from engine.inventory.audit_report import AuditCheck
from engine.inventory.history import History, HistoryOrder


class HistoryMatch:
    """Collects the sold orders while the events are replayed, then compares them with a history.

    `lost`, `phantom` and `duplicated` count orders; see `AuditReport`.
    """

    def __init__(self, history: History) -> None:
        self._history = history
        self._found: set[str] = set()
        self._altered: dict[str, str] = {}
        self._strangers = 0
        self._present = AuditCheck("every acknowledged order is stored, as it was asked", "orders")
        self._refused = AuditCheck("no refused order is stored", "orders")
        self._failed = AuditCheck("no failed order is stored", "orders")
        self._doubtful = AuditCheck("an order in doubt is stored as asked, or not", "orders")
        self._agree = AuditCheck("all answers to one order agree", "orders")
        self.lost = self.phantom = self.duplicated = 0

    @property
    def checks(self) -> tuple[AuditCheck, ...]:
        return (self._present, self._refused, self._failed, self._doubtful, self._agree)

    def stored(self, sku: str, command_id: str, buyer: str, quantity: int) -> None:
        """Note an order of the store."""
        order = self._history.orders.get(command_id)
        if order is None:
            self._strangers += 1
        elif order.asked(sku, buyer, quantity):
            self._found.add(command_id)
        elif not order.id_was_taken:
            self._altered[command_id] = f"stored as {quantity:,} of {sku!r} for {buyer!r}"

    def compare(self) -> list[str]:
        """Fill in `checks` and return notes. Call it once, when all events are replayed."""
        doubtful = executed = reasons = 0
        for command_id, order in self._history.orders.items():
            found = command_id in self._found
            altered = self._altered.get(command_id)
            self._agree.checked += 1
            if order.contradiction:
                self._agree.fail(f"order {command_id!r} {order.contradiction}")
            reasons += order.reasons_differ
            if order.answer == "ok":
                self._acknowledged(command_id, order, found, altered)
            elif order.answer == "unknown":
                doubtful += 1
                executed += found
                self._doubtful.checked += 1
                if altered:
                    self._doubtful.fail(f"order {_asked(command_id, order)} is {altered}")
            else:
                self._absent(command_id, order, found, altered)
        notes: list[str] = []
        if doubtful:
            notes.append(
                f"{doubtful:,} orders of the history have no definite answer; "
                f"{executed:,} of them were executed"
            )
        if reasons:
            notes.append(
                f"{reasons:,} orders were refused first and answered otherwise when repeated"
            )
        if self.lost and self.lost == self._present.checked:
            notes.append(
                "not one acknowledged order is in this store; is it the history of another one?"
            )
        if self._strangers:
            notes.append(f"{self._strangers:,} stored orders are not in this history")
        if self._history.torn:
            notes.append("the history ends in half a line, which was left out")
        return notes

    def _acknowledged(
        self, command_id: str, order: HistoryOrder, found: bool, altered: str | None
    ) -> None:
        self._present.checked += 1
        if not found:
            self.lost += 1
            self._present.fail(
                f"order {_asked(command_id, order)} was acknowledged "
                f"and is {altered or 'not stored'}"
            )
        elif altered:
            self.duplicated += 1
            self._present.fail(f"order {_asked(command_id, order)} is stored, and again {altered}")

    def _absent(
        self, command_id: str, order: HistoryOrder, found: bool, altered: str | None
    ) -> None:
        check = self._refused if order.answer == "rejected" else self._failed
        check.checked += 1
        # The id of another request was refused for that reason; it is there, and rightly so.
        if altered or (found and not order.id_was_taken):
            self.phantom += 1
            told = f"was refused ({order.reason})" if order.answer == "rejected" else "failed"
            check.fail(f"order {_asked(command_id, order)} {told} and is {altered or 'stored'}")


def _asked(command_id: str, order: HistoryOrder) -> str:
    return f"{command_id!r} ({order.quantity:,} of {order.sku!r} for {order.buyer!r})"
