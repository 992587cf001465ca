"""What the pages and figures of every gateway show, whoever owns the partitions."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import aclosing
from typing import Any

import nats as nats_client
import pytest
from nats.aio.msg import Msg
from prometheus_client.parser import text_string_to_metric_families

from engine.cqrs.command_side.partition_maker import PartitionMaker
from engine.errors import StoreUnavailable
from engine.gate.feed import GateFeed
from engine.runtime import open_gate
from engine.service.gate_source import LiveSource
from engine.testing.nats_server import NatsServer
from tests.cluster.town import (
    PARTITIONS,
    SKUS,
    Site,
    eventually,
    open_all,
    served,
    town,
    two_by_two,
)
from tests.gate.waiting import until

EVERYWHERE = range(PARTITIONS)


class Page:
    """The live page at one gateway: the newest row of every SKU."""

    def __init__(self, site: Site) -> None:
        self.rows: dict[str, dict[str, Any]] = {}
        self.points: list[dict[str, Any]] = []
        self.task = asyncio.create_task(self._read(site))

    async def _read(self, site: Site) -> None:
        async with aclosing(site.public.events("/v1/stream")) as events:  # type: ignore[type-var]
            async for name, data in events:
                if name:
                    self.rows.update({each["sku"]: each for each in data["skus"]})
                if name == "point":
                    self.points.append(data)

    async def available(self) -> dict[str, int]:
        return {sku: row["available"] for sku, row in self.rows.items()}

    async def sold_out(self) -> dict[str, int]:
        return {sku: row["refused"].get("sold_out", 0) for sku, row in self.rows.items()}

    async def close(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


async def test_the_live_page_of_every_gateway_shows_all_whoever_owns_them(
    mariadb_url: str, nats: NatsServer
) -> None:
    async with two_by_two(mariadb_url, nats, query_side__refusals_every_seconds=1) as (
        made,
        engines,
        (here, there),
    ):
        await open_all(here, stock=3)
        pages = [Page(here), Page(there)]

        async def sell(site: Site, name: str, times: int) -> None:
            for sku in SKUS:
                for n in range(times):
                    await site.public.reserve(sku, f"{name}-{n}", key=f"{name}-{n}")

        await sell(there, "a", 2)
        for page in pages:
            await eventually(page.available, dict.fromkeys(SKUS, 1))

        async def owners() -> set[str]:
            return {each.owner for each in here.engine.served()}

        assert await owners() == {"engine-1", "engine-2"}
        await sell(there, "b", 3)
        for page in pages:
            await eventually(page.sold_out, dict.fromkeys(SKUS, 2))

        await engines[0].leave()
        await eventually(owners, {"engine-2"})
        await served(here)
        await sell(here, "c", 2)
        for page in pages:
            # Counted by the owner that is gone, and by the one that is left.
            await eventually(page.sold_out, dict.fromkeys(SKUS, 4))
            assert await page.available() == dict.fromkeys(SKUS, 0)

        late = await made.join("gateway", "late")
        page = Page(late)
        await eventually(page.available, dict.fromkeys(SKUS, 0))

        async def has_refused() -> bool:
            return all(late.engine.live.refused(sku).get("sold_out", 0) >= 2 for sku in SKUS)

        # What is left of the engines tells it what it had refused before.
        await until(has_refused)

        async def rejected() -> int:
            return here.engine.statistics().rejected["sold_out"]

        # Nothing that the engine had counted is lost with it.
        await eventually(rejected, 4 * PARTITIONS)
        points = pages[0].points
        assert all(each["accepted"] >= 0 and each["decided"] >= 0 for each in points)
        for each in (*pages, page):
            await each.close()


async def test_a_partition_without_an_owner_refuses_its_skus_and_the_others_sell(
    mariadb_url: str, nats: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    acquire = PartitionMaker.acquire

    async def acquire_but_one(self: PartitionMaker, number: int, *rest: Any) -> Any:
        if number == 2:
            raise StoreUnavailable("its database is down")
        return await acquire(self, number, *rest)

    async with town(mariadb_url, nats) as made:
        gateway = await made.join("gateway", "gateway-1")
        status, body = await gateway.readiness()
        assert (status, body["ready"], body["served"]) == (503, False, [])
        assert body["reason"] == "nobody owns 4 of 4 partitions"
        assert (await gateway.public.get("/healthz")).status == 200
        with monkeypatch.context() as patch:
            patch.setattr(PartitionMaker, "acquire", acquire_but_one)
            engine = await made.join("engine", "engine-1")
            for site in (gateway, engine):
                await served(site, 3)
                status, body = await site.readiness()
                assert (status, body["ready"]) == (200, True)
                assert body["reason"] == "nobody owns 1 of 4 partitions"
                assert body["role"] == ("engine" if site is engine else "gateway")
                assert [(each["partition"], each["owner"]) for each in body["served"]] == [
                    (number, "engine-1") for number in (0, 1, 3)
                ]
            for number, sku in enumerate(SKUS):
                opened = await gateway.admin.post(f"/v1/admin/skus/{sku}/open", {"stock": 1})
                order = await gateway.public.reserve(sku, "alice", key="a")
                if number == 2:
                    assert (opened.status, opened.reason) == (503, "partition_lost")
                    assert (order.status, order.reason) == (503, "partition_lost")
                    assert "retry-after" in order.headers
                else:
                    assert (opened.status, order.status) == (201, 201)
        # Its database is back.
        await served(gateway)
        opened = await gateway.admin.post(f"/v1/admin/skus/{SKUS[2]}/open", {"stock": 1})
        assert opened.status == 201


async def test_an_engine_counts_its_own_partitions_and_a_gateway_all(
    mariadb_url: str, nats: NatsServer
) -> None:
    async with two_by_two(mariadb_url, nats) as (_, engines, (here, there)):
        await open_all(here)
        for sku in SKUS:
            await there.public.reserve(sku, "alice", key="a")

        async def accepted() -> list[int]:
            return [each.engine.statistics().accepted for each in (here, there)]

        await eventually(accepted, [2 * PARTITIONS] * 2)
        own = [each.engine.statistics() for each in engines]
        assert sum(each.accepted for each in own) == 2 * PARTITIONS
        assert all(each.accepted for each in own)
        numbers = {each.partition: each.owner for each in here.engine.served()}
        for site in engines:
            text = (await site.admin.get("/metrics")).content.decode()
            name = "engine-1" if site is engines[0] else "engine-2"
            assert {
                number
                for number in EVERYWHERE
                if f'seckill_batch_size_bound{{partition="{number}"}}' in text
            } == {number for number, owner in numbers.items() if owner == name}
        text = (await here.admin.get("/metrics")).content.decode()
        assert f'seckill_commands_total{{outcome="accepted"}} {2.0 * PARTITIONS}' in text
        assert text.count("seckill_batch_size_bound{") == PARTITIONS


async def test_who_owns_what_and_take_overs_are_in_the_metrics_of_a_gateway(
    mariadb_url: str, nats: NatsServer
) -> None:
    async with two_by_two(mariadb_url, nats) as (_, engines, (here, _)):

        async def metric(name: str) -> dict[str, float]:
            """Its samples by the value of their only label."""
            text = (await here.admin.get("/metrics")).content.decode()
            return {
                next(iter(each.labels.values()), ""): each.value
                for family in text_string_to_metric_families(text)
                for each in family.samples
                if each.name == name
            }

        async def nodes() -> set[str]:
            return set(await metric("seckill_partitions_served"))

        await eventually(nodes, {"engine-1", "engine-2"})
        owners = {str(each.partition): each.owner for each in here.engine.served()}
        before = await metric("seckill_partition_epoch")
        await engines[0].leave()

        async def spread() -> dict[str, float]:
            return await metric("seckill_partitions_served")

        await eventually(spread, {"engine-2": PARTITIONS})
        after = await metric("seckill_partition_epoch")
        moved = {number for number, owner in owners.items() if owner == "engine-1"}
        assert moved
        assert {number for number in after if after[number] > before[number]} == moved
        assert await metric("seckill_partitions_stopped") == {"": 0}
        assert await metric("seckill_broker_connections_total") == {"": 1}
        assert set(await metric("seckill_broker_silent_seconds")) == {""}


async def test_an_idle_cluster_sends_heartbeats_and_little_else(
    mariadb_url: str, nats: NatsServer
) -> None:
    async with two_by_two(mariadb_url, nats) as (made, _, (here, there)):
        await open_all(here, stock=1)
        for sku in SKUS:
            for n in range(2):
                await there.public.reserve(sku, f"{n}", key=f"{n}")
        # What was missed at the start is read again.
        await made.settled(here, 40)
        sent = Counter[str]()

        async def note(message: Msg) -> None:
            sent[".".join(message.subject.split(".")[:5])] += 1

        client = await nats_client.connect(nats.url)
        heartbeats = f"{made.prefix}.nodes"
        for subject in (f"{made.prefix}.>", "$JS.API.>"):
            await client.subscribe(subject, cb=note)

        def of(beginning: str) -> int:
            return sum(count for subject, count in sent.items() if subject.startswith(beginning))

        async def is_enough() -> bool:
            return of(heartbeats) >= 4 * 30

        await until(is_enough)
        await client.close()
        assert of(made.prefix) == of(heartbeats)
        # An owner asks for the next commands every few seconds.
        pulls = of("$JS.API.CONSUMER.MSG.NEXT")
        assert pulls == of("$JS.API.CONSUMER.MSG")
        assert of("$JS.API.CONSUMER") == pulls <= of(heartbeats) / 4


async def test_gateways_share_the_gates_of_one_redis(
    mariadb_url: str, nats: NatsServer, redis_url: str
) -> None:
    gated = {
        "gate__url": redis_url,
        "gate__prefix": "cluster-gate",
        "gate__staleness_ms_max": 30_000,
        "gate__orders_per_second_max": 0.01,
        "gate__orders_burst_max": 4,
    }
    async with town(mariadb_url, nats, **gated) as made:
        await made.join("engine", "engine-1")
        settings = made.settings()
        async with open_gate(settings) as one, open_gate(settings) as other:
            assert one is not None
            assert other is not None
            here = await made.join("gateway", "gateway-1", one)
            there = await made.join("gateway", "gateway-2", other)
            feeds = [
                asyncio.create_task(
                    GateFeed(gate, LiveSource(site.engine), settings.gate, made.clock).run()
                )
                for gate, site in ((one, here), (other, there))
            ]
            await served(here)
            sku = SKUS[0]
            await here.admin.post(f"/v1/admin/skus/{sku}/open", {"stock": 1})
            assert (await here.public.reserve(sku, "alice", key="a")).status == 201

            async def flagged() -> list[bool]:
                # The feeds learn of it from the live rows.
                for gate, site, buyer in ((one, here, "x"), (other, there, "y")):
                    if not gate.statistics().sold_out:
                        await site.public.reserve(
                            sku, f"{buyer}-{next(tries)}", key=f"{next(tries)}"
                        )
                return [gate.statistics().sold_out > 0 for gate in (one, other)]

            tries = iter(range(10_000))
            await eventually(flagged, [True, True])
            # The flag is a hint that a gateway does not believe: the order was accepted.
            again = await there.public.reserve(sku, "alice", key="a")
            assert again.status == 201
            # They do not take each other's flags away.
            rebuilds = [gate.statistics().rebuilds for gate in (one, other)]
            for n in range(20):
                for site in (here, there):
                    reply = await site.public.reserve(sku, f"late-{n}", key=f"late-{n}")
                    assert (reply.status, reply.reason) == (409, "sold_out")
            assert [gate.statistics().rebuilds for gate in (one, other)] == rebuilds
            assert all(each <= 2 for each in rebuilds)
            assert one.statistics().generation == other.statistics().generation
            assert one.trusted
            assert other.trusted
            # A buyer is too fast at both gateways together.
            answers = [
                (await (here, there)[n % 2].public.reserve(sku, "hasty", key=f"hasty-{n}")).status
                for n in range(6)
            ]
            assert answers == [409, 409, 409, 409, 429, 429]
            for feed in feeds:
                feed.cancel()
            await asyncio.gather(*feeds, return_exceptions=True)
