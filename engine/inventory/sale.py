"""The flash sale as the core sees it: its aggregate types and its inline projection."""

from __future__ import annotations

from engine.cqrs.aggregate import InlineProjection, Registry
from engine.inventory.order import ORDER
from engine.inventory.stock import STOCK
from engine.inventory.stock_table import STOCK_TABLE, stock_changes


def sale_registry() -> Registry:
    return Registry([STOCK, ORDER], [InlineProjection(STOCK.name, (STOCK_TABLE,), stock_changes)])
