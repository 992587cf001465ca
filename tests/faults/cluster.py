"""A sale over a cluster of real processes while something breaks, and the proof of what came of it."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from itertools import count
from pathlib import Path

from engine.cqrs.event_store import decode_source
from engine.cqrs.partitioning import partition_of
from engine.inventory.history import HistoryWriter, read_history
from engine.runtime import audit_store
from loadtest.cluster.processes import ClusterProcesses
from loadtest.cluster.sale import ClusterCrowd, SaleLoad
from loadtest.serve_process import ServeProcess
from tests.gate.waiting import real_seconds
from tests.servers import need, need_nats

PARTITIONS = 8
PLENTY = 1_000_000
SCARCE_STOCK = 150
LIMIT = 8
"""Units per account; few accounts, so that it is met."""

SCARCE_IN, LIMITED_IN = 0, 1
"""Partitions of the SKUs that are sold out, and limited: both of the first engine."""

PATIENCE_SECONDS = 60
"""What a patient buyer gives a gateway: more than any fault of a test lasts, on a slow machine too."""

IMPATIENT = 24
ASKED_AGAIN = 60
POLL_SECONDS = 0.05
POLLS_MAX = 1_200

_SEEDS = count(1)
"""Orders are named by them: no two sales may have the same."""

SETTINGS = {
    "store.partitions": PARTITIONS,
    "cluster.heartbeat_ms": 200,
    "cluster.dead_after_ms": 1_500,
    "service.log_level": "info",
}


@contextmanager
def running_cluster(directory: Path, databases: int = 1) -> Iterator[ClusterProcesses]:
    """Three brokers, databases, two engines and two gateways, all serving."""
    need("mariadbd", "mysqld")
    need_nats()
    cluster = ClusterProcesses(directory, databases=databases, settings=SETTINGS)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.close()


async def until(is_so: Callable[[], bool], what: str) -> None:
    """Ask, off the event loop, until it is so; AssertionError after a minute or so."""
    for _ in range(POLLS_MAX):
        if await asyncio.to_thread(is_so):
            return
        await real_seconds(POLL_SECONDS)
    raise AssertionError(f"it did not come about: {what}")


class ClusterSale:
    """Two crowds in front of both gateways. Made by `selling`, which proves it at the end.

    `patient` buyers wait long, and send an order until it has a definite answer. Those of `impatient`
    wait as long as a person does, send it once and leave: what they were told did not happen must not
    happen later.
    """

    def __init__(self, cluster: ClusterProcesses, directory: Path, name: str) -> None:
        self._cluster = cluster
        self._path = directory / f"{name}.jsonl"
        self._writer = HistoryWriter(self._path)
        self.skus = {number: name_in(name, number) for number in range(PARTITIONS)}
        self.scarce = name_in(f"{name}-scarce", SCARCE_IN)
        self.limited = name_in(f"{name}-limited", LIMITED_IN)
        gateways = [each.url for each in cluster.gateways]
        skus = (*self.skus.values(), self.scarce, self.limited)
        load = SaleLoad(
            skus=skus,
            buyers=80,
            per_second=240,
            accounts=20,
            repeats=0.05,
            answer_seconds=PATIENCE_SECONDS,
            open_seconds_max=PATIENCE_SECONDS,
            seed=next(_SEEDS),
        )
        self.patient = ClusterCrowd(gateways, load, self._writer)
        once = SaleLoad(
            skus=skus,
            buyers=IMPATIENT,
            per_second=40,
            accounts=1_000_000,
            repeats=0,
            open_seconds_max=0,
            seed=next(_SEEDS),
        )
        self.impatient = ClusterCrowd(gateways, once, self._writer)
        self._tasks: list[asyncio.Task[None]] = []

    def open(self) -> None:
        """Put a SKU of every partition on sale, and one that is scarce and one with a limit."""
        shop = self._cluster.gateways[0].shop
        for sku in self.skus.values():
            shop.open_sale(sku, PLENTY, 0, 0)
        shop.open_sale(self.scarce, SCARCE_STOCK, 0, 0)
        shop.open_sale(self.limited, PLENTY, LIMIT, 0)

    def start(self) -> None:
        self._tasks = [asyncio.create_task(each.run()) for each in (self.patient, self.impatient)]

    async def sells(self, *partitions: int) -> None:
        """Wait until each of `partitions`, or all, accepted an order that is sent from now on."""
        wanted = {self.skus[number] for number in partitions or self.skus}
        seen: set[str] = set()
        looked = len(self.patient.sales)
        since = asyncio.get_running_loop().time()
        for _ in range(POLLS_MAX):
            for sale in self.patient.sales[looked:]:
                if sale.sent_at > since:
                    seen.add(sale.order.aggregate_id)
            looked = len(self.patient.sales)
            if wanted <= seen:
                return
            self._look_at_crowds()
            await real_seconds(POLL_SECONDS)
        raise AssertionError(f"{sorted(wanted - seen)} do not sell: {self.told()}")

    async def holds_up(self, orders: int = 5) -> None:
        """Wait until so many orders of the patient have no definite answer: the fault is felt."""
        for _ in range(POLLS_MAX):
            total = self.patient.total
            answered = total.accepted + total.refused.total() + total.unknown + total.failed
            if total.first - answered >= orders:
                return
            self._look_at_crowds()
            await real_seconds(POLL_SECONDS)
        raise AssertionError("no order was under way")

    def sold(self) -> Counter[int]:
        """Accepted orders of the patient so far, by partition."""
        return Counter(
            partition_of(each.order.aggregate_id, PARTITIONS) for each in self.patient.sales
        )

    def told(self) -> dict[str, int]:
        """The indefinite answers so far, of all gateways."""
        return dict(self.patient.total.open_answers + self.impatient.total.open_answers)

    async def end(self) -> None:
        """Wait until something was refused for every reason, and then for all open orders; ask for some
        of the accepted ones once more everywhere."""
        await self._refuses("sold_out", "over_limit")
        for each in (self.patient, self.impatient):
            each.stop()
        await asyncio.gather(*self._tasks)
        sales = self.patient.sales
        step = max(1, len(sales) // ASKED_AGAIN)
        await self.patient.ask_again(sales[::step])
        self._writer.close()

    def cancel(self) -> None:
        for each in self._tasks:
            each.cancel()
        self._writer.close()

    async def prove(self, accepted_min: int) -> None:
        """No acknowledged order is lost, nothing that was refused is there, nothing is oversold."""
        history = await asyncio.to_thread(read_history, self._path)
        report = await audit_store(self._cluster.settings.store.places, history)
        findings = [finding for check in report.checks for finding in check.findings]
        assert report.ok, findings
        for crowd in (self.patient, self.impatient):
            assert crowd.total.failed == 0, crowd.samples
        # Whatever was lost on the way was sent again in time: nobody was left to ask what became of it.
        total = self.patient.total
        assert (total.unknown, total.open_answers.get("202", 0)) == (0, 0), self.told()
        assert self.patient.total.accepted >= accepted_min
        assert self.patient.total.repeated > 0
        scarce = [
            order
            for order in history.orders.values()
            if order.sku == self.scarce and order.answer == "ok"
        ]
        assert sum(order.quantity for order in scarce) <= SCARCE_STOCK

    async def _refuses(self, *reasons: str) -> None:
        for _ in range(POLLS_MAX):
            if set(reasons) <= self.patient.total.refused.keys():
                return
            self._look_at_crowds()
            await real_seconds(POLL_SECONDS)
        raise AssertionError(f"nothing was refused for some of {reasons}")

    def _look_at_crowds(self) -> None:
        for each in self._tasks:
            if each.done():
                each.result()
                raise AssertionError("a crowd has ended")


def name_in(name: str, partition: int) -> str:
    """What an aggregate of a partition may be called."""
    number = 0
    while partition_of(f"{name}-{number}", PARTITIONS) != partition:
        number += 1
    return f"{name}-{number}"


@asynccontextmanager
async def selling(
    cluster: ClusterProcesses, directory: Path, name: str, accepted_min: int = 300
) -> AsyncIterator[ClusterSale]:
    """A sale in full swing for the block; proven, and every partition sells, when the block is over."""
    sale = ClusterSale(cluster, directory, name)
    try:
        await asyncio.to_thread(sale.open)
        sale.start()
        await sale.sells()
        yield sale
        await sale.sells()
        await sale.end()
    finally:
        sale.cancel()
    await sale.prove(accepted_min)


def epochs(cluster: ClusterProcesses) -> dict[int, int]:
    """The epoch of each partition, as the database has it."""
    rows = cluster.mariadb.execute("SELECT partition_id, epoch FROM partitions", "seckill").split(
        "\n"
    )
    return {int(row.split("\t")[0]): int(row.split("\t")[1]) for row in rows if row}


def owned_by(cluster: ClusterProcesses, node: ServeProcess) -> set[int]:
    """The partitions of a node, as the gateways know it."""
    return {number for number, owner in cluster.owners().items() if owner == node.name}


def said(node: ServeProcess, pattern: str) -> list[str]:
    """The lines of a node's log that match."""
    text = node.log.read_text(encoding="utf-8", errors="replace")
    return [line for line in text.splitlines() if re.search(pattern, line)]


def lives(cluster: ClusterProcesses) -> set[str]:
    """The lives of the stream that the partitions' sources are of."""
    rows = cluster.mariadb.execute("SELECT source FROM partitions", "seckill").split("\n")
    return {decode_source(row).stream for row in rows if row}
