"""A sale on a real server while something breaks, and the proof of what came out of it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

from engine.clock import SystemClock
from engine.config import COMMAND_SIDE_KEYS, load_settings
from engine.cqrs.command_side.statistics import Statistics
from engine.engine import Engine
from engine.inventory.audit import AuditReport, audit
from engine.inventory.history import HistoryWriter, read_history
from engine.runtime import initialise_store, open_engine
from loadtest.settings import WorkloadSettings
from loadtest.simulation.carts import Notebook
from loadtest.simulation.crowd import Crowd, Tally
from loadtest.workload import generate

POLL_SECONDS = 0.01
STOCK = 1_000_000

Fault = Callable[[Engine], Awaitable[None]]


class Aftermath:
    """What the buyers know, what the engine counted, and what the audit says."""

    def __init__(
        self, tally: Tally, sold_before: int, statistics: Statistics, report: AuditReport
    ) -> None:
        self.tally = tally
        self.sold_before = sold_before
        self.statistics = statistics
        self.report = report

    def prove(self) -> None:
        """Nothing lost, nothing twice, everybody answered, and selling went on afterwards."""
        findings = [finding for check in self.report.checks for finding in check.findings]
        assert self.report.ok, findings
        assert (self.tally.unknown, self.tally.failed) == (0, 0), self.tally.samples
        assert self.tally.accepted > self.sold_before > 0
        assert self.report.checked_events == self.tally.accepted + 1


async def until(condition: Callable[[], bool]) -> None:
    """Wait for what another process does; only looking can tell."""
    while not await asyncio.to_thread(condition):  # noqa: ASYNC110
        await asyncio.sleep(POLL_SECONDS)


async def storm(
    url: str,
    history: Path,
    fault: Fault,
    *,
    orders: int = 12_000,
    concurrency: int = 200,
    skus: int = 1,
    **overrides: object,
) -> Aftermath:
    """Sell `orders`, let `fault` happen a quarter of the way, sell the rest, and audit.

    Every order is noted before it is sent and when it is answered.
    """
    settings = load_settings(
        None,
        {
            **COMMAND_SIDE_KEYS,
            "store.url": url,
            **{key.replace("__", "."): value for key, value in overrides.items()},
        },
        {},
    )
    await initialise_store(settings)
    workload = generate(WorkloadSettings(buyers=orders, stock=STOCK, skus=skus, duplicates=0.05))
    writer = HistoryWriter(history)
    async with open_engine(settings) as engine:
        for sku in workload.skus:
            await engine.open_sale(sku, stock=STOCK, command_id=f"open-{sku}")
        crowd = Crowd(workload, engine.execute, SystemClock(), concurrency, Notebook(writer))
        selling = asyncio.create_task(crowd.run())
        await until(lambda: crowd.tally.accepted >= orders // 4)
        sold_before = crowd.tally.accepted
        await fault(engine)
        await selling
        writer.close()
        noted = await asyncio.to_thread(read_history, history)
        report = await audit(engine.reader, noted)
        return Aftermath(crowd.tally, sold_before, engine.statistics(), report)
