"""What a simulated sale may look like, as plain values.

Imports no numpy, so that `seckill --help` can name the defaults and stay fast, and nothing of the
engine, so that a load generator that only speaks HTTP reads the same settings.
"""

from __future__ import annotations

import re
from typing import Final, Literal, TypeAlias, get_args

import msgspec

Arrival: TypeAlias = Literal["burst", "poisson", "ramp"]

ARRIVALS: Final[tuple[str, ...]] = get_args(Arrival)

SKU_PREFIX: Final = "SKU"

_RANGE = re.compile(r"(\d{1,9})(?:-(\d{1,9}))?", re.ASCII)
_WEIGHT = re.compile(r"(\d{1,9}):(\d{0,9}(?:\.\d{1,9})?)", re.ASCII)


class Quantities(msgspec.Struct, frozen=True):
    """Units of one order: uniform from `low` to `high`, or `weights` of single values."""

    low: int
    high: int
    weights: tuple[tuple[int, float], ...] = ()


class Sale(msgspec.Struct, frozen=True):
    """One simulated sale. The same settings give the same orders, to the last byte.

    Every SKU starts with `stock` units. `quantity` is `1`, `1-3` (uniform) or `1:0.7,2:0.3`
    (weights). `seconds` is how long buyers keep arriving (poisson, ramp). `popularity` is the Zipf
    exponent over the SKUs: 0 makes them equal, 1 sends SKU-1 twice as many orders as SKU-2.
    `duplicates` is the share of orders that are sent a second time, unchanged.

    With `hold_seconds` an accepted order is held: the share `pay_rate` of the buyers pays in time,
    `late_payments` pays when the time is up, the others leave. `cart_size` is how many SKUs one
    order takes, written like `quantity`; an order of several is taken whole or not at all.
    """

    seed: int = 1
    buyers: int = 10_000
    orders_per_buyer: int = 1
    skus: int = 1
    stock: int = 500
    quantity: str = "1"
    arrival: Arrival = "burst"
    seconds: float = 10.0
    popularity: float = 1.0
    duplicates: float = 0.0
    limit_per_buyer: int = 0
    hold_seconds: int = 0
    pay_rate: float = 1.0
    late_payments: float = 0.0
    cart_size: str = "1"

    def sku_names(self, prefix: str = SKU_PREFIX) -> list[str]:
        return [f"{prefix}-{n}" for n in range(1, self.skus + 1)]


def parse_quantities(text: str, most: int) -> Quantities:
    """Read `1`, `1-3` or `1:0.7,2:0.3`, each number from 1 to `most`. Raises ValueError."""
    if match := _RANGE.fullmatch(text):
        low = int(match[1])
        high = int(match[2] or low)
        if not 1 <= low <= high <= most:
            raise _bad_quantities(text, most)
        return Quantities(low, high)
    weights: dict[int, float] = {}
    for part in text.split(","):
        pair = _WEIGHT.fullmatch(part.strip())
        if pair is None or pair[2] in ("", ".") or int(pair[1]) in weights:
            raise _bad_quantities(text, most)
        weights[int(pair[1])] = float(pair[2])
    if not (1 <= min(weights) and max(weights) <= most and sum(weights.values()) > 0):
        raise _bad_quantities(text, most)
    return Quantities(min(weights), max(weights), tuple(sorted(weights.items())))


def _bad_quantities(text: str, most: int) -> ValueError:
    return ValueError(
        "must be a number (1), a range (1-3) or weights of different numbers "
        f"(1:0.7,2:0.2,5:0.1), each number from 1 to {most:,}; got {text[:40]!r}"
    )
