"""The arithmetic from measured parts to many nodes, checked by hand."""

from __future__ import annotations

from loadtest.bench_cluster.brokers import PUBLISH, BrokerRow
from loadtest.bench_cluster.programs import MARIADB, Layout
from loadtest.bench_cluster.runs import Row
from loadtest.bench_cluster.scaling import scaling
from loadtest.intervals import Interval


def exactly(value: float) -> Interval:
    return Interval(value, value, value)


def row(**cpu: float) -> Row:
    return Row(
        workload="16 SKUs",
        layout=Layout(MARIADB, 3, True),
        per_second=exactly(1),
        p50_ms=exactly(1),
        p99_ms=exactly(1),
        ratio=None,
        cpu={part: exactly(seconds) for part, seconds in cpu.items()},
        repeats=[],
        cpu_repeats=[],
    )


def published(replicas: int, commands: int, per_second: float) -> BrokerRow:
    return BrokerRow(
        what=PUBLISH,
        replicas=replicas,
        commands=commands,
        message_bytes=60 * commands,
        in_flight=64,
        messages_per_s=exactly(per_second / commands),
        commands_per_s=exactly(per_second),
        repeats=[],
    )


def test_cores_are_shared_as_the_parts_need_them() -> None:
    lists = row(gateway=1, brokers=1.5, engine=3, database=1.5)
    singles = row(gateway=5, brokers=5, engine=5, database=5)
    brokers = [published(1, 1_000, 9e9), published(3, 200, 9e9), published(3, 1_000, 2_000_000)]
    found = dict(scaling(lists, lists, singles, brokers, 2)[:7])
    # 7 seconds a million; of two cores 1.4 seconds each second are used.
    assert found["orders/s in lists"] == ["200,000", "2,000,000", "20,000,000"]
    # 3 of 7 parts of the cores, used or not.
    assert found["- cores for engine"] == ["0.9", "8.6", "85.7"]
    # Half of what one stream takes is a million a second.
    assert found["- streams of commands"] == ["1", "2", "20"]
    # 3 x 60 bytes of a command, and 68 of a reply, of a million orders a second and stream at most.
    assert found["- out of the busiest broker, MB/s"] == ["50", "248", "248"]


def test_orders_over_http_pay_for_the_parsing_as_well() -> None:
    parts = row(gateway=5, brokers=5, engine=5, database=5)
    found = scaling(parts, parts, parts, [published(3, 1_000, 2_000_000)], 2)
    rates = dict(found)
    # 80 seconds a million instead of 20.
    assert rates["orders/s in lists"][0] == "70,000"
    assert rates["orders/s one by one over HTTP"][0] == "17,500"
    assert [cells for what, cells in found if what == "- cores for HTTP"] == [
        ["1.5", "15.0", "150.0"]
    ]


def test_one_sku_has_one_engine_however_many_nodes_there_are() -> None:
    many = row(gateway=1, brokers=1, engine=9, database=1)
    hot = row(gateway=1, brokers=1, engine=2, database=1)
    found = dict(scaling(many, hot, many, [published(3, 1_000, 2_000_000)], 2))
    assert found["orders/s of one SKU, in lists, at most"] == ["350,000"] * 3
