"""What a simulated sale may look like: the settings of a workload and their limits.

Imports no numpy, so that `seckill --help` can name the limits and stay fast.
"""

from __future__ import annotations

import hashlib
import math
import re
from typing import Final, Literal, TypeAlias, get_args

import msgspec

from engine.errors import ConfigError
from engine.inventory.commands import QUANTITY_MAX, STOCK_MAX

Arrival: TypeAlias = Literal["burst", "poisson", "ramp"]

ARRIVALS: Final[tuple[str, ...]] = get_args(Arrival)

ORDERS_MAX: Final = 10_000_000
"""Orders of one workload. Its columns are then 420 MB of numpy arrays."""

LIMITS: Final[dict[str, tuple[float, float]]] = {
    "seed": (0, 2**63 - 1),
    "buyers": (1, ORDERS_MAX),
    "orders_per_buyer": (1, 1_000),
    "skus": (1, 10_000),
    "stock": (0, STOCK_MAX),
    "limit_per_buyer": (0, STOCK_MAX),
    "seconds": (0.001, 86_400),
    "popularity": (0, 10),
    "duplicates": (0, 1),
    "concurrency": (1, 100_000),
    "batch_size": (1, 100_000),
    "batch_delay_ms": (0, 10_000),
    "repeats": (1, 100),
}
"""Least and most of each numeric flag. `skus` ends where the engine's default residents end, those of
a batch are the bounds of the engine's own settings."""

_RANGE = re.compile(r"(\d{1,9})(?:-(\d{1,9}))?", re.ASCII)
_WEIGHT = re.compile(r"(\d{1,9}):(\d{0,9}(?:\.\d{1,9})?)", re.ASCII)


class Quantities(msgspec.Struct, frozen=True):
    """Units of one order: uniform from `low` to `high`, or `weights` of single values."""

    low: int
    high: int
    weights: tuple[tuple[int, float], ...] = ()


class WorkloadSettings(msgspec.Struct, frozen=True):
    """One simulated sale. The same settings give the same orders, to the last byte.

    Every SKU starts with `stock` units. `quantity` is `1`, `1-3` (uniform) or `1:0.7,2:0.3`
    (weights). `seconds` is how long buyers keep arriving (poisson, ramp). `popularity` is the Zipf
    exponent over the SKUs: 0 makes them equal, 1 sends SKU-1 twice as many orders as SKU-2.
    `duplicates` is the share of orders that are sent a second time, unchanged.
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

    def check(self) -> None:
        """Raise ConfigError naming the flag, its value and what is allowed."""
        for name in LIMITS:
            if hasattr(self, name):
                check_limit(name, getattr(self, name))
        if self.arrival not in ARRIVALS:
            raise ConfigError(
                f"--arrival must be one of {', '.join(ARRIVALS)}, got {self.arrival!r}"
            )
        parse_quantity(self.quantity)
        orders = self.buyers * self.orders_per_buyer
        if orders > ORDERS_MAX:
            raise ConfigError(
                f"--buyers times --orders-per-buyer must be at most {ORDERS_MAX:,}, got {orders:,}"
            )

    def fingerprint(self) -> str:
        """Eight hexadecimal digits that differ between different workloads."""
        return hashlib.sha256(msgspec.json.encode(self)).hexdigest()[:8]


def flag_of(name: str) -> str:
    """The command line flag of a setting: `limit_per_buyer` is `--limit-per-buyer`."""
    return "--" + name.replace("_", "-")


def check_limit(name: str, value: float) -> None:
    """Raise ConfigError unless the numeric setting `name` is within its limits."""
    least, most = LIMITS[name]
    # Written so that NaN, which compares false with everything, is refused too.
    if not (math.isfinite(value) and least <= value <= most):
        raise ConfigError(f"{flag_of(name)} must be from {least:,} to {most:,}, got {value}")


def parse_quantity(text: str) -> Quantities:
    """Read `1`, `1-3` or `1:0.7,2:0.3`. Raises ConfigError."""
    if match := _RANGE.fullmatch(text):
        low = int(match[1])
        high = int(match[2] or low)
        if not 1 <= low <= high <= QUANTITY_MAX:
            raise _bad_quantity(text)
        return Quantities(low, high)
    weights: dict[int, float] = {}
    for part in text.split(","):
        pair = _WEIGHT.fullmatch(part.strip())
        if pair is None or pair[2] in ("", ".") or int(pair[1]) in weights:
            raise _bad_quantity(text)
        weights[int(pair[1])] = float(pair[2])
    if not (1 <= min(weights) and max(weights) <= QUANTITY_MAX and sum(weights.values()) > 0):
        raise _bad_quantity(text)
    return Quantities(min(weights), max(weights), tuple(sorted(weights.items())))


def _bad_quantity(text: str) -> ConfigError:
    return ConfigError(
        f"--quantity must be a number (1), a range (1-3) or weights of different numbers "
        f"(1:0.7,2:0.2,5:0.1), each number from 1 to {QUANTITY_MAX:,}; got {text[:40]!r}"
    )
