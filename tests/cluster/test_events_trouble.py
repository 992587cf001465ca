"""Events that cannot be published are seen: in the figures of their owner, with what to do."""

from __future__ import annotations

from collections.abc import AsyncIterator

import nats as nats_client
import pytest_asyncio
from prometheus_client.parser import text_string_to_metric_families

from engine.cqrs.command_side.port import Publishing
from engine.testing.nats_server import NatsServer
from tests.cluster.outlet import Outlet, outlet
from tests.cluster.town import PARTITIONS, Site, eventually, sku_in, two_by_two

BEHIND, STUCK = "seckill_events_behind_commits", "seckill_events_stuck"


@pytest_asyncio.fixture
async def shop(nats: NatsServer) -> AsyncIterator[Outlet]:
    async with outlet(nats.url) as shop:
        yield shop


async def shown(sites: list[Site], name: str) -> dict[int, float]:
    """What these nodes show of every partition; none is shown by two."""
    found: dict[int, float] = {}
    for site in sites:
        text = (await site.admin.get("/metrics")).content.decode()
        for family in text_string_to_metric_families(text):
            for each in family.samples:
                if each.name == name:
                    number = int(each.labels["partition"])
                    assert number not in found
                    found[number] = each.value
    return found


async def test_the_owner_of_a_partition_whose_events_are_stuck_shows_it(
    mariadb_url: str, nats: NatsServer
) -> None:
    async with two_by_two(mariadb_url, nats) as (made, engines, (here, there)):
        nothing = dict.fromkeys(range(PARTITIONS), 0.0)

        async def sell() -> None:
            for number in range(PARTITIONS):
                sku = sku_in(number, f"sold-{len(sold)}")
                await here.admin.post(f"/v1/admin/skus/{sku}/open", {"stock": 1})
                sold.append(sku)

        async def behind() -> dict[int, float]:
            return await shown(engines, BEHIND)

        async def stuck() -> dict[int, float]:
            return await shown(engines, STUCK)

        sold: list[str] = []
        await sell()
        await eventually(behind, nothing)
        assert await stuck() == nothing
        assert await shown([here, there], STUCK) == {}
        # Somebody wrote what the store does not have.
        client = await nats_client.connect(nats.url)
        js = client.jetstream()
        headers = {"Seckill-Position": "1000"}
        await js.publish(f"{made.prefix}.events.2", b"[]", headers=headers)
        await sell()
        await eventually(stuck, {**nothing, 2: 1.0})
        await eventually(behind, {**nothing, 2: 1.0})
        # What the log says helps.
        await js.delete_stream(f"{made.prefix}-events")
        await eventually(stuck, nothing)
        await eventually(behind, nothing)
        await client.close()


async def test_how_far_it_is_behind_is_not_known_before_it_has_looked(shop: Outlet) -> None:
    await shop.sell(3)
    publisher = await shop.publisher()
    assert publisher.state(3) == Publishing(0, None, "")
    shop.start(publisher)
    await shop.until_published(3)
    await shop.until(lambda: publisher.state(3) == Publishing(0, 0, ""))
    assert publisher.state(5) == Publishing(0, 2, "")
    # What the owner knows may be older than what is published.
    assert publisher.state(2) == Publishing(0, 0, "")


async def test_what_is_no_checkpoint_is_told_with_what_to_do(shop: Outlet) -> None:
    bucket = await shop.client.jetstream().key_value(shop.stream.checkpoints)
    await bucket.put("events.0", b"{}")
    await shop.sell(2)
    publisher = await shop.started()
    await shop.until(lambda: publisher.statistics().trouble != "")
    trouble = publisher.statistics().trouble
    assert f"events.0 in the bucket {shop.stream.checkpoints} is no checkpoint" in trouble
    assert f"nats kv del {shop.stream.checkpoints} events.0" in trouble
    await bucket.delete("events.0")
    await shop.until_published(2)
    assert await shop.positions() == [1, 2]
