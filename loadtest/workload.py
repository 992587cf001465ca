"""Who orders what and when: the orders of a simulated sale, from a seed.

    workload = generate(WorkloadSettings(buyers=10_000, stock=500, seed=7))
    for number, at_seconds, repeat, order in workload: ...

The columns are numpy arrays; orders are made one by one as they are sent, so that ten million of
them fit in memory.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import Any, Final, Literal, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from engine.inventory.commands import Reserve
from engine.inventory.order_messages import Line, PlaceOrder
from loadtest.settings import Quantities, WorkloadSettings, parse_quantity

Order: TypeAlias = Reserve | PlaceOrder
"""Of one SKU, or of several."""

Sending: TypeAlias = tuple[int, float, bool, Order]
"""(order number from 0, seconds from the start, is it a repeat, the command): one thing to send."""

Numbers: TypeAlias = npt.NDArray[np.int64]
Seconds: TypeAlias = npt.NDArray[np.float64]

CHUNK_ROWS: Final = 8_192
"""Rows turned into Python numbers at a time: fast like a list, without ten million of them."""

Plan: TypeAlias = Literal["pay", "pay_late", "leave"]
PLANS: Final[tuple[Plan, ...]] = ("pay", "pay_late", "leave")

REPEAT_GAP_SHARE: Final = 0.1
"""A repeat is sent within this share of all orders after its first sending."""


class Workload(Protocol):
    """What the simulation sends. Iterating gives `rows` sendings, `at_seconds` never falling.

    `orders` counts different orders, `rows` also their repeats; `timed` tells whether `at_seconds`
    means something. `origin` names the workload: another one has another `origin`.
    """

    @property
    def skus(self) -> Sequence[str]: ...
    @property
    def stock(self) -> int: ...
    @property
    def limit_per_buyer(self) -> int: ...
    @property
    def hold_seconds(self) -> int: ...
    @property
    def orders(self) -> int: ...
    @property
    def rows(self) -> int: ...
    @property
    def timed(self) -> bool: ...
    @property
    def origin(self) -> str: ...
    @property
    def seed(self) -> int | None: ...
    def plan_of(self, number: int) -> tuple[Plan, float]:
        """What the buyer of an accepted order does, and how quick they are, from 0 to 1."""

    def describe(self) -> dict[str, Any]:
        """The settings that made it, for run.json."""

    def __iter__(self) -> Iterator[Sending]: ...


class GeneratedWorkload:
    """A workload drawn from a seed. See `generate`."""

    def __init__(
        self,
        settings: WorkloadSettings,
        buyer: Numbers,
        sku: Numbers,
        quantity: Numbers,
        row_order: Numbers,
        row_at: Seconds,
        row_repeat: npt.NDArray[np.bool_],
        cart: Numbers,
        plan: Numbers,
        pace: Seconds,
    ) -> None:
        self.settings = settings
        self.skus: Sequence[str] = [f"SKU-{n}" for n in range(1, settings.skus + 1)]
        self.stock = settings.stock
        self.limit_per_buyer = settings.limit_per_buyer
        self.hold_seconds = settings.hold_seconds
        self.orders = len(buyer)
        self.rows = len(row_order)
        self.timed = settings.arrival != "burst"
        self.seed: int | None = settings.seed
        self.origin = f"{settings.seed}-{settings.fingerprint()}"
        self._buyer, self._sku, self._quantity = buyer, sku, quantity
        self._row_order, self._row_at, self._row_repeat = row_order, row_at, row_repeat
        self._cart, self._plan, self._pace = cart, plan, pace

    def plan_of(self, number: int) -> tuple[Plan, float]:
        return PLANS[self._plan[number]], float(self._pace[number])

    def describe(self) -> dict[str, Any]:
        settings: dict[str, Any] = {
            name: getattr(self.settings, name) for name in self.settings.__struct_fields__
        }
        if not self.timed:
            del settings["seconds"]
        return settings

    def __iter__(self) -> Iterator[Sending]:
        seed = self.settings.seed
        for start in range(0, self.rows, CHUNK_ROWS):
            chunk = slice(start, start + CHUNK_ROWS)
            order = self._row_order[chunk]
            for number, at, repeat, buyer, sku, quantity, cart in zip(
                order.tolist(),
                self._row_at[chunk].tolist(),
                self._row_repeat[chunk].tolist(),
                self._buyer[order].tolist(),
                self._sku[order].tolist(),
                self._quantity[order].tolist(),
                self._cart[order].tolist(),
                strict=True,
            ):
                id_, who = f"{seed}-{number:x}", f"buyer-{buyer}"
                if cart == 1:
                    yield number, at, repeat, Reserve(id_, self.skus[sku], who, quantity)
                else:
                    lines = tuple(Line(each, quantity) for each in self._fill(number, sku, cart))
                    yield number, at, repeat, PlaceOrder(id_, id_, who, lines)

    def _fill(self, number: int, sku: int, cart: int) -> list[str]:
        """The SKUs of a cart: the drawn one and others, the same whenever it is asked for."""
        rng = random.Random(f"{self.origin}-{number}")
        others = rng.sample(range(len(self.skus) - 1), cart - 1)
        return [
            self.skus[each] for each in (sku, *((sku + 1 + n) % len(self.skus) for n in others))
        ]


def generate(settings: WorkloadSettings) -> GeneratedWorkload:
    """Draw the orders of a sale. Raises ConfigError.

    Every column has a random stream of its own: changing the quantities, say, leaves buyers, SKUs
    and times as they were.
    """
    settings.check()
    streams = np.random.SeedSequence(settings.seed).spawn(7)
    buyer_rng, sku_rng, quantity_rng, time_rng, repeat_rng, cart_rng, plan_rng = map(
        np.random.default_rng, streams
    )
    orders = settings.buyers * settings.orders_per_buyer
    buyer = buyer_rng.permutation(orders) % settings.buyers + 1
    sku = _draw_skus(settings, orders, sku_rng)
    quantity = _draw_quantities(parse_quantity(settings.quantity), orders, quantity_rng)
    at = _draw_times(settings, orders, time_rng)
    row_order, row_at, row_repeat = _add_repeats(settings.duplicates, at, repeat_rng)
    rows = (row_order, row_at, row_repeat)
    cart = _draw_quantities(parse_quantity(settings.cart_size), orders, cart_rng)
    plan, pace = _draw_plans(settings, orders, plan_rng)
    return GeneratedWorkload(settings, buyer, sku, quantity, *rows, cart, plan, pace)


def _draw_skus(settings: WorkloadSettings, orders: int, rng: np.random.Generator) -> Numbers:
    weight = np.arange(1, settings.skus + 1, dtype=np.float64) ** -settings.popularity
    return rng.choice(settings.skus, orders, p=weight / weight.sum())


def _draw_quantities(wanted: Quantities, orders: int, rng: np.random.Generator) -> Numbers:
    if not wanted.weights:
        return rng.integers(wanted.low, wanted.high, orders, endpoint=True)
    values, weights = zip(*wanted.weights, strict=True)
    chances = np.array(weights) / sum(weights)
    return rng.choice(np.array(values, dtype=np.int64), orders, p=chances)


def _draw_plans(
    settings: WorkloadSettings, orders: int, rng: np.random.Generator
) -> tuple[Numbers, Seconds]:
    """Number in PLANS and pace of every order's buyer."""
    bounds = [settings.pay_rate, settings.pay_rate + settings.late_payments]
    return np.searchsorted(bounds, rng.random(orders), side="right"), rng.random(orders)


def _draw_times(settings: WorkloadSettings, orders: int, rng: np.random.Generator) -> Seconds:
    """Sorted arrival times.

    Given how many arrivals there are, those of a Poisson process are independent and uniform. A
    ramp's rate grows from zero in a straight line, so the share that came by t is (t / seconds)^2.
    """
    if settings.arrival == "burst":
        return np.zeros(orders)
    uniform = np.sort(rng.random(orders))
    shape = np.sqrt(uniform) if settings.arrival == "ramp" else uniform
    return shape * settings.seconds


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


def units_of(order: Order) -> list[tuple[str, int]]:
    """The SKUs of an order with their units."""
    if isinstance(order, Reserve):
        return [(order.aggregate_id, order.quantity)]
    return [(each.sku, each.quantity) for each in order.lines]
