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
from tests.faults.cluster import PARTITIONS, running_cluster, selling
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
