"""What a simulated sale may look like: the settings of a workload and their limits."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from engine.config import ENVIRONMENT_PREFIX, SEPARATOR, Settings
from engine.errors import ConfigError
from engine.inventory.commands import HOLD_SECONDS_MAX, QUANTITY_MAX, STOCK_MAX
from engine.inventory.order_messages import LINES_MAX
from loadtest.sale import ARRIVALS, Quantities, Sale, parse_quantities

ORDERS_MAX: Final = 10_000_000
"""Orders of one workload. Its columns are then 420 MB of numpy arrays."""

HELD_ORDERS_MAX: Final = 1_000_000
"""Orders of one workload with holds: each that is accepted is a task of its own until it is paid."""

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
    "hold_seconds": (0, HOLD_SECONDS_MAX),
    "pay_rate": (0, 1),
    "late_payments": (0, 1),
    "concurrency": (1, 100_000),
    "batch_size": (1, 100_000),
    "batch_delay_ms": (0, 10_000),
    "repeats": (1, 100),
    "warmup_seconds": (0, 600),
    "p99_ms_max": (0.001, 600_000),
    "confirm": (0, 100),
    "users": (1, 20_000),
    "spawn_rate": (0.1, 20_000),
    "rate": (0, 1_000_000),
    "list_size": (1, 10_000),
    "think_seconds": (0, 600),
    "processes": (1, 64),
}
"""Least and most of each numeric flag. `skus` ends where the engine's default residents end, those of
a batch are the bounds of the engine's own settings."""


class WorkloadSettings(Sale, frozen=True):
    """A sale whose settings can be checked."""

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
        most = HELD_ORDERS_MAX if self.hold_seconds else ORDERS_MAX
        if orders > most:
            held = " with --hold-seconds" if self.hold_seconds else ""
            raise ConfigError(
                f"--buyers times --orders-per-buyer must be at most {most:,}{held}, got {orders:,}"
            )
        self._check_life()

    def _check_life(self) -> None:
        cart = parse_quantity(self.cart_size, "cart_size", LINES_MAX)
        if not self.hold_seconds:
            asked = {
                "pay_rate": self.pay_rate != 1,
                "late_payments": bool(self.late_payments),
                "cart_size": cart.high > 1,
            }
            for name in (each for each, set_ in asked.items() if set_):
                raise ConfigError(
                    f"{flag_of(name)} needs --hold-seconds: without it every order is final"
                )
        # A thousandth of rounding: 0.7 and 0.3 are a little more than 1.
        if self.pay_rate + self.late_payments > 1.000_001:
            raise ConfigError(
                "--pay-rate and --late-payments are shares of the same buyers and must be at most "
                f"1 together, got {self.pay_rate} (1 unless given) and {self.late_payments}"
            )
        if cart.high > self.skus:
            raise ConfigError(
                f"--cart-size must be at most --skus, because a cart names each SKU once; got "
                f"{self.cart_size} of {self.skus:,}"
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


def parse_quantity(text: str, name: str = "quantity", most: int = QUANTITY_MAX) -> Quantities:
    """Read `1`, `1-3` or `1:0.7,2:0.3`, each number from 1 to `most`. Raises ConfigError."""
    try:
        return parse_quantities(text, most)
    except ValueError as error:
        raise ConfigError(f"{flag_of(name)} {error}") from None


def describe_settings(settings: Settings) -> dict[str, Any]:
    """The settings as they are published: of URLs only the kind, of secrets nothing."""
    found: dict[str, Any] = msgspec.to_builtins(settings)
    for section in ("store", "gate"):
        url = found[section]["url"]
        found[section]["url"] = f"{url.partition(':')[0]}:" if url else ""
    del found["store"]["urls"]
    if settings.store.urls:
        found["store"]["urls"] = ["mysql:"] * len(settings.store.urls)
    found["auth"] = {"mode": settings.auth.mode}
    cluster = found.pop("cluster")
    if settings.cluster.servers:
        # Where they are is nobody's business, and a URL may hold a password.
        names = ("role", "node", "prefix", "credentials", "monitor_urls")
        found["cluster"] = {
            **{name: value for name, value in cluster.items() if name not in names},
            "servers": len(settings.cluster.servers),
        }
    return found


def flatten_config(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings of a result by dotted key."""
    found: dict[str, Any] = {}
    for name, value in config.items():
        if isinstance(value, Mapping):
            found |= flatten_config(value, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = value
    return found


def refuse_cluster(settings: Settings) -> None:
    """Raises ConfigError for settings that would have a simulation sell in a running cluster."""
    if settings.cluster.servers:
        raise ConfigError(
            "cluster.servers names brokers, and this would own partitions of their cluster; to load a "
            "cluster use: seckill loadtest --host URL-OF-A-GATEWAY"
        )


def as_environment(settings: Mapping[str, object]) -> dict[str, str]:
    """Settings by dotted key, as the environment of a process has them."""
    return {
        f"{ENVIRONMENT_PREFIX}{key.replace('.', SEPARATOR).upper()}": (
            ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
        )
        for key, value in settings.items()
    }
