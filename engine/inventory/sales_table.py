"""The read model `sales`: what each SKU sold in each second, for charts.

A second is that of the commit. Refusals are counted in memory and written down together, so that theirs is up
to `query_side.refusals_every_seconds` late.
"""

from __future__ import annotations

from typing import Final

from engine.cqrs.query_side.projection import Projection, RecordedCommit
from engine.cqrs.query_side.read_model import ReadTable, Tally, Write
from engine.inventory.events import (
    Confirmed,
    HoldExpired,
    RefusalsCounted,
    Released,
    Reserved,
    Restocked,
    SaleOpened,
    Withdrawn,
)
from engine.inventory.stock import SECOND_US, STOCK

FIGURES: Final = (
    "orders",
    "sold",
    "paid",
    "given_back",
    "paid_too_late",
    "added",
    "withdrawn",
    "refused_sold_out",
    "refused_over_limit",
    "refused_paused",
    "refused_closed",
)
"""Orders, late payments and refused orders are counted, the others are units.

`added` is opening and restock.
"""

SALES_TABLE: Final = ReadTable(
    name="sales", key=("sku", "second"), texts=("sku",), numbers=("second", *FIGURES)
)


def project_sales(commit: RecordedCommit) -> list[Write]:
    """One row: what a commit of one SKU adds to its second."""
    refused = [0, 0, 0, 0]
    orders = sold = paid = given_back = too_late = added = withdrawn = 0
    for event in commit.events:
        if isinstance(event, Reserved):
            orders += 1
            sold += event.quantity
            continue
        match event:
            case Confirmed(quantity=quantity):
                paid += quantity
            case Released(quantity=quantity):
                given_back += quantity
            case HoldExpired():
                too_late += 1
            case RefusalsCounted():
                counts = (event.sold_out, event.over_limit, event.paused, event.closed)
                refused = [sum(each) for each in zip(refused, counts, strict=True)]
            case SaleOpened(stock=quantity) | Restocked(quantity=quantity):
                added += quantity
            case Withdrawn(quantity=quantity):
                withdrawn += quantity
    second = commit.committed_at_us // SECOND_US
    figures = (orders, sold, paid, given_back, too_late, added, withdrawn, *refused)
    if not any(figures):
        return []
    return [Tally("sales", FIGURES, [(commit.aggregate_id, second, *figures)])]


SALES: Final = Projection("sales", frozenset({STOCK.name}), (SALES_TABLE,), project_sales)
