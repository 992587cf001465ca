"""Two processes with both managers on one server: one takes over, or is killed, or wakes up late.

A partition has one owner. Whoever starts later owns all of them, and the managers of the earlier
one end at the first command that the fence refuses. Until then both react to the same events.
"""

from __future__ import annotations

import asyncio
import random
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest

from engine.cqrs.query_side.read_model import Select
from engine.engine import Engine
from engine.inventory.audit import audit
from engine.runtime import initialise_store, open_engine
from tests.architecture.source_tree import ROOT
from tests.faults.clerk import PARTITIONS, STOCK, shop_settings
from tests.faults.ledger import Ledger
from tests.faults.storm import POLL_SECONDS, until

ROUNDS = 5
ROWS_MAX = 1_000_000


class Clerk:
    """One process, and the lines that it has written."""

    def __init__(self, process: subprocess.Popen[bytes], lines: Path) -> None:
        self.process, self._lines = process, lines

    def said(self) -> list[str]:
        return self._lines.read_text().split()

    async def has_said(self, number: int) -> None:
        """Wait until it wrote so many lines."""

        def enough() -> bool:
            assert self.process.poll() is None, f"it ended: {self.said()[-3:]}"
            return len(self.said()) >= number

        await until(enough)

    def signal(self, what: signal.Signals) -> None:
        self.process.send_signal(what)

    async def ended_lost(self) -> None:
        """Wait until it knows that its partitions are another's, and is gone without a fault."""
        assert await asyncio.to_thread(self.process.wait, 60) == 0
        assert self.said()[-1] == "lost"

    def is_stopped(self) -> bool:
        state = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()[0]
        assert state != "Z", "it ended too early"
        return state == "T"


class Clerks:
    """Starts processes on one database, and leaves none behind."""

    def __init__(self, url: str, folder: Path) -> None:
        self._url, self._folder = url, folder
        self._all: list[Clerk] = []

    def start(self, seed: int, step: str = "none") -> Clerk:
        name = f"clerk-{len(self._all)}"
        path = self._folder / name
        command = [sys.executable, "-m", "tests.faults.clerk", self._url, name, str(seed), step]
        with path.open("wb") as lines:
            clerk = Clerk(subprocess.Popen(command, cwd=ROOT, stdout=lines), path)
        self._all.append(clerk)
        return clerk

    def stop(self) -> None:
        for each in self._all:
            each.process.kill()
            each.process.wait()


@contextmanager
def clerks(url: str, folder: Path) -> Iterator[Clerks]:
    started = Clerks(url, folder)
    try:
        yield started
    finally:
        started.stop()


@asynccontextmanager
async def last_owner(url: str) -> AsyncIterator[Engine]:
    """An engine that takes over and finishes whatever the others left."""
    async with open_engine(shop_settings(url)) as engine:
        while (ledger := await Ledger.read(engine.reader)).held or ledger.unfinished:  # noqa: ASYNC110
            await asyncio.sleep(POLL_SECONDS)
        await engine.queries.caught_up()
        yield engine


async def prove(engine: Engine) -> Ledger:
    """Nothing happened twice, nothing too early, nothing by half; the read models say the same."""
    ledger = await Ledger.read(engine.reader)
    assert ledger.wrong == []
    report = await audit(engine.reader)
    assert report.ok, [finding for check in report.checks for finding in check.findings]
    views = engine.queries._place("orders")
    rows = await views.select(Select("orders", limit=ROWS_MAX))
    assert {tuple(row.values()) for row in rows} == set(ledger.rows.values())
    figures = await views.select(Select("sales", limit=ROWS_MAX))
    for sku, units in ledger.sold.items():
        assert sum(int(row["sold"]) for row in figures if row["sku"] == sku) == units
        stock = await engine.stock(sku)
        assert stock is not None
        assert (stock.available + stock.paid, stock.reserved) == (STOCK, 0)
    lags = await engine.queries.lag()
    assert {each.name for each in lags} == {"orders", "sales", "checkout"}
    assert len(lags) == 3 * PARTITIONS
    assert [each for each in lags if each.commits or each.dead_letters] == []
    return ledger


@pytest.mark.parametrize("seed", [1, 2])
async def test_whatever_is_killed_or_sleeps_nothing_happens_twice(
    mariadb_url: str, tmp_path: Path, seed: int
) -> None:
    chance = random.Random(seed)
    await initialise_store(shop_settings(mariadb_url))
    with clerks(mariadb_url, tmp_path) as shop:
        owner = shop.start(seed)
        for number in range(ROUNDS):
            await owner.has_said(chance.randint(30, 150))
            fate = ("killed", "taken over", "asleep")[(number + seed) % 3]
            if fate == "killed":
                owner.signal(signal.SIGKILL)
            elif fate == "asleep":
                owner.signal(signal.SIGSTOP)
                await until(owner.is_stopped)
            following = shop.start(seed * 100 + number)
            if fate == "taken over":
                await owner.ended_lost()
            elif fate == "asleep":
                await following.has_said(chance.randint(2, 60))
                owner.signal(signal.SIGCONT)
                await owner.ended_lost()
            owner = following
        await owner.has_said(chance.randint(30, 150))
        owner.signal(signal.SIGKILL)
        async with last_owner(mariadb_url) as engine:
            ledger = await prove(engine)
    states = {row[3] for row in ledger.rows.values()}
    assert states == {"paid", "released"}
    steps = {step for each in ledger.orders.values() for step in each}
    assert steps >= {"order-paid.1", "order-cancelled.1", "order-finished.1"}


async def test_a_process_asleep_in_a_step_of_a_read_model_holds_nobody_up(
    mariadb_url: str, tmp_path: Path
) -> None:
    await initialise_store(shop_settings(mariadb_url))
    with clerks(mariadb_url, tmp_path) as shop:
        first = shop.start(1, "read-model")
        await until(first.is_stopped)
        async with last_owner(mariadb_url) as engine:
            first.signal(signal.SIGCONT)
            await first.ended_lost()
            await engine.queries.caught_up()
            await prove(engine)


async def test_projectors_of_several_processes_count_every_event_once(
    mariadb_url: str, tmp_path: Path
) -> None:
    await initialise_store(shop_settings(mariadb_url))
    with clerks(mariadb_url, tmp_path) as shop:
        seller = shop.start(1)
        followers = [shop.start(n, "follow") for n in range(2)]
        for number in range(4):
            for each in followers:
                await each.has_said(1)
            await seller.has_said(60 * (number + 1))
            victim = followers.pop(0)
            victim.signal(signal.SIGKILL)
            followers.append(shop.start(number, "follow"))
        seller.signal(signal.SIGKILL)
        async with last_owner(mariadb_url) as engine:
            await prove(engine)
