"""What Prometheus reads is what the engine counts, and no label names a buyer, a SKU or an order."""

from __future__ import annotations

import pytest
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from engine.errors import StoreUnavailable
from engine.gate.gate import GateStatistics
from engine.service.tally import Tally
from engine.testing.virtual_clock import settle
from tests.service.api import Api, faulty_store, serving

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


async def scrape(api: Api) -> tuple[dict[str, Metric], Samples]:
    # Prometheus sends no secret.
    reply = await api.admin.get("/metrics", headers={"authorization": ""})
    assert reply.status == 200
    assert reply.headers["content-type"].startswith("text/plain")
    families = {each.name: each for each in text_string_to_metric_families(reply.content.decode())}
    samples = {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in families.values()
        for sample in family.samples
    }
    return families, samples


def by(samples: Samples, name: str) -> dict[str, float]:
    """The samples of a metric with one label, by its value."""
    return {labels[0][1]: value for (each, labels), value in samples.items() if each == name}


async def sell(api: Api) -> None:
    await api.open("PHONE", 3)
    for number in range(5):
        await api.public.reserve("PHONE", f"canary-{number}", key=f"order-{number}")
    await api.public.reserve("PHONE", "canary-0", key="order-0")
    await api.public.reserve("NONE", "canary-0", key="order-9")
    await api.public.post(
        "/v1/reservations:batch", [{"id": f"l{n}", "sku": "PHONE", "buyer": "b"} for n in range(7)]
    )


async def test_the_counts_are_those_of_the_engine() -> None:
    async with serving() as api:
        await sell(api)
        families, samples = await scrape(api)
        now = api.engine.statistics()
        assert by(samples, "seckill_commands_total") == {
            "accepted": now.accepted,
            "repeated": now.repeated,
            "failed": now.failed,
            "overloaded": now.overloaded,
            "expired": now.expired,
            "unknown": now.unknown,
            "unserved": now.unserved,
        }
        assert (now.accepted, now.repeated) == (4, 1)
        assert by(samples, "seckill_refusals_total") == {"sold_out": 9, "unknown_sku": 1}
        assert by(samples, "seckill_batches_total") == now.closed_by
        assert samples["seckill_transactions_total", ()] == now.transactions
        assert samples["seckill_queue_depth", ()] == 0
        assert families["seckill_commands"].type == "counter"
        info = api.engine.info
        labels = (("durability", info.durability), ("kind", info.kind), ("version", info.version))
        assert samples["seckill_store_info", labels] == 1


async def test_the_limits_of_batches_are_told_by_partition() -> None:
    async with serving(batch__size_max=50, batch__delay_ms_max=5) as api:
        _, samples = await scrape(api)
        assert by(samples, "seckill_batch_size_bound") == {"0": 50}
        assert by(samples, "seckill_batch_delay_seconds_bound") == {"0": 0.005}


async def test_every_partition_of_a_process_alone_is_served_by_it_and_there_is_no_broker() -> None:
    async with serving() as api:
        families, samples = await scrape(api)
        assert by(samples, "seckill_partitions_served") == {"": 1}
        assert by(samples, "seckill_partition_epoch") == {"0": api.engine.served()[0].epoch}
        assert samples["seckill_partitions_stopped", ()] == 0
        assert not [name for name in families if "broker" in name]


async def test_histograms_are_cumulative_and_count_every_batch() -> None:
    async with serving() as api:
        await sell(api)
        families, samples = await scrape(api)
        now = api.engine.statistics()
        sizes = by(samples, "seckill_batch_size_bucket")
        for bound, count in sizes.items():
            assert count == sum(
                many for size, many in now.batch_sizes.items() if size <= float(bound)
            )
        assert samples["seckill_batch_size_count", ()] == sum(now.batch_sizes.values())
        assert samples["seckill_batch_size_sum", ()] == sum(
            size * many for size, many in now.batch_sizes.items()
        )
        assert samples["seckill_command_seconds_count", ()] == sum(now.latencies_us.values())
        for name, family in families.items():
            if family.type == "histogram":
                counts = list(by(samples, f"{name}_bucket").values())
                assert counts == sorted(counts), name


async def test_the_queue_is_what_waits_now() -> None:
    store = faulty_store(["hang"])
    async with serving(store=store) as api:
        await api.open("PHONE", 9)
        orders = [api.public.reserving("PHONE", "alice", key="0")]
        await settle()
        orders += [api.public.reserving("PHONE", "alice", key=key) for key in "123"]
        await settle()
        assert (await scrape(api))[1]["seckill_queue_depth", ()] == 3
        store.released.set()
        for each in orders:
            assert (await each.reply()).status == 201


async def test_replies_and_connections_are_counted() -> None:
    async with serving() as api:
        await sell(api)
        await api.public.get("/nothing")
        before = dict(api.service.tally.replies)
        statuses = by((await scrape(api))[1], "seckill_http_replies_total")
        assert statuses == {str(status): count for status, count in before.items()}
        assert statuses == {"201": 5, "409": 2, "404": 2, "200": 1}


async def test_how_far_read_models_are_behind_is_told_for_each_of_them() -> None:
    async with serving(read_models=True) as api:
        await sell(api)
        await api.caught_up()
        _, samples = await scrape(api)
        behind = {
            labels: value
            for (name, labels), value in samples.items()
            if name == "seckill_lag_commits"
        }
        names = {dict(labels)["name"] for labels in behind}
        assert names == {each.name for each in await api.engine.queries.lag()}
        assert "orders" in names
        assert set(behind.values()) == {0}


async def test_counters_are_told_also_while_the_store_cannot_be_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with serving(read_models=True) as api:
        await sell(api)

        async def gone() -> None:
            raise StoreUnavailable("gone")

        monkeypatch.setattr(api.engine.queries, "lag", gone)
        _, samples = await scrape(api)
        assert by(samples, "seckill_commands_total")["accepted"] > 0
        assert not any(name == "seckill_lag_commits" for name, _ in samples)


async def test_no_label_names_a_buyer_a_sku_or_an_order_and_series_stay_few() -> None:
    async with serving(read_models=True) as api:
        await sell(api)
        await api.caught_up()
        families, samples = await scrape(api)
        labels = {name for _, pairs in samples for name, _ in pairs}
        ours = {name for each, pairs in samples for name, _ in pairs if each.startswith("seckill_")}
        assert ours == {
            *("outcome", "reason", "le", "closed_by", "kind", "version", "durability"),
            *("name", "node", "partition", "status"),
        }
        assert labels - ours <= {"generation", "implementation", "major", "minor", "patchlevel"}
        text = repr(samples)
        assert not any(each in text for each in ("canary", "PHONE", "order-"))
        few = len(samples)
        for number in range(100):
            await api.public.reserve("PHONE", f"other-{number}", key=f"other-{number}")
            await api.public.get(f"/v1/skus/NONE-{number}")
        await api.caught_up()
        assert len((await scrape(api))[1]) <= few
        assert families["seckill_commands"].documentation


async def test_what_the_gate_did_is_counted_and_without_one_there_is_nothing_of_it() -> None:
    class Counting:
        def statistics(self) -> GateStatistics:
            return GateStatistics(10, 4, 2, 3, 5, 1, True, "g", 6)

    async with serving() as api:
        families, _ = await scrape(api)
        assert not [name for name in families if "gate" in name]
        tally: Tally = api.service.tally
        tally.gate = Counting()  # type: ignore[assignment]
        _, samples = await scrape(api)
        assert by(samples, "seckill_gate_checks_total") == {
            "passed": 7,
            "sold_out": 4,
            "too_fast": 2,
            "failed_open": 3,
        }
        assert samples["seckill_gate_trusted", ()] == 1
        assert samples["seckill_gate_failures_total", ()] == 1
        assert samples["seckill_gate_rebuilds_total", ()] == 6
