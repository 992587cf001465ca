"""The inline projection of a sale: a batch of events becomes ONE guarded UPDATE of one row.

A buys 2, B buys 3, C buys 1: `available = available - 6` once, in the transaction of the events.
The row's version must be the one the batch was decided on and `available` may not fall below
zero; otherwise the transaction is rolled back and the SKU is stopped (ProjectionDiverged).
"""

from __future__ import annotations

from engine.cqrs.event_store import RowChange, Table, Value
from engine.cqrs.messages import Commit
from engine.errors import ProjectionDiverged
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

STOCK_TABLE = Table(
    name="stock",
    key="sku",
    numbers=("available", "reserved", "paid", "limit_per_buyer", "hold_seconds", "version"),
    texts=("phase",),
)


def stock_changes(commit: Commit) -> tuple[RowChange, ...]:
    """Return the one row change that brings `stock` from before `commit` to after it."""
    put = dict[str, Value]()
    opened: SaleOpened | None = None
    available = reserved = paid = 0
    for event in commit.events:
        if type(event) is Reserved:
            available -= event.quantity
            reserved += event.quantity
            continue
        match event:
            case LineReserved(quantity=quantity):
                available -= quantity
                reserved += quantity
            case Confirmed(quantity=quantity):
                reserved -= quantity
                paid += quantity
            case Released(quantity=quantity):
                reserved -= quantity
                available += quantity
            case HoldExtended() | HoldExpired() | RefusalsCounted():
                pass
            case SaleOpened():
                opened = event
                put["phase"] = "open"
            case Restocked(quantity=quantity):
                available += quantity
            case Withdrawn(quantity=quantity):
                available -= quantity
            case SalePaused():
                put["phase"] = "paused"
            case SaleResumed():
                put["phase"] = "open"
            case SaleClosed():
                put["phase"] = "closed"
            case _:
                stream = (commit.aggregate_type, commit.aggregate_id)
                raise ProjectionDiverged(stream, f"no rule for {type(event).__name__}")
    put["version"] = commit.last_version
    sums = {"available": available, "reserved": reserved, "paid": paid}
    if opened is None:
        add = {name: units for name, units in sums.items() if units}
        expect = {"version": commit.first_version - 1}
        return (RowChange("stock", commit.aggregate_id, add=add, put=put, expect=expect),)
    put |= sums
    put["available"] = opened.stock + available
    put["limit_per_buyer"] = opened.limit_per_buyer
    put["hold_seconds"] = opened.hold_seconds
    return (RowChange("stock", commit.aggregate_id, insert=True, put=put),)
