"""The same sale with every batch setting in turn, each in an empty store of its own.

Settings take turns in a new random order every repeat, so that a machine that is slower for a while
is slower for all of them. Every run is audited; one that is not proven ends the experiment.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

import msgspec

from engine.config import BatchSettings, Settings
from engine.errors import ConfigError, SeckillError
from loadtest.machine import Machine
from loadtest.scratch import scratch_store
from loadtest.settings import LIMITS, check_limit
from loadtest.simulate import Plan, run_sale
from loadtest.workload import Workload

SIZES: Final = (1, 10, 50, 100, 200, 500, 1_000, 2_000, 5_000)
SECONDS_MAX: Final = 2.0
CELLS_MAX: Final = 200


class NotProven(SeckillError):
    """A run's audit found something: its figures, and those beside it, mean nothing."""


class Cell(msgspec.Struct, frozen=True):
    """One batch setting under `concurrency` unanswered orders.

    `named` is the configuration it comes from, empty in the grid.
    """

    batch: BatchSettings
    named: str = ""
    concurrency: int = 2_000

    @property
    def label(self) -> str:
        size, delay = self.batch.size_max, self.batch.delay_ms_max
        text = f"{size:,}" + (f" / {delay:g} ms" if delay else "")
        return f"{self.named} ({text})" if self.named else text


class CellRun(msgspec.Struct, frozen=True, kw_only=True):
    """One run of one setting. `size_mean` is orders a batch, rates are a second."""

    cell: Cell
    repeat: int
    orders: int
    seconds: float
    durable_per_s: float
    transactions_per_s: float
    size_mean: float
    p50_ms: float
    p99_ms: float
    checked_events: int


class Experiment(msgspec.Struct, frozen=True):
    """What to try: `workload` is offered for `seconds_max` with each of `cells`, `repeats` times."""

    workload: Workload
    settings: Settings
    cells: tuple[Cell, ...]
    directory: Path
    concurrency: int
    repeats: int
    seconds_max: float
    seed: int

    @property
    def runs(self) -> int:
        return len(self.cells) * self.repeats


def grid(settings: Settings, sizes: Sequence[int], delays_ms: Sequence[float]) -> list[Cell]:
    """Every size with every delay; what else there is in `settings` stays. Raises ConfigError."""
    for size in sizes:
        check_limit("batch_size", size)
    for delay in delays_ms:
        check_limit("batch_delay_ms", delay)
    cells = [
        Cell(msgspec.structs.replace(settings.batch, size_max=size, delay_ms_max=delay))
        for delay in dict.fromkeys(delays_ms)
        for size in dict.fromkeys(sizes)
    ]
    if len(cells) > CELLS_MAX:
        raise ConfigError(f"{len(cells):,} settings to try; at most {CELLS_MAX} at a time")
    return cells


def parse_numbers(flag: str, text: str) -> list[float]:
    """Read `1,10,50`. Raises ConfigError naming the flag and its limits."""
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        least, most = LIMITS[flag]
        raise ConfigError(
            f"--{flag.replace('_', '-')} takes numbers from {least:,} to {most:,} separated by "
            f"commas, such as 1,10,100; got {text[:40]!r}"
        ) from None


def run_experiment(
    experiment: Experiment, done: Callable[[CellRun], None] = lambda _: None
) -> tuple[list[CellRun], Machine]:
    """Run every cell. `done` is told each result. Raises NotProven, and what `run_sale` raises."""
    runs: list[CellRun] = []
    machine: Machine | None = None
    for repeat, cell in _in_turns(experiment):
        settings = msgspec.structs.replace(experiment.settings, batch=cell.batch)
        with scratch_store(settings, experiment.directory) as scratch:
            run, machine = _run_cell(experiment, cell, repeat, scratch)
        runs.append(run)
        done(run)
    assert machine is not None, "an experiment has at least one cell"
    return runs, machine


def _in_turns(experiment: Experiment) -> Iterator[tuple[int, Cell]]:
    shuffle = random.Random(experiment.seed).shuffle
    for repeat in range(1, experiment.repeats + 1):
        cells = list(experiment.cells)
        shuffle(cells)
        yield from ((repeat, cell) for cell in cells)


def _run_cell(
    experiment: Experiment, cell: Cell, repeat: int, settings: Settings
) -> tuple[CellRun, Machine]:
    outcome = run_sale(
        Plan(
            experiment.workload,
            settings,
            experiment.directory,
            experiment.concurrency,
            seconds_max=experiment.seconds_max,
        )
    )
    run, orders = outcome.run, outcome.run.orders
    if not run.audit.ok or orders.failed or orders.unknown:
        found = [*run.audit.findings, *outcome.errors, f"{orders.unknown:,} orders in doubt"]
        raise NotProven(f"batch size {cell.label}: {found[0]}")
    seconds = run.throughput.seconds
    return CellRun(
        cell=cell,
        repeat=repeat,
        orders=orders.accepted,
        seconds=seconds,
        durable_per_s=run.throughput.durable_per_s,
        transactions_per_s=round(run.batches.transactions / seconds, 1),
        size_mean=run.batches.size_mean,
        p50_ms=run.latency_ms.p50,
        p99_ms=run.latency_ms.p99,
        checked_events=run.audit.checked_events,
    ), run.machine
