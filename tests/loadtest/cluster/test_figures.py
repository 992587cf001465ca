"""How long nobody was sold to is measured as a buyer sees it, and a sale that is not proven is told."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec
import pytest

from engine.inventory.commands import Reserve
from engine.inventory.history import HistoryWriter
from loadtest.cluster.figures import (
    ClusterRun,
    GatewayFigures,
    PartitionFigures,
    gateway_figures,
    longest_gap,
    orders_of,
    partition_figures,
    take_over_of,
    timeline_of,
    until_sale,
)
from loadtest.cluster.sale import ClusterCrowd, GatewayCounts, Sale, SaleLoad
from tests.loadtest.test_results import RUN

PLACES = {"A": 0, "B": 1}
OWNERS = {0: "engine-1", 1: "engine-2"}
KILLED_AT, DEAD_AT, STOPPED_AT = 10.0, 10.1, 30.0


def sale(sku: str, sent_at: float, answered_at: float) -> Sale:
    return Sale(Reserve("id", sku, "buyer", 1), sent_at, answered_at)


def figures(tmp_path: Path, *sales: Sale) -> list[PartitionFigures]:
    writer = HistoryWriter(tmp_path / "history.jsonl")
    crowd = ClusterCrowd(["http://127.0.0.1:1"], SaleLoad(skus=tuple(PLACES)), writer)
    writer.close()
    crowd.sales += sales
    times = KILLED_AT, DEAD_AT, STOPPED_AT
    return partition_figures(crowd, PLACES, OWNERS, "engine-1", times)


def test_the_longest_gap_reaches_to_both_ends() -> None:
    assert longest_gap([2, 3, 5], 0, 6) == 2
    assert longest_gap([5], 0, 6) == 5
    assert longest_gap([1], 0, 6) == 5
    assert longest_gap([], 0, 6) == 6
    assert longest_gap([-1, 7], 0, 6) == 6


def test_an_order_that_was_sent_before_the_end_is_no_sale_after_it() -> None:
    before = sale("A", 10.05, 10.2)
    assert until_sale([before], KILLED_AT, DEAD_AT) is None
    assert until_sale([before, sale("A", 12, 15), sale("A", 13, 14)], KILLED_AT, DEAD_AT) == 4.0


def test_partitions_are_told_apart_by_who_owned_them(tmp_path: Path) -> None:
    dead, other = figures(
        *(tmp_path, sale("A", 8, 9), sale("A", 12, 14), sale("A", 15, 16)),
        *(sale("B", 9, 9.5), sale("B", 10.5, 11), sale("B", 12, 29)),
    )
    assert (dead.partition, dead.owner, dead.killed, dead.sales) == (0, "engine-1", True, 3)
    assert (dead.until_sale_seconds, dead.without_sale_seconds) == (4.0, 14.0)
    assert (other.owner, other.killed, other.until_sale_seconds) == ("engine-2", False, 1.0)
    assert (other.without_sale_seconds, other.before_seconds) == (18.0, 0.5)
    over = take_over_of("engine-1", 2.0, [dead, other])
    assert (over.resumed_seconds, over.others_seconds, over.in_time) == (4.0, 18.0, True)


def test_a_partition_that_sells_nothing_any_more_is_not_left_out(tmp_path: Path) -> None:
    dead, other = figures(tmp_path, sale("B", 9, 9.5))
    assert dead.killed
    assert dead.until_sale_seconds is other.until_sale_seconds is None
    over = take_over_of("engine-1", 2.0, [dead, other])
    assert over.resumed_seconds is None
    assert not over.in_time


def test_who_killed_an_engine_without_partitions_has_shown_nothing(tmp_path: Path) -> None:
    found = figures(tmp_path, sale("A", 12, 14), sale("B", 12, 14))
    alive = [msgspec.structs.replace(each, killed=False) for each in found]
    assert not take_over_of("engine-3", 2.0, alive).in_time


def a_gateway(name: str, **counted: int) -> GatewayCounts:
    counts = GatewayCounts()
    for key, value in counted.items():
        setattr(counts, key, value)
    return counts


def a_run(partitions: list[PartitionFigures], gateways: Mapping[str, GatewayCounts]) -> ClusterRun:
    total = sum(gateways.values(), GatewayCounts())
    return ClusterRun(
        started_at=RUN.started_at,
        commit=RUN.commit,
        seed=1,
        machine=RUN.machine,
        config={},
        orders=orders_of(total),
        retried=total.again,
        throughput=RUN.throughput,
        latency_ms=RUN.latency_ms,
        audit=RUN.audit,
        take_over=take_over_of("engine-1", 2.0, partitions),
        gateways=[gateway_figures(*each) for each in gateways.items()],
        timeline=[],
    )


def test_orders_are_summed_up_over_the_gateways() -> None:
    one = a_gateway("1", first=9, accepted=5, repeated=2, unknown=1)
    one.refused.update(sold_out=2, over_limit=1)
    one.open_answers.update({"503 overloaded": 4, "202": 3})
    two = a_gateway("2", first=1, again=4, accepted=1)
    total = one + two
    found = orders_of(total)
    assert (found.offered, found.accepted, found.duplicate, found.unknown) == (12, 6, 2, 1)
    assert (found.rejected_sold_out, found.rejected_limit, found.rejected_other) == (2, 1, 0)
    assert found.refused_overload == 4
    assert total.open_answers == {"503 overloaded": 4, "202": 3}
    assert (one.first, two.again) == (9, 4)


def test_orders_are_counted_second_by_second(tmp_path: Path) -> None:
    writer = HistoryWriter(tmp_path / "history.jsonl")
    crowd = ClusterCrowd(["http://127.0.0.1:1"], SaleLoad(skus=tuple(PLACES)), writer)
    writer.close()
    crowd.began = 100.0
    crowd.sales += [sale("A", 100, 100.5), sale("B", 100, 102.9)]
    crowd.decided_at += [100.5, 101.2, 101.9, 102.1, 102.9]
    found = [msgspec.structs.astuple(each) for each in timeline_of(crowd, lambda sku: sku == "A")]
    assert found == [(0, 1, 0, 0), (1, 0, 0, 2), (2, 0, 1, 1)]


@pytest.mark.parametrize("name", ["indefinite", "refused"])
def test_counts_by_reason_are_in_one_order(name: str) -> None:
    counts = GatewayCounts()
    counts.refused.update(b=1, a=2)
    counts.open_answers.update(b=1, a=2)
    found: GatewayFigures = gateway_figures("gateway-1", counts)
    assert list(getattr(found, name)) == ["a", "b"]
