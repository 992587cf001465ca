"""What a sale over a cluster comes to: orders by gateway, and how long nobody was sold to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any, Final

import msgspec

from engine.inventory.audit import AuditReport
from loadtest.cluster.sale import ClusterCrowd, GatewayCounts, Sale
from loadtest.latency import Percentiles
from loadtest.machine import Machine
from loadtest.reconcile import Check
from loadtest.results import SCHEMA, AuditResult, Kind, Orders, Strategy, Throughput

RESUME_SECONDS_MAX: Final = 10.0
"""By then the partitions of a dead engine have to sell again."""


class GatewayFigures(msgspec.Struct, frozen=True, kw_only=True):
    """What buyers met at one gateway.

    offered      orders that were sent to it first
    retried      times an order came on from another gateway, after no definite answer there
    accepted     orders that it answered 201
    refused      orders that it answered 409, by reason
    unknown      orders that were given up here without a definite answer
    repeated     accepted orders that were sent once more, and told the same
    failed       wrong answers
    indefinite   answers that decided nothing: 202, 503 by reason, no reply
    """

    name: str
    offered: int
    retried: int
    accepted: int
    refused: dict[str, int]
    unknown: int
    repeated: int
    failed: int
    indefinite: dict[str, int]


class PartitionFigures(msgspec.Struct, frozen=True, kw_only=True):
    """One partition, in seconds; `until_sale_seconds` is null when nothing was sold any more.

    until_sale_seconds   from the kill to the first answer to an accepted order sent after it
    without_sale_seconds the longest time between two sales, from the kill on
    before_seconds       the same before the kill: what is usual here
    """

    partition: int
    owner: str
    killed: bool
    sales: int
    until_sale_seconds: float | None
    without_sale_seconds: float
    before_seconds: float


class TakeOver(msgspec.Struct, frozen=True, kw_only=True):
    """An engine was killed `at_seconds` after the first order.

    `resumed_seconds`: until all of its partitions sold again, null when they did not. `others_seconds`:
    the longest time without a sale on any partition of the others, from then on.
    """

    killed: str
    at_seconds: float
    resumed_seconds: float | None
    others_seconds: float
    limit_seconds: float = RESUME_SECONDS_MAX
    partitions: list[PartitionFigures]

    @property
    def in_time(self) -> bool:
        return self.resumed_seconds is not None and self.resumed_seconds <= self.limit_seconds


class Moment(msgspec.Struct, frozen=True):
    """One second of the sale: orders accepted on the killed engine's partitions, on the others, and
    refused on any."""

    at_seconds: int
    accepted_killed: int
    accepted_others: int
    refused: int = 0


class ClusterRun(msgspec.Struct, frozen=True, kw_only=True):
    """`run.json` of a sale over a cluster. `orders` sums up what `gateways` have each."""

    schema: int = SCHEMA
    kind: Kind = "cluster-demo"
    started_at: str
    commit: str
    seed: int
    machine: Machine
    config: dict[str, Any]
    strategy: Strategy = "group-commit"
    orders: Orders
    retried: int
    throughput: Throughput
    latency_ms: Percentiles
    audit: AuditResult
    take_over: TakeOver
    gateways: list[GatewayFigures]
    timeline: list[Moment]

    @property
    def ok(self) -> bool:
        """Proven, nothing lost, nothing answered wrongly, and sold again in time."""
        lost = self.audit.lost or self.orders.failed
        return self.audit.ok and not lost and self.take_over.in_time


def gateway_figures(name: str, counts: GatewayCounts) -> GatewayFigures:
    return GatewayFigures(
        name=name,
        offered=counts.first,
        retried=counts.again,
        accepted=counts.accepted,
        refused=dict(sorted(counts.refused.items())),
        unknown=counts.unknown,
        repeated=counts.repeated,
        failed=counts.failed,
        indefinite=dict(sorted(counts.open_answers.items())),
    )


def orders_of(total: GatewayCounts) -> Orders:
    sold_out, limit = total.refused["sold_out"], total.refused["over_limit"]
    overload = sum(n for kind, n in total.open_answers.items() if kind.startswith("503"))
    return Orders(
        offered=total.first + total.repeated,
        accepted=total.accepted,
        rejected_sold_out=sold_out,
        rejected_limit=limit,
        rejected_other=total.refused.total() - sold_out - limit,
        refused_overload=overload,
        duplicate=total.repeated,
        unknown=total.unknown,
        failed=total.failed,
        accepted_before=0,
    )


def throughput_of(crowd: ClusterCrowd) -> Throughput:
    seconds = max(crowd.ended - crowd.began, 1e-9)
    return Throughput(
        decided_per_s=round(len(crowd.decided_at) / seconds, 1),
        durable_per_s=round(len(crowd.sales) / seconds, 1),
        seconds=round(seconds, 6),
    )


def longest_gap(times: Sequence[float], begin: float, end: float) -> float:
    """The longest time without one of `times` (rising) between `begin` and `end`, seconds."""
    inside = [each for each in times if begin < each < end]
    return max(later - one for one, later in pairwise([begin, *inside, end]))


def until_sale(sales: Sequence[Sale], killed_at: float, dead_at: float) -> float | None:
    """Seconds from `killed_at` to the first answer to an order that was sent after `dead_at`.

    An older one may have been sold before, and only been told so afterwards.
    """
    told = [each.answered_at for each in sales if each.sent_at > dead_at]
    return min(told) - killed_at if told else None


def partition_figures(
    crowd: ClusterCrowd,
    places: Mapping[str, int],
    owners: Mapping[int, str],
    killed: str,
    times: tuple[float, float, float],
) -> list[PartitionFigures]:
    """Every partition that has SKUs, by number. `places` has the partition of each SKU.

    `owners` are those before the kill. `times` of the crowd's clock: when the engine was killed,
    when it was surely dead, and when the buyers were told to begin no more orders.
    """
    killed_at, dead_at, stopped_at = times
    by_partition: dict[int, list[Sale]] = {number: [] for number in sorted(set(places.values()))}
    for each in crowd.sales:
        by_partition[places[each.order.aggregate_id]].append(each)
    found = []
    for number, sales in by_partition.items():
        told = [each.answered_at for each in sales]
        until = until_sale(sales, killed_at, dead_at)
        first = min([*told, killed_at])
        found.append(
            PartitionFigures(
                partition=number,
                owner=owners.get(number, ""),
                killed=owners.get(number) == killed,
                sales=len(sales),
                until_sale_seconds=None if until is None else round(until, 3),
                without_sale_seconds=round(longest_gap(told, killed_at, stopped_at), 3),
                before_seconds=round(longest_gap(told, first, killed_at), 3),
            )
        )
    return found


def take_over_of(
    killed: str, at_seconds: float, partitions: Sequence[PartitionFigures]
) -> TakeOver:
    dead = [each.until_sale_seconds for each in partitions if each.killed]
    known = [each for each in dead if each is not None]
    return TakeOver(
        killed=killed,
        at_seconds=round(at_seconds, 3),
        resumed_seconds=max(known) if known and len(known) == len(dead) else None,
        others_seconds=max(
            (each.without_sale_seconds for each in partitions if not each.killed), default=0.0
        ),
        partitions=list(partitions),
    )


def timeline_of(crowd: ClusterCrowd, is_killed: Callable[[str], bool]) -> list[Moment]:
    """Orders second by second, by when they were answered; `is_killed` of a SKU."""
    sold = {True: Counter[int](), False: Counter[int]()}
    for each in crowd.sales:
        sold[is_killed(each.order.aggregate_id)][int(each.answered_at - crowd.began)] += 1
    # What was decided and not sold was refused.
    decided = Counter(int(each - crowd.began) for each in crowd.decided_at)
    return [
        Moment(second, killed, others, decided[second] - killed - others)
        for second in range(max(decided, default=-1) + 1)
        for killed, others in ((sold[True][second], sold[False][second]),)
    ]


def reconcile_orders(crowd: ClusterCrowd, report: AuditReport) -> Check:
    """Compare the buyers' books with the store's; an order without an answer may be in it or not."""
    sure, doubt = crowd.total.accepted, crowd.total.unknown
    return Check(
        "the buyers' accepted orders are stored, and no others",
        "orders",
        sure <= report.reservations <= sure + doubt,
        report.reservations,
        f"buyers {sure:,} and {doubt:,} without an answer, store {report.reservations:,}",
    )
