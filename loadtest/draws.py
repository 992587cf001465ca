"""Draw a sale from a seed: who wants which SKU, how many units of it, and when.

Columns of numpy arrays, each with a random stream of its own: changing the quantities, say, leaves
buyers, SKUs and times as they were. Imports nothing of the engine, so that a load generator that only
speaks HTTP draws the same orders.
"""

from __future__ import annotations

from typing import Final, TypeAlias

import msgspec
import numpy as np
import numpy.typing as npt

from loadtest.sale import Quantities, Sale, parse_quantities

Numbers: TypeAlias = npt.NDArray[np.int64]
Seconds: TypeAlias = npt.NDArray[np.float64]

REPEAT_GAP_SHARE: Final = 0.1
"""A repeat is sent within this share of all orders after its first sending."""


class Columns(msgspec.Struct, frozen=True):
    """The orders of a sale, a column each, and the rows in which they are sent.

    Of an order: the number of its `buyer` (from 1), of its `sku` (from 0), its `quantity`, how many
    SKUs are in its `cart`, which of "pay", "pay late" and "leave" (0, 1, 2) its `plan` is, and how
    quick its buyer is, `pace` from 0 to 1. Of a row: its order, when it is sent, in seconds from the
    start, and whether it is a repeat.
    """

    buyer: Numbers
    sku: Numbers
    quantity: Numbers
    cart: Numbers
    plan: Numbers
    pace: Seconds
    row_order: Numbers
    row_at: Seconds
    row_repeat: npt.NDArray[np.bool_]


def draw(sale: Sale, block: int = 0) -> Columns:
    """Draw the orders of a sale whose settings were checked.

    Each `block` is another set of orders with the same settings, for a load that has no end.
    """
    key = (block,) if block else ()
    streams = np.random.SeedSequence(sale.seed, spawn_key=key).spawn(7)
    buyer_rng, sku_rng, quantity_rng, time_rng, repeat_rng, cart_rng, plan_rng = map(
        np.random.default_rng, streams
    )
    orders = sale.buyers * sale.orders_per_buyer
    at = _draw_times(sale, orders, time_rng)
    row_order, row_at, row_repeat = _add_repeats(sale.duplicates, at, repeat_rng)
    plan, pace = _draw_plans(sale, orders, plan_rng)
    most = np.iinfo(np.int64).max
    return Columns(
        buyer=buyer_rng.permutation(orders) % sale.buyers + 1,
        sku=_draw_skus(sale, orders, sku_rng),
        quantity=_draw_quantities(parse_quantities(sale.quantity, most), orders, quantity_rng),
        cart=_draw_quantities(parse_quantities(sale.cart_size, most), orders, cart_rng),
        plan=plan,
        pace=pace,
        row_order=row_order,
        row_at=row_at,
        row_repeat=row_repeat,
    )


def _draw_skus(sale: Sale, orders: int, rng: np.random.Generator) -> Numbers:
    weight = np.arange(1, sale.skus + 1, dtype=np.float64) ** -sale.popularity
    return rng.choice(sale.skus, orders, p=weight / weight.sum())


def _draw_quantities(wanted: Quantities, orders: int, rng: np.random.Generator) -> Numbers:
    if not wanted.weights:
        return rng.integers(wanted.low, wanted.high, orders, endpoint=True)
    values, weights = zip(*wanted.weights, strict=True)
    chances = np.array(weights) / sum(weights)
    return rng.choice(np.array(values, dtype=np.int64), orders, p=chances)


def _draw_plans(sale: Sale, orders: int, rng: np.random.Generator) -> tuple[Numbers, Seconds]:
    """Number in PLANS and pace of every order's buyer."""
    bounds = [sale.pay_rate, sale.pay_rate + sale.late_payments]
    return np.searchsorted(bounds, rng.random(orders), side="right"), rng.random(orders)


def _draw_times(sale: Sale, orders: int, rng: np.random.Generator) -> Seconds:
    """Sorted arrival times.

    Given how many arrivals there are, those of a Poisson process are independent and uniform. A
    ramp's rate grows from zero in a straight line, so the share that came by t is (t / seconds)^2.
    """
    if sale.arrival == "burst":
        return np.zeros(orders)
    uniform = np.sort(rng.random(orders))
    shape = np.sqrt(uniform) if sale.arrival == "ramp" else uniform
    return shape * sale.seconds


def _add_repeats(
    share: float, at: Seconds, rng: np.random.Generator
) -> tuple[Numbers, Seconds, npt.NDArray[np.bool_]]:
    """Return order number, time and repeat flag of every row, in the order of sending."""
    orders = len(at)
    repeated = np.sort(rng.permutation(orders)[: round(share * orders)])
    gap_max = max(1, int(orders * REPEAT_GAP_SHARE))
    behind = np.minimum(repeated + rng.integers(1, gap_max + 1, len(repeated)), orders - 1)
    number = np.concatenate([np.arange(orders), repeated])
    place = np.concatenate([np.arange(orders), behind])
    is_repeat = np.concatenate([np.zeros(orders, bool), np.ones(len(repeated), bool)])
    # A repeat comes right after the order at its place; the sort is stable, originals come first.
    rows = np.argsort(place, kind="stable")
    return number[rows], at[place[rows]], is_repeat[rows]
