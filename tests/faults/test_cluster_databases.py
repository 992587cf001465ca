"""A cluster over two databases loses one of them in the middle of a sale: the other half sells on."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.cqrs.event_store import PartitionPlace
from engine.runtime import open_reader
from loadtest.cluster_processes import ClusterProcesses
from tests.faults.cluster import running_cluster, selling


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
