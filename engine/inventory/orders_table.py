"""The read model `orders`: a row per reservation, for "my orders" and "which holds are due".

`state`: `final` (sold for good, the sale has no holds), `held`, `paid`, `released`.
"""

from __future__ import annotations

from typing import Final

from engine.cqrs.event_store import Value
from engine.cqrs.query_side.projection import Projection, RecordedCommit
from engine.cqrs.query_side.read_model import Patch, Put, ReadTable, Write
from engine.inventory.events import (
    Confirmed,
    HoldExtended,
    LineReserved,
    Released,
    Reserved,
)
from engine.inventory.stock import STOCK

ORDERS_TABLE: Final = ReadTable(
    name="orders",
    key=("sku", "reservation_id"),
    texts=("sku", "reservation_id", "buyer", "state", "order_id"),
    numbers=("quantity", "held_until_us", "reserved_at_us"),
    indexes=(("buyer", "reserved_at_us"), ("state", "held_until_us")),
)

STATE: Final = ("state",)
DEADLINE: Final = ("held_until_us",)


def project_orders(commit: RecordedCommit) -> list[Write]:
    """The rows that a commit of one SKU makes or changes."""
    sku, at_us = commit.aggregate_id, commit.committed_at_us
    rows: list[tuple[Value, ...]] = []
    ended: list[tuple[Value, ...]] = []
    extended: list[tuple[Value, ...]] = []
    for event in commit.events:
        if isinstance(event, Reserved):
            until_us = event.held_until_us
            order_id = event.order_id if isinstance(event, LineReserved) else ""
            state = "held" if until_us else "final"
            place = (sku, event.command_id, event.buyer)
            rows.append((*place, state, order_id, event.quantity, until_us, at_us))
        elif isinstance(event, Confirmed):
            ended.append((sku, event.reservation_id, "paid"))
        elif isinstance(event, Released):
            ended.append((sku, event.reservation_id, "released"))
        elif isinstance(event, HoldExtended):
            extended.append((sku, event.reservation_id, event.held_until_us))
    # In this order a reservation that began and ended in one commit comes out right.
    writes: list[Write] = [Put("orders", rows)] if rows else []
    writes += [Patch("orders", DEADLINE, extended)] if extended else []
    writes += [Patch("orders", STATE, ended)] if ended else []
    return writes


ORDERS: Final = Projection("orders", frozenset({STOCK.name}), (ORDERS_TABLE,), project_orders)
