"""A cluster over two databases loses one of them in the middle of a sale: the other half sells on."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from engine.cqrs.event_store import PartitionPlace
from engine.cqrs.partitioning import partition_of
from engine.runtime import move_partition, open_reader
from loadtest.cluster.processes import ClusterProcesses
from tests.faults.cluster import PARTITIONS, name_in, running_cluster, selling
from tests.gate.waiting import real_seconds

HOLD_SECONDS = 2
POLL_SECONDS = 0.1
POLLS_MAX = 600


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClusterProcesses]:
    with running_cluster(tmp_path_factory.mktemp("databases"), databases=2) as found:
        yield found


async def places(cluster: ClusterProcesses) -> list[PartitionPlace]:
    reader = await open_reader(cluster.settings.store.places)
    try:
        return await reader.read_places()
    finally:
        await reader.close()


async def test_partitions_of_a_database_that_is_down_wait_and_all_others_sell_on(
    cluster: ClusterProcesses, tmp_path: Path
) -> None:
    homes = await places(cluster)
    there = {each.partition for each in homes if each.database == "db2"}
    here = {each.partition for each in homes} - there
    down = cluster.databases[1]
    assert here
    assert there
    async with selling(cluster, tmp_path, "half") as sale:
        await asyncio.to_thread(down.kill)
        await sale.holds_up()
        await sale.sells(*here)
        held = sale.sold()
        await sale.sells(*here)
        assert (sale.sold() - held).keys() == here
        assert {each.partition for each in await places(cluster) if each.epoch < 0} == there
        await asyncio.to_thread(down.start)
        await sale.sells(*there)


async def place(client: httpx.AsyncClient, order_id: str, *skus: str) -> httpx.Response:
    body = {"buyer": "eve", "lines": [{"sku": each, "quantity": 1} for each in skus]}
    return await client.post("/v1/orders", json=body, headers={"Idempotency-Key": order_id})


async def step_of(client: httpx.AsyncClient, order_id: str) -> str:
    reply = await client.get(f"/v1/orders/{order_id}")
    return str(reply.json()["step"]) if reply.is_success else reply.text


async def until_step(client: httpx.AsyncClient, order_id: str, step: str) -> None:
    found = ""
    for _ in range(POLLS_MAX):
        found = await step_of(client, order_id)
        if found == step:
            return
        await real_seconds(POLL_SECONDS)
    raise AssertionError(f"{order_id} is at {found}")


async def test_a_cart_with_a_line_in_a_database_that_is_down_holds_up_no_other(
    cluster: ClusterProcesses,
) -> None:
    homes = await places(cluster)
    far = next(each.partition for each in homes if each.database == "db2")
    home, near = [each.partition for each in homes if each.database == "db1"][:2]
    lost = name_in("cart-lost", far)
    found = name_in("cart-here", home), name_in("cart-near", near)
    gateway, down = cluster.gateways[0], cluster.databases[1]
    for sku in (lost, *found):
        await asyncio.to_thread(gateway.shop.open_sale, sku, 10, 0, 600)
    # All are orders of one partition, whose events are worked off one after the other.
    stuck, *well = [name_in(f"order-{n}", home) for n in range(4)]
    async with httpx.AsyncClient(base_url=gateway.url, timeout=60) as client:
        await asyncio.to_thread(down.kill)
        try:
            assert (await place(client, stuck, found[0], lost)).status_code == 202
            for order_id in well:
                assert (await place(client, order_id, *found)).status_code == 201
                assert (await client.post(f"/v1/orders/{order_id}/pay")).status_code == 200
            for order_id in well:
                await until_step(client, order_id, "confirmed")
            assert await step_of(client, stuck) == "reserving"
        finally:
            await asyncio.to_thread(down.start)
        await until_step(client, stuck, "awaiting_payment")


async def until_state(client: httpx.AsyncClient, buyer: str, state: str) -> None:
    """Wait until the only reservation of a buyer is shown so; AssertionError after a minute or so."""
    reply = None
    for _ in range(POLLS_MAX):
        reply = await client.get(f"/v1/buyers/{buyer}/reservations")
        found = reply.json()["reservations"] if reply.is_success else []
        if [each["state"] for each in found] == [state]:
            return
        await real_seconds(POLL_SECONDS)
    raise AssertionError(f"it is shown as {reply.text if reply is not None else None}")


async def test_a_quiet_partition_that_was_moved_gives_back_its_holds_and_shows_it(
    cluster: ClusterProcesses,
) -> None:
    sku = "quiet"
    number = partition_of(sku, PARTITIONS)
    home = (await places(cluster))[number].database
    there = "db1" if home == "db2" else "db2"
    gateway = cluster.gateways[0]
    await asyncio.to_thread(gateway.shop.open_sale, sku, 5, 0, HOLD_SECONDS)
    async with httpx.AsyncClient(base_url=gateway.url) as client:
        reply = await client.post(
            f"/v1/skus/{sku}/reservations",
            json={"buyer": "ann"},
            headers={"Idempotency-Key": "once"},
        )
        assert reply.status_code == 201, reply.text
        await move_partition(cluster.settings.store.places, number, there, lambda *_: None)
        assert (await places(cluster))[number].database == there
        # Nobody orders there any more.
        await until_state(client, "ann", "released")
