"""A cluster of real processes loses one or all of a kind in the middle of a sale, and sells on.

All tests share one cluster: each leaves it whole, and proves with its own history.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.cluster.membership import best_of
from loadtest.cluster.processes import ClusterProcesses
from tests.faults.cluster import (
    PARTITIONS,
    epochs,
    lives,
    owned_by,
    running_cluster,
    said,
    selling,
    until,
)

STREAM = "seckill-commands"
ALL = frozenset(range(PARTITIONS))


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClusterProcesses]:
    with running_cluster(tmp_path_factory.mktemp("cluster")) as found:
        yield found


@pytest.fixture
def before(cluster: ClusterProcesses) -> dict[int, int]:
    """The epochs before the fault."""
    return epochs(cluster)


def raised(cluster: ClusterProcesses, before: dict[int, int]) -> set[int]:
    """Which partitions were taken over since."""
    return {number for number, epoch in epochs(cluster).items() if epoch > before[number]}


async def test_partitions_of_a_killed_engine_sell_again_and_no_other_moves(
    cluster: ClusterProcesses, tmp_path: Path, before: dict[int, int]
) -> None:
    victim, other = cluster.engines[:2]
    mine = await asyncio.to_thread(owned_by, cluster, victim)
    async with selling(cluster, tmp_path, "killed") as sale:
        await asyncio.to_thread(victim.kill)
        await sale.holds_up()
        await sale.sells(*mine)
        assert await asyncio.to_thread(raised, cluster, before) == mine
        assert await asyncio.to_thread(owned_by, cluster, other) == ALL
        await asyncio.to_thread(victim.start)
        await until(lambda: owned_by(cluster, victim) == mine, "it has its partitions again")


async def test_an_engine_that_wakes_up_after_it_was_replaced_is_fenced_and_tells_nothing(
    cluster: ClusterProcesses, tmp_path: Path, before: dict[int, int]
) -> None:
    zombie, other = cluster.engines[:2]
    mine = await asyncio.to_thread(owned_by, cluster, zombie)
    async with selling(cluster, tmp_path, "paused") as sale:
        heard = len(said(zombie, "partition . is lost"))
        zombie.pause()
        await until(lambda: owned_by(cluster, other) == ALL, "the other one has all")
        await sale.sells()
        assert await asyncio.to_thread(raised, cluster, before) == mine
        zombie.resume()
        await until(
            lambda: len(said(zombie, "partition . is lost")) == heard + len(mine),
            "it knows that it lost them",
        )
        await until(lambda: owned_by(cluster, zombie) == mine, "it has its partitions again")
        await sale.sells()
        assert await asyncio.to_thread(raised, cluster, before) == mine


async def test_the_sale_outlives_the_broker_that_leads_the_stream(
    cluster: ClusterProcesses, tmp_path: Path
) -> None:
    brokers = cluster.brokers
    async with selling(cluster, tmp_path, "leader") as sale:
        leader = await asyncio.to_thread(brokers.leader_of, STREAM)
        await asyncio.to_thread(brokers.kill, leader)
        await sale.holds_up()
        await sale.sells()
        assert await asyncio.to_thread(brokers.leader_of, STREAM) != leader
        await asyncio.to_thread(brokers.start, leader)


async def test_the_sale_goes_on_when_all_brokers_were_killed_and_come_back(
    cluster: ClusterProcesses, tmp_path: Path
) -> None:
    before = await asyncio.to_thread(lives, cluster)
    async with selling(cluster, tmp_path, "brokers") as sale:
        await asyncio.to_thread(cluster.brokers.kill)
        await sale.holds_up()
        await asyncio.to_thread(cluster.brokers.start)
        await sale.sells()
        assert await asyncio.to_thread(lives, cluster) == before, "it is the same stream"


async def test_nothing_is_decided_again_when_all_brokers_lost_their_disks(
    cluster: ClusterProcesses, tmp_path: Path
) -> None:
    brokers = cluster.brokers
    before = await asyncio.to_thread(lives, cluster)
    async with selling(cluster, tmp_path, "disks") as sale:
        # What is lost with the disks is acknowledged by the brokers and not read by anybody.
        for each in cluster.engines[:2]:
            each.pause()
        await sale.holds_up(40)
        await asyncio.to_thread(brokers.kill)
        await asyncio.to_thread(brokers.wipe)
        for each in cluster.engines[:2]:
            each.resume()
        await asyncio.to_thread(brokers.start)
        await sale.sells()
        after = await asyncio.to_thread(lives, cluster)
        assert len(after) == 1
        assert not after & before, "it is another life of the stream"


async def test_a_rolling_restart_of_every_process_loses_nothing_and_fails_nobody(
    cluster: ClusterProcesses, tmp_path: Path, before: dict[int, int]
) -> None:
    async with selling(cluster, tmp_path, "rolling") as sale:
        for each in cluster.nodes:
            pid = each.pid
            assert await asyncio.to_thread(each.terminate) == 0
            await asyncio.to_thread(each.start)
            await asyncio.to_thread(each.wait_ready)
            await asyncio.to_thread(cluster.wait_served)
            await sale.sells()
            assert each.pid != pid
        assert await asyncio.to_thread(raised, cluster, before) == ALL


async def test_an_engine_that_joins_and_leaves_moves_only_its_own_partitions(
    cluster: ClusterProcesses, tmp_path: Path, before: dict[int, int]
) -> None:
    third = cluster.add_engine()
    names = [each.name for each in cluster.engines]
    its = {number for number in ALL if best_of(names, number) == third.name}
    assert its
    owners = await asyncio.to_thread(cluster.owners)
    async with selling(cluster, tmp_path, "joins") as sale:
        await asyncio.to_thread(third.start)
        await until(lambda: owned_by(cluster, third) == its, "it has its partitions")
        await sale.sells()
        assert await asyncio.to_thread(raised, cluster, before) == its
        joined = await asyncio.to_thread(epochs, cluster)
        assert await asyncio.to_thread(third.terminate) == 0
        await until(lambda: cluster.owners() == owners, "all is as before")
        await sale.sells()
        assert await asyncio.to_thread(raised, cluster, joined) == its


async def test_the_other_gateway_gives_the_same_answers_when_one_is_killed(
    cluster: ClusterProcesses, tmp_path: Path
) -> None:
    victim = cluster.gateways[0]
    async with selling(cluster, tmp_path, "gateway") as sale:
        await asyncio.to_thread(victim.kill)
        sold = sale.patient.sales[-100:]
        await until(lambda: sale.told().get("no reply", 0) > 0, "an order was under way")
        repeated = sale.patient.counts[1].repeated
        await sale.patient.ask_again(sold)
        assert sale.patient.counts[1].repeated - repeated >= len(sold)
        await sale.sells()
        await asyncio.to_thread(victim.start)
        await asyncio.to_thread(victim.wait_ready)


async def test_the_sale_goes_on_when_the_database_was_killed_and_comes_back(
    cluster: ClusterProcesses, tmp_path: Path
) -> None:
    async with selling(cluster, tmp_path, "database") as sale:
        await asyncio.to_thread(cluster.mariadb.kill)
        await sale.holds_up()
        await until(
            lambda: all(said(each, "partition . waits: .*connect") for each in cluster.engines[:2]),
            "every engine misses it",
        )
        await asyncio.to_thread(cluster.mariadb.start)
        await sale.sells()
