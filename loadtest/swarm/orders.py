"""Who orders what: the orders of the seeded generator, without end."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

import msgspec

from loadtest.draws import draw
from loadtest.sale import SKU_PREFIX, Sale

BLOCK_ORDERS: Final = 20_000
"""Drawn at a time, in about 5 ms; the draw holds up everybody who waits for a reply."""


class Order(NamedTuple):
    """`pays` is what the buyer does once it is held, `pace` how quick they are, from 0 to 1."""

    command_id: str
    sku: str
    buyer: str
    quantity: int
    pays: bool
    pace: float


def endless_orders(
    sale: Sale, prefix: str, place: int = 0, of: int = 1, sku_prefix: str = SKU_PREFIX
) -> Iterator[Order]:
    """Orders as `sale` says, for ever; `prefix` makes their ids those of one run.

    Of `of` processes each draws other blocks, so that no two of them send the same order. Duplicates,
    arrival times and carts of the sale are not used.
    """
    names = sale.sku_names(sku_prefix)
    population, buyers = sale.buyers, min(sale.buyers, BLOCK_ORDERS)
    sale = msgspec.structs.replace(
        sale, buyers=buyers, orders_per_buyer=max(1, BLOCK_ORDERS // buyers), duplicates=0.0
    )
    block = place
    while True:
        columns = draw(sale, block)
        rows = zip(
            columns.buyer.tolist(),
            columns.sku.tolist(),
            columns.quantity.tolist(),
            columns.plan.tolist(),
            columns.pace.tolist(),
            strict=True,
        )
        for number, (buyer, sku, quantity, plan, pace) in enumerate(rows):
            yield Order(
                f"{prefix}-{block:x}-{number:x}",
                names[sku],
                # One block after the other goes through the whole population.
                f"buyer-{(block * buyers + buyer - 1) % population + 1}",
                quantity,
                plan == 0,
                pace,
            )
        block += of
