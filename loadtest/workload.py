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

from engine.inventory.commands import Reserve
from engine.inventory.order_messages import Line, PlaceOrder
from loadtest.draws import Columns, draw
from loadtest.settings import WorkloadSettings

Order: TypeAlias = Reserve | PlaceOrder
"""Of one SKU, or of several."""

Sending: TypeAlias = tuple[int, float, bool, Order]
"""(order number from 0, seconds from the start, is it a repeat, the command): one thing to send."""

CHUNK_ROWS: Final = 8_192
"""Rows turned into Python numbers at a time: fast like a list, without ten million of them."""

Plan: TypeAlias = Literal["pay", "pay_late", "leave"]
PLANS: Final[tuple[Plan, ...]] = ("pay", "pay_late", "leave")


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

    def __init__(self, settings: WorkloadSettings, columns: Columns) -> None:
        self.settings = settings
        self.skus: Sequence[str] = settings.sku_names()
        self.stock = settings.stock
        self.limit_per_buyer = settings.limit_per_buyer
        self.hold_seconds = settings.hold_seconds
        self.orders = len(columns.buyer)
        self.rows = len(columns.row_order)
        self.timed = settings.arrival != "burst"
        self.seed: int | None = settings.seed
        self.origin = f"{settings.seed}-{settings.fingerprint()}"
        self._columns = columns

    def plan_of(self, number: int) -> tuple[Plan, float]:
        return PLANS[self._columns.plan[number]], float(self._columns.pace[number])

    def describe(self) -> dict[str, Any]:
        settings: dict[str, Any] = {
            name: getattr(self.settings, name) for name in self.settings.__struct_fields__
        }
        if not self.timed:
            del settings["seconds"]
        return settings

    def __iter__(self) -> Iterator[Sending]:
        seed, columns = self.settings.seed, self._columns
        for start in range(0, self.rows, CHUNK_ROWS):
            chunk = slice(start, start + CHUNK_ROWS)
            order = columns.row_order[chunk]
            for number, at, repeat, buyer, sku, quantity, cart in zip(
                order.tolist(),
                columns.row_at[chunk].tolist(),
                columns.row_repeat[chunk].tolist(),
                columns.buyer[order].tolist(),
                columns.sku[order].tolist(),
                columns.quantity[order].tolist(),
                columns.cart[order].tolist(),
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
    """Draw the orders of a sale. Raises ConfigError."""
    settings.check()
    return GeneratedWorkload(settings, draw(settings))


def units_of(order: Order) -> list[tuple[str, int]]:
    """The SKUs of an order with their units."""
    if isinstance(order, Reserve):
        return [(order.aggregate_id, order.quantity)]
    return [(each.sku, each.quantity) for each in order.lines]
