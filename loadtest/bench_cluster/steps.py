"""The benchmarks of a cluster by name: which orders, in which layouts, how often."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from engine.errors import ConfigError
from engine.event_loop import run_async
from engine.testing.mariadb_server import find_program
from engine.testing.nats_server import find_nats_server
from loadtest.bench.report import BenchAudit
from loadtest.bench_cluster.brokers import BrokerRow, brokers_alone
from loadtest.bench_cluster.caller import Task
from loadtest.bench_cluster.programs import MARIADB, PARTITIONS, SQLITE, Layout, servers_in
from loadtest.bench_cluster.runs import Row, compare

HOP: Final = "hop"
LISTS: Final = "lists"
CPU: Final = "cpu"
BROKERS: Final = "brokers"
NAMES: Final = (HOP, LISTS, CPU, BROKERS)

HOP_LAYOUTS: Final = (
    *(Layout(SQLITE), Layout(SQLITE, 1), Layout(SQLITE, 3)),
    *(Layout(MARIADB), Layout(MARIADB, 1), Layout(MARIADB, 3)),
    *(Layout(MARIADB, 1, True), Layout(MARIADB, 3, True), Layout(MARIADB, 3, True, True)),
)
"""SQLite has one process that writes and reads, so a gateway on its own has MariaDB."""

SPLIT_LAYOUTS: Final = (
    *(Layout(MARIADB), Layout(MARIADB, 1, True)),
    *(Layout(MARIADB, 3, True), Layout(MARIADB, 3, True, True)),
)


class Sizes(msgspec.Struct, frozen=True):
    """How much is measured. Seconds are of one run of a workload in a layout."""

    repeats: int = 5
    callers: int = 2_000
    skus: int = 16
    seconds: float = 1.5
    list_size: int = 8_000
    list_orders: int = 200_000
    lists_under_way: int = 8
    paced_seconds: float = 3
    paced_singles_per_s: int = 3_000
    paced_lists_per_s: int = 30_000
    broker_commands: tuple[int, ...] = (200, 1_000)
    broker_messages: int = 640
    broker_in_flight: int = 64


QUICK: Final = Sizes(repeats=3, seconds=0.5, list_orders=80_000, broker_messages=192)
"""A look in about three minutes; not for publishing."""


class ClusterBench:
    """Runs every benchmark with servers and stores of its own below `place`.

    `done` is told after each run of a workload.
    """

    def __init__(
        self, place: Path, sizes: Sizes, seed: int, done: Callable[[], None] = lambda: None
    ) -> None:
        self._place = place
        self._sizes = sizes
        self._random = random.Random(seed)
        self._done = done
        self._events = 0
        self.rows: dict[str, list[Row]] = {}
        self.brokers: list[BrokerRow] = []

    def config(self) -> dict[str, Any]:
        """Every number that shapes the run."""
        return {**msgspec.to_builtins(self._sizes), "partitions": PARTITIONS}

    def audit(self) -> BenchAudit:
        """What the audits so far replayed; one that found something has raised WrongAnswer."""
        return BenchAudit(True, self._events)

    def work(self, name: str) -> int:
        """How many times `done` will be told by the benchmark `name`."""
        sizes = self._sizes
        if name == BROKERS:
            return (sizes.repeats + 1) * 2 * len(sizes.broker_commands)
        layouts, workloads = self._plan(name)
        return len(layouts) * (1 + sizes.repeats * len(workloads))

    def run(self, name: str) -> None:
        """Run one benchmark. Raises WrongAnswer when its check fails."""
        run_async(self._run(name))

    async def _run(self, name: str) -> None:
        place = self._place / name
        place.mkdir()
        sizes = self._sizes
        async with servers_in(place) as servers:
            if name == BROKERS:
                self.brokers = await brokers_alone(
                    *(servers, (1, 3), sizes.broker_commands, sizes.broker_messages),
                    *(sizes.broker_in_flight, sizes.repeats, self._random, self._done),
                )
                return
            layouts, workloads = self._plan(name)
            self.rows[name], events = await compare(
                *(servers, layouts, workloads, sizes.repeats, self._random, self._done)
            )
            self._events += events

    def _plan(self, name: str) -> tuple[Sequence[Layout], Mapping[str, Task]]:
        return {
            HOP: (HOP_LAYOUTS, self._singles()),
            LISTS: (SPLIT_LAYOUTS, self._lists()),
            CPU: (SPLIT_LAYOUTS, self._paced()),
        }[name]

    def _singles(self) -> dict[str, Task]:
        sizes = self._sizes
        crowd = Task(kind="callers", name="hot", at_once=sizes.callers, seconds=sizes.seconds)
        return {
            f"{sizes.callers:,} callers, one SKU": crowd,
            f"{sizes.callers:,} callers, {sizes.skus} SKUs": msgspec.structs.replace(
                crowd, name="wide", skus=sizes.skus
            ),
            "one caller": msgspec.structs.replace(crowd, name="lonely", at_once=1),
        }

    def _lists(self) -> dict[str, Task]:
        sizes = self._sizes
        lists = Task(
            kind="lists",
            name="list",
            at_once=sizes.lists_under_way,
            size=sizes.list_size,
            orders=sizes.list_orders,
        )
        return {
            f"lists of {sizes.list_size:,}, one SKU": lists,
            f"lists of {sizes.list_size:,}, {sizes.skus} SKUs": msgspec.structs.replace(
                lists, name="lists", skus=sizes.skus
            ),
        }

    def _paced(self) -> dict[str, Task]:
        sizes = self._sizes
        singles = Task(
            kind="paced",
            name="paced",
            skus=sizes.skus,
            per_second=sizes.paced_singles_per_s,
            seconds=sizes.paced_seconds,
        )
        size = max(1, sizes.list_size // 8)
        return {
            f"{sizes.paced_singles_per_s:,}/s, one by one": singles,
            f"{sizes.paced_lists_per_s:,}/s, in lists of {size:,}": msgspec.structs.replace(
                singles, name="pacedlists", per_second=sizes.paced_lists_per_s, size=size
            ),
        }


def check_programs() -> None:
    """Raise ConfigError unless the servers that are needed are installed."""
    if find_nats_server() is None:
        raise ConfigError("nats-server is not installed; `make install` brings it")
    if find_program("mariadbd", "mysqld") is None:
        raise ConfigError("mariadbd is not installed; `make services` installs it where apt can")
