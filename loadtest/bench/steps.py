"""The benchmarks by name: what is measured, how often, beside which ceiling."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

from engine.event_loop import run_async
from loadtest.bench import ceilings as bench_ceilings
from loadtest.bench import runs as bench_runs
from loadtest.bench.ceilings import BUYERS, LIST_SIZE
from loadtest.bench.long import LongHistory
from loadtest.bench.report import BenchAudit, Figure, figure
from loadtest.wrong import WrongAnswer

LONELY_ORDERS = 300
HISTORY_EVENTS: Final = 10_000_000
MEMORY_REPEATS_MAX: Final = 3
LONG_REPEATS_MAX: Final = 5
MEMORY_KINDS: Final = (
    ("short ids", 250, "short", "on"),
    ("UUID ids", 250, "uuid", "on"),
    ("short ids, no snapshots", None, "short", "off"),
    ("UUID ids, no snapshots", None, "uuid", "off"),
)
"""Name, budget in bytes, and the options of `bench_memory`."""

BY_AUDIT: Final = "audit"
BY_ROW: Final = "stock row"
BY_REPEATS: Final = "stock row, repeats"


class Bench:
    """Runs every benchmark in stores of its own below `place`."""

    def __init__(
        self, place: Path, repeats: int, scale: float, history_events: int | None = None
    ) -> None:
        self._place = place
        self._repeats = repeats
        self._orders = max(LIST_SIZE * 2, int(500_000 * scale))
        self._resident_orders = max(20_000, int(1_000_000 * scale))
        self._history_events = history_events or max(LIST_SIZE, int(HISTORY_EVENTS * scale))
        self._audited = bench_runs.Audited()

    def config(self) -> dict[str, Any]:
        """Every number that shapes the run."""
        return {
            "buyers": BUYERS,
            "list_size": LIST_SIZE,
            "lists_under_way": bench_runs.LISTS_UNDER_WAY,
            "orders": self._orders,
            "lonely_orders": LONELY_ORDERS,
            "resident_orders": self._resident_orders,
            "history_events": self._history_events,
            "repeats": self._repeats,
        }

    def steps(self) -> dict[str, Callable[[], Awaitable[list[Figure]]]]:
        """Every benchmark by its name."""
        return {
            "individual": self.individual,
            "lists": self.lists,
            "lonely": self.lonely,
            "memory": self.memory,
            "replay": self.replay,
            "history": self.history,
            "start": self.start,
        }

    def run(self, name: str) -> list[Figure]:
        """Run one benchmark. Raises WrongAnswer when its check fails."""
        return run_async(_finish(self.steps()[name]()))

    def audit(self) -> BenchAudit:
        """What the audits so far replayed; one that found something has raised WrongAnswer."""
        return BenchAudit(True, self._audited.events)

    async def individual(self) -> list[Figure]:
        limited: list[float] = []
        free: list[float] = []
        ceilings: dict[str, list[float]] = {"loop alone": [], "store alone": []}
        for _ in range(self._repeats):
            limited.append(await bench_runs.individual(self._new(), self._orders, 2, self._audited))
            ceilings["loop alone"].append(await bench_ceilings.bare_loop(self._orders))
            free.append(await bench_runs.individual(self._new(), self._orders, 0, self._audited))
            ceilings["store alone"].append(await self._bare_store())
        name = "2,000 buyers, each awaiting its own order"
        return [
            figure(title, "orders/s", values, 100_000, ceilings=ceilings, checked=BY_AUDIT)
            for title, values in ((f"{name}, limit per buyer", limited), (name, free))
        ]

    async def lists(self) -> list[Figure]:
        limited: list[float] = []
        free: list[float] = []
        bare: list[float] = []
        for _ in range(self._repeats):
            limited.append(await self._lists(2))
            bare.append(await self._bare_store())
            free.append(await self._lists(0))
        name = "orders in lists of 8,190"
        ceilings = {"store alone": bare}
        return [
            figure(title, "orders/s", values, 400_000, ceilings=ceilings, checked=BY_AUDIT)
            for title, values in ((f"{name}, limit per buyer", limited), (name, free))
        ]

    async def lonely(self) -> list[Figure]:
        ours: list[float] = []
        bare: list[float] = []
        for _ in range(self._repeats):
            order_ms, bare_ms = await bench_runs.lonely(self._new(), LONELY_ORDERS, self._audited)
            ours.append(order_ms)
            bare.append(bare_ms)
        ratios = [each / other for each, other in zip(ours, bare, strict=True)]
        name = "one lonely order"
        ceilings = {"bare commit": bare}
        return [
            figure(f"{name} / a bare commit", "x", ratios, 1.5, at_least=False, checked=BY_AUDIT),
            figure(name, "ms", ours, None, at_least=False, ceilings=ceilings, checked=BY_AUDIT),
        ]

    async def memory(self) -> list[Figure]:
        figures: list[Figure] = []
        for name, budget, *options in MEMORY_KINDS:
            values = [
                await self._resident_bytes(options)
                for _ in range(min(MEMORY_REPEATS_MAX, self._repeats))
            ]
            title = f"memory an accepted order, limit per buyer, {name}"
            figures.append(figure(title, "bytes", values, budget, at_least=False, checked=BY_ROW))
        return figures

    async def replay(self) -> list[Figure]:
        orders = -(-self._resident_orders // LIST_SIZE) * LIST_SIZE
        plain, helped = self._new(), self._new()
        await bench_runs.lists(plain, orders, 2, self._audited, snapshots=False)
        await bench_runs.lists(helped, orders, 2, self._audited)
        covered = await bench_runs.snapshot_version(helped) / (orders + 1)
        without: list[float] = []
        with_one: list[float] = []
        bare: list[float] = []
        for _ in range(self._repeats):
            without.append(await bench_runs.replay(self._copy(plain), orders))
            bare.append(await bench_ceilings.bare_read(plain))
            with_one.append(await bench_runs.replay(self._copy(helped), orders))
        name = "replay at start, limit per buyer"
        ceilings = {"read and decode": bare}
        return [
            figure(
                f"{name}, no snapshot",
                "events/s",
                without,
                300_000,
                ceilings=ceilings,
                checked=BY_REPEATS,
            ),
            figure(
                f"{name}, with a snapshot of {covered:.0%}",
                "events/s",
                with_one,
                None,
                ceilings=ceilings,
                checked=BY_REPEATS,
            ),
        ]

    async def history(self) -> list[Figure]:
        path = self._new()
        orders = -(-self._history_events // LIST_SIZE) * LIST_SIZE
        # A snapshot is due at other orders of a full store than of an empty one, so there are none.
        await bench_runs.lists(path, orders, 0, prefix="past", snapshots=False)
        full: list[float] = []
        empty: list[float] = []
        for repeat in range(self._repeats):
            prefix = f"now{repeat}"
            full.append(
                await bench_runs.lists(path, self._orders, 0, prefix=prefix, snapshots=False)
            )
            empty.append(
                await bench_runs.lists(self._new(), self._orders, 0, prefix=prefix, snapshots=False)
            )
        ratios = [each / other for each, other in zip(full, empty, strict=True)]
        name = f"lists after {self._history_events:,} events of the SKU"
        ceilings = {"empty store": empty}
        return [
            figure(f"{name} / on an empty store", "x", ratios, 0.9, checked=BY_ROW),
            figure(name, "orders/s", full, None, ceilings=ceilings, checked=BY_ROW),
        ]

    async def start(self) -> list[Figure]:
        repeats = min(LONG_REPEATS_MAX, self._repeats)
        return await LongHistory(
            self._new, self._history_events, max(LIST_SIZE * 3, self._orders), repeats
        ).figures()

    async def _lists(self, limit_per_buyer: int) -> float:
        return await bench_runs.lists(self._new(), self._orders, limit_per_buyer, self._audited)

    async def _bare_store(self) -> float:
        return await bench_ceilings.bare_store(self._new(), -(-self._orders // LIST_SIZE))

    async def _resident_bytes(self, options: list[str]) -> float:
        command = [
            *(sys.executable, "-m", "loadtest.bench.memory"),
            *(str(self._new()), str(self._resident_orders), *options),
        ]
        done = await asyncio.to_thread(
            subprocess.run, command, check=False, capture_output=True, text=True
        )
        if done.returncode:
            raise WrongAnswer(f"the process that measures memory failed:\n{done.stderr}")
        return float(done.stdout)

    def _copy(self, path: Path) -> Path:
        # Replaying adds an order, and the next repeat is to find the same events.
        copy = self._new()
        shutil.copy(path, copy)
        return copy

    def _new(self) -> Path:
        return Path(tempfile.mkdtemp(dir=self._place)) / "sale.db"


async def _finish(step: Awaitable[list[Figure]]) -> list[Figure]:
    return await step
