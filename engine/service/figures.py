"""What the last quarter of a second sold, as one point of a chart: the difference of two snapshots."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import msgspec

from engine.cqrs.command_side.batch import CloseReason
from engine.cqrs.command_side.statistics import Statistics
from engine.live_stock import LiveStock, Phase, StockRow

K = TypeVar("K")


class LiveSku(msgspec.Struct, frozen=True):
    """A SKU on the page; `refused` counts orders since the service was started, by reason."""

    sku: str
    phase: Phase
    available: int
    reserved: int
    paid: int
    limit_per_buyer: int
    hold_seconds: int
    refused: dict[str, int]


class Latency(msgspec.Struct, frozen=True):
    p50: float
    p99: float


class Point(msgspec.Struct, frozen=True):
    """Counts of one interval; `latency_ms`, `queue_depth` and `lag_commits` as at its end."""

    id: int
    at_ms: int
    interval_ms: int
    decided: int
    accepted: int
    refused: dict[str, int]
    overloaded: int
    expired: int
    unserved: int
    unknown: int
    latency_ms: Latency | None
    batches: int
    batch_size_mean: float
    batch_size_max: int
    closed_by: dict[CloseReason, int]
    queue_depth: int
    lag_commits: int
    skus: list[LiveSku]


def live_sku(row: StockRow, live: LiveStock) -> LiveSku:
    return LiveSku(
        *(row.sku, row.phase, row.available, row.reserved, row.paid),
        *(row.limit_per_buyer, row.hold_seconds, dict(live.refused(row.sku))),
    )


def make_point(
    id_: int,
    at_ms: int,
    interval_ms: int,
    before: Statistics,
    now: Statistics,
    lag_commits: int,
    skus: list[LiveSku],
) -> Point:
    """The point between two snapshots."""
    refused = _more(now.rejected, before.rejected)
    sizes = _more(now.batch_sizes, before.batch_sizes)
    batches = sum(sizes.values())
    commands = sum(size * count for size, count in sizes.items())
    accepted = now.accepted - before.accepted
    return Point(
        id=id_,
        at_ms=at_ms,
        interval_ms=interval_ms,
        decided=accepted + sum(refused.values()),
        accepted=accepted,
        refused=refused,
        overloaded=now.overloaded - before.overloaded,
        expired=now.expired - before.expired,
        unserved=now.unserved - before.unserved,
        unknown=now.unknown - before.unknown,
        latency_ms=_latency(_more(now.latencies_us, before.latencies_us)),
        batches=batches,
        batch_size_mean=round(commands / batches, 1) if batches else 0.0,
        batch_size_max=max(sizes, default=0),
        closed_by=_more(now.closed_by, before.closed_by),
        queue_depth=now.queue_depth,
        lag_commits=lag_commits,
        skus=skus,
    )


def is_quiet(point: Point) -> bool:
    """Nothing happened in it."""
    told = point.overloaded or point.expired or point.unserved or point.unknown
    return not (point.batches or told or point.skus)


def quantile(bounds: Mapping[int, int], q: float) -> int:
    """The smallest bound that at least a part `q` of the counts do not exceed."""
    wanted = q * sum(bounds.values())
    seen = 0
    for bound, count in sorted(bounds.items()):
        seen += count
        if seen >= wanted:
            return bound
    return 0


def _latency(counts: Mapping[int, int]) -> Latency | None:
    if not counts:
        return None
    p50, p99 = (round(quantile(counts, q) / 1_000, 3) for q in (0.5, 0.99))
    return Latency(p50, p99)


def _more(now: Mapping[K, int], before: Mapping[K, int]) -> dict[K, int]:
    return {key: more for key, count in now.items() if (more := count - before.get(key, 0))}
