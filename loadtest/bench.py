"""`python -m loadtest.bench`: the budgets, each beside a ceiling measured in the same run."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np
import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from engine.runtime import tune_garbage_collector
from loadtest import bench_runs
from loadtest.machine import Machine, describe_machine, source_commit

BOOTSTRAP_SAMPLES = 2_000
LONELY_ORDERS = 300
UUID_OPTION, SHORT_OPTION = "uuid", "short"


class Figure(msgspec.Struct, frozen=True):
    """One measured figure: the median of `repeats` with its bootstrap 95 % interval.

    `budget` is what must be reached (`at_least`) or not exceeded; `ceiling` is the median of the
    same thing without the engine, measured in alternation with it.
    """

    name: str
    unit: str
    repeats: list[float]
    median: float
    low: float
    high: float
    budget: float
    at_least: bool
    ceiling: float | None = None
    ceiling_name: str = ""

    @property
    def met(self) -> bool:
        return self.median >= self.budget if self.at_least else self.median <= self.budget


class BenchRun(msgspec.Struct, frozen=True, kw_only=True):
    """`run.json` of a benchmark."""

    schema: int = 1
    kind: str = "bench"
    started_at: str
    commit: str
    machine: Machine
    config: dict[str, Any]
    strategy: str = "group-commit"
    figures: list[Figure]


def figure(
    name: str,
    unit: str,
    repeats: list[float],
    budget: float,
    *,
    at_least: bool = True,
    ceiling: list[float] | None = None,
    ceiling_name: str = "",
) -> Figure:
    """Summarise repeats. The interval is the percentile bootstrap of the median (Efron 1979)."""
    values = np.array(repeats)
    rng = np.random.default_rng(1)
    medians = np.median(rng.choice(values, (BOOTSTRAP_SAMPLES, len(values))), axis=1)
    low, high = np.percentile(medians, [2.5, 97.5])
    return Figure(
        name,
        unit,
        repeats,
        float(np.median(values)),
        float(low),
        float(high),
        budget,
        at_least,
        float(np.median(ceiling)) if ceiling else None,
        ceiling_name,
    )


class Bench:
    """Runs every benchmark in stores of its own below `place`."""

    def __init__(self, place: Path, repeats: int, scale: float, history_events: int) -> None:
        self._place = place
        self._repeats = repeats
        self._orders = max(bench_runs.LIST_SIZE * 2, int(500_000 * scale))
        self._resident_orders = max(20_000, int(1_000_000 * scale))
        self._history_events = history_events

    def config(self) -> dict[str, Any]:
        return {
            "buyers": bench_runs.BUYERS,
            "list_size": bench_runs.LIST_SIZE,
            "orders": self._orders,
            "resident_orders": self._resident_orders,
            "history_events": self._history_events,
            "repeats": self._repeats,
        }

    def steps(self) -> list[tuple[str, Callable[[], Awaitable[list[Figure]]]]]:
        return [
            ("individual awaits", self.individual),
            ("lists", self.lists),
            ("lonely order", self.lonely),
            ("memory", self.memory),
            ("replay", self.replay),
            ("history length", self.history),
        ]

    async def individual(self) -> list[Figure]:
        limited: list[float] = []
        free: list[float] = []
        loops: list[float] = []
        for _ in range(self._repeats):
            limited.append(await bench_runs.individual(self._new(), self._orders, 2))
            free.append(await bench_runs.individual(self._new(), self._orders, 0))
            loops.append(await bench_runs.bare_loop(self._orders))
        name = "2,000 buyers, each awaiting its own order"
        return [
            figure(title, "orders/s", values, 100_000, ceiling=loops, ceiling_name="loop alone")
            for title, values in ((name, free), (f"{name}, limit per buyer", limited))
        ]

    async def lists(self) -> list[Figure]:
        limited: list[float] = []
        free: list[float] = []
        bare: list[float] = []
        batches = -(-self._orders // bench_runs.LIST_SIZE)
        for _ in range(self._repeats):
            limited.append(await bench_runs.lists(self._new(), self._orders, 2))
            free.append(await bench_runs.lists(self._new(), self._orders, 0))
            bare.append(await bench_runs.bare_store(self._new(), batches))
        name = "orders in lists of 8,190"
        return [
            figure(title, "orders/s", values, 400_000, ceiling=bare, ceiling_name="store alone")
            for title, values in ((name, free), (f"{name}, limit per buyer", limited))
        ]

    async def lonely(self) -> list[Figure]:
        ratios: list[float] = []
        for _ in range(self._repeats):
            ours, bare = await bench_runs.lonely(self._new(), LONELY_ORDERS)
            ratios.append(ours / bare)
        name = "one lonely order / a bare commit"
        return [figure(name, "x", ratios, 1.5, at_least=False)]

    async def memory(self) -> list[Figure]:
        figures: list[Figure] = []
        for ids, name in ((SHORT_OPTION, "short ids"), (UUID_OPTION, "UUID ids")):
            values: list[float] = []
            for _ in range(min(3, self._repeats)):
                command = [
                    *(sys.executable, "-m", "loadtest.bench_memory"),
                    *(str(self._new()), str(self._resident_orders), ids),
                ]
                done = await asyncio.to_thread(
                    subprocess.run, command, check=True, capture_output=True, text=True
                )
                values.append(float(done.stdout))
            title = f"resident memory an accepted order, {name}"
            figures.append(figure(title, "bytes", values, 250, at_least=False))
        return figures

    async def replay(self) -> list[Figure]:
        path = self._new()
        orders = self._resident_orders // bench_runs.LIST_SIZE * bench_runs.LIST_SIZE
        await bench_runs.lists(path, orders, 2)
        values: list[float] = []
        for _ in range(self._repeats):
            copy = self._new()
            shutil.copy(path, copy)
            values.append(await bench_runs.replay(copy, orders))
        return [figure("replay at start, limit per buyer", "events/s", values, 300_000)]

    async def history(self) -> list[Figure]:
        path = self._new()
        orders = -(-self._history_events // bench_runs.LIST_SIZE) * bench_runs.LIST_SIZE
        await bench_runs.lists(path, orders, 0, prefix="past")
        ratios: list[float] = []
        for repeat in range(self._repeats):
            full = await bench_runs.lists(path, self._orders, 0, prefix=f"now{repeat}")
            empty = await bench_runs.lists(self._new(), self._orders, 0)
            ratios.append(full / empty)
        name = f"lists after {self._history_events:,} events of the SKU / on an empty store"
        return [figure(name, "x", ratios, 0.9)]

    def _new(self) -> Path:
        return Path(tempfile.mkdtemp(dir=self._place)) / "sale.db"


def table_of(run: BenchRun) -> Table:
    table = Table(title="Budgets, SQLite", title_justify="left", box=None, pad_edge=False)
    for column in ("figure", "median", "95 % interval", "ceiling", "budget", ""):
        table.add_column(column, justify="left" if column in ("figure", "") else "right")
    for each in run.figures:
        table.add_row(*_cells(each))
    return table


def _cells(each: Figure) -> list[str]:
    ceiling = f"{_text(each.ceiling)} ({each.ceiling_name})" if each.ceiling else ""
    sign = ">=" if each.at_least else "<="
    return [
        f"{each.name}, {each.unit}",
        _text(each.median),
        f"{_text(each.low)} to {_text(each.high)}",
        ceiling,
        f"{sign} {_text(each.budget)}",
        "met" if each.met else "MISSED",
    ]


def _text(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:,.2f}"


def write(run: BenchRun, out: Path) -> None:
    """Write run.json and a README.md with the table, into a new folder."""
    out.mkdir(parents=True, exist_ok=True)
    encoded = msgspec.json.format(msgspec.json.encode(run), indent=2)
    (out / "run.json").write_bytes(encoded + b"\n")
    machine = run.machine
    lines = [
        f"# Benchmark of {run.started_at[:10]}, commit {run.commit[:12]}",
        "",
        (
            f"{machine.cores} x {machine.cpu}, {machine.memory_gib:g} GiB, {machine.kernel}, "
            f"{machine.python}; {machine.store} {machine.store_version}, {machine.durability}."
        ),
        (
            f"Settings: {', '.join(f'{key} {value:,}' for key, value in run.config.items())}. "
            "The load generator shares the cores. Medians of the repeats; run.json holds every one."
        ),
        "",
        "| figure | median | 95 % interval | ceiling of the same run | budget | |",
        "|---|---|---|---|---|---|",
        *(f"| {' | '.join(_cells(each))} |" for each in run.figures),
    ]
    (out / "README.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def main(
    out: Annotated[
        Path | None, typer.Option(help="Where to write; default results/bench-*.")
    ] = None,
    repeats: Annotated[int, typer.Option(min=1, max=100)] = 5,
    scale: Annotated[float, typer.Option(min=0.001, max=10)] = 1.0,
    history_events: Annotated[int, typer.Option(min=1)] = 10_000_000,
) -> None:
    """Measure the budgets of the embedded store. A wrong answer fails the run."""
    started = datetime.now(UTC)
    commit = source_commit()
    out = out or Path("results") / f"bench-{started:%Y-%m-%d}-{commit[:8]}"
    out.mkdir(parents=True, exist_ok=True)
    tune_garbage_collector()
    figures: list[Figure] = []
    console = Console()
    # Beside the results, because a temporary directory may live in memory, where fsync costs nothing.
    with tempfile.TemporaryDirectory(dir=out, prefix="stores-") as place:
        bench = Bench(Path(place), repeats, scale, history_events)
        steps = bench.steps()
        with Progress(console=Console(stderr=True)) as progress:
            task = progress.add_task("benchmarks", total=len(steps))
            for name, step in steps:
                progress.update(task, description=name)
                figures += asyncio.run(collect(step))
                progress.advance(task)
        info = asyncio.run(bench_runs.store_info(Path(place) / "info.db"))
    run = BenchRun(
        started_at=started.isoformat(timespec="seconds"),
        commit=commit,
        machine=describe_machine(info),
        config=bench.config(),
        figures=figures,
    )
    write(run, out)
    console.print(table_of(run))
    console.print(f"written: {out}/run.json and README.md")


async def collect(step: Callable[[], Awaitable[list[Figure]]]) -> list[Figure]:
    return await step()


if __name__ == "__main__":
    typer.run(main)
