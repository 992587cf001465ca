"""The result of a run: `run.json`, one file in a folder of its own."""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias, get_args

import msgspec

from engine.cqrs.command_side.batch import CloseReason
from engine.errors import ConfigError
from loadtest.latency import Percentiles
from loadtest.machine import Machine
from loadtest.reconcile import Deltas

SCHEMA: Final = 1
RUN_FILE: Final = "run.json"
PAGE_FILE: Final = "README.md"

Kind: TypeAlias = Literal[
    "simulate",
    "strategies",
    "locust",
    "tune",
    "changing-load",
    "bench",
    "bench-http",
    "bench-cluster",
    "cluster-demo",
]
Strategy: TypeAlias = Literal[
    "group-commit", "row-lock", "select-for-update", "optimistic", "queue", "redis-lua"
]
STRATEGIES: Final[tuple[Strategy, ...]] = get_args(Strategy)


class Orders(msgspec.Struct, frozen=True):
    """What became of the orders.

    offered            orders sent, repeats included: the sum of all below but refused_overload
    accepted           different orders that were answered Reserved
    accepted_before    those of them that an earlier, interrupted run had sold already
    rejected_sold_out  different orders refused because too few units were left
    rejected_limit     different orders refused because of the limit per buyer
    rejected_other     different orders refused for another reason
    duplicate          repeats that were answered as the first time
    unknown            orders without a definite answer, also after retries
    failed             orders answered with an error, and repeats answered differently
    refused_overload   answers "overloaded, retry" on the way; one order may get several
    unsent             orders of a timetable that were due and never sent: not among those offered
    """

    offered: int
    accepted: int
    rejected_sold_out: int
    rejected_limit: int
    rejected_other: int
    refused_overload: int
    duplicate: int
    unknown: int
    failed: int
    accepted_before: int
    unsent: int = 0


class PaymentCounts(msgspec.Struct, frozen=True):
    """What became of accepted orders that were held.

    paid      orders whose payment was taken, in time or late while they were still held
    too_late  orders that had been given back when the payment came: to be refunded
    left      orders whose buyers did not pay; given back when their time was up
    unknown   payments without a definite answer, or answered with an error
    """

    paid: int
    too_late: int
    left: int
    unknown: int = 0


class Throughput(msgspec.Struct, frozen=True):
    """Rates over `seconds`, from the first order sent to the last one answered.

    `decided_per_s` counts every definite answer, `durable_per_s` the orders whose event was
    written and synced in this run before they were answered.
    """

    decided_per_s: float
    durable_per_s: float
    seconds: float


class Batches(msgspec.Struct, frozen=True):
    """How the orders were grouped: commands of one SKU in one batch, and why batches closed.

    `transactions` made batches durable: one may hold batches of several SKUs, and a batch of
    refusals and repeats alone needs none. `waited_*` is how fair the turns were: rounds with
    batches of other SKUs that went before a batch while its own SKU waited.
    """

    count: int
    size_mean: float
    size_p50: int
    size_max: int
    closed_by: dict[CloseReason, int]
    transactions: int
    # Results from before these were counted have none.
    waited_p50: int | None = None
    waited_p99: int | None = None
    waited_max: int | None = None
    by_size: dict[int, int] | None = None
    """Batches by size, each counted at an upper bound of it: a power of two, or of a running server
    the bounds of its /metrics, which are then those of `size_p50` and `size_max` as well."""


class AuditResult(msgspec.Struct, frozen=True):
    """What the audit counted; `ok` is false when anything at all was found."""

    ok: bool
    oversold: int
    lost: int
    duplicated: int
    over_limit: int
    checked_events: int
    findings: tuple[str, ...] = ()


class Second(msgspec.Struct, frozen=True):
    """One stretch of a run, `seconds` long and begun `at_seconds` after its first order.

    `decided` counts definite answers, `accepted` the orders among them that were sold, `units` what
    those took; `p50_ms` and `p99_ms` are null when nothing was answered.
    """

    at_seconds: float
    seconds: float
    decided: int
    accepted: int
    units: int
    p50_ms: float | None
    p99_ms: float | None


class Repeat(msgspec.Struct, frozen=True):
    """One of several runs with the same settings, each with a new store."""

    throughput: Throughput
    latency_ms: Percentiles
    orders: Orders
    audit: AuditResult


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """One run, or several with the same settings.

    `started_at` is ISO 8601 in UTC; `seed` is null for a recorded sale. `stopped_early` is true
    when Ctrl-C ended the run before all orders were sent. `timeline` is how it went, second by
    second, where that was noted. Of several runs every one is in `repeats`, and the other fields
    are those of the run with the median throughput.
    """

    schema: int = SCHEMA
    kind: Kind
    started_at: str
    commit: str
    seed: int | None
    machine: Machine
    config: dict[str, Any]
    strategy: Strategy
    orders: Orders
    throughput: Throughput
    latency_ms: Percentiles
    batches: Batches
    audit: AuditResult
    stopped_early: bool
    payments: PaymentCounts | None = None
    timeline: list[Second] = []
    repeats: list[Repeat] = []


def summarise_batches(gained: Deltas) -> Batches:
    """What the engine's counters say of its batches."""
    sizes, waited = gained.batch_sizes, gained.rounds_waited
    count = sum(sizes.values())
    commands = sum(size * times for size, times in sizes.items())
    return Batches(
        count=count,
        size_mean=round(commands / count, 2) if count else 0.0,
        size_p50=_percentile(sizes, 50),
        size_max=max(sizes, default=0),
        closed_by=dict(gained.closed_by),
        transactions=gained.transactions,
        waited_p50=_percentile(waited, 50),
        waited_p99=_percentile(waited, 99),
        waited_max=max(waited, default=0),
        by_size=_by_power(sizes),
    )


def _by_power(sizes: Mapping[int, int]) -> dict[int, int]:
    found: Counter[int] = Counter()
    for size, times in sizes.items():
        found[1 << max(size - 1, 0).bit_length()] += times
    return dict(sorted(found.items()))


def _percentile(counts: Mapping[int, int], percent: int) -> int:
    """The smallest value that `percent` of the counted ones do not exceed; 0 without any."""
    total, seen = sum(counts.values()), 0
    for value in sorted(counts):
        seen += counts[value]
        if 100 * seen >= percent * total:
            return value
    return 0


def encode_run(run: msgspec.Struct) -> bytes:
    """Indented JSON with a newline at its end."""
    return msgspec.json.format(msgspec.json.encode(run), indent=2) + b"\n"


def write_run(directory: Path, run: msgspec.Struct, page: Sequence[str] = ()) -> Path:
    """Write `directory`/run.json, and the lines of `page` as README.md beside it when there are any.

    A file is written whole or not at all. Raises ConfigError when it cannot be written.
    """
    if page:
        write_whole(directory / PAGE_FILE, ("\n".join(page) + "\n").encode())
    path = directory / RUN_FILE
    write_whole(path, encode_run(run))
    return path


def write_whole(path: Path, data: bytes) -> None:
    """Replace a file at once, its folder made if need be. Raises ConfigError."""
    draft = ""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(
            dir=path.parent, prefix=f".{path.name}.", delete=False
        ) as file:
            draft = file.name
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(draft).chmod(0o644)  # A temporary file is private; a result is to be read.
        Path(draft).replace(path)
    except OSError as error:
        if draft:
            Path(draft).unlink(missing_ok=True)
        raise ConfigError(f"cannot write {path}: {error.strerror}") from None
