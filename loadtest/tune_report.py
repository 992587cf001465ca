"""What an experiment says: a table, a plot, and every run in run.json."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
from rich.table import Table

from engine.config import BatchSettings
from loadtest.intervals import Interval, interval_of
from loadtest.machine import Machine, short_commit
from loadtest.plots import Panel, by_batch_size
from loadtest.results import SCHEMA, Kind, Strategy, write_run, write_whole
from loadtest.tune import Cell, CellRun

PLOT_FILE: Final = "batch-size.svg"
COLUMNS: Final = (
    "batch size",
    "durable/s",
    "95 % interval",
    "p50 ms",
    "p99 ms",
    "mean size",
    "commits/s",
)


class CellSummary(msgspec.Struct, frozen=True, kw_only=True):
    """The repeats of one setting: medians, and the interval of the throughput."""

    cell: Cell
    durable_per_s: Interval
    p50_ms: float
    p99_ms: float
    size_mean: float
    transactions_per_s: float
    repeats: list[CellRun]


class Recommendation(msgspec.Struct, frozen=True, kw_only=True):
    """The setting to take for `aim`, and those that cannot be told from it.

    `p99_ms_max` was the condition, null without one. `not_told_from` are labels of other settings
    whose throughput, relative to the recommended one, has an interval that spans 1. `measured_again`
    is its throughput in fresh runs made after it was chosen, null when there were none.
    """

    aim: str
    p99_ms_max: float | None
    batch: BatchSettings
    label: str
    durable_per_s: Interval
    p99_ms: float
    not_told_from: list[str]
    measured_again: Interval | None = None


class TuneRun(msgspec.Struct, frozen=True, kw_only=True):
    """`run.json` of an experiment. Every run in it was audited and found right."""

    schema: int = SCHEMA
    kind: Kind = "tune"
    started_at: str
    commit: str
    seed: int
    machine: Machine
    config: dict[str, Any]
    strategy: Strategy = "group-commit"
    checked_events: int
    cells: list[CellSummary]
    recommendation: Recommendation | None = None


def summarise(cells: Sequence[Cell], runs: Sequence[CellRun]) -> list[CellSummary]:
    """Put the repeats of each cell together, in the order of `cells`."""
    return [_summarise(cell, [run for run in runs if run.cell == cell]) for cell in cells]


def _summarise(cell: Cell, runs: list[CellRun]) -> CellSummary:
    def median(of: Callable[[CellRun], float]) -> float:
        return interval_of([of(run) for run in runs]).median

    return CellSummary(
        cell=cell,
        durable_per_s=interval_of([run.durable_per_s for run in runs]),
        p50_ms=median(lambda run: run.p50_ms),
        p99_ms=median(lambda run: run.p99_ms),
        size_mean=median(lambda run: run.size_mean),
        transactions_per_s=median(lambda run: run.transactions_per_s),
        repeats=runs,
    )


def table_of(run: TuneRun) -> Table:
    """Return the experiment as a table for the terminal."""
    table = Table(title="Batch sizes", title_justify="left", box=None, pad_edge=False)
    for number, column in enumerate(COLUMNS):
        table.add_column(column, justify="right" if number else "left", no_wrap=True)
    for each in run.cells:
        table.add_row(*_row(each))
    return table


def write(run: TuneRun, directory: Path) -> None:
    """Write run.json, the plot, and a README.md that shows both. Raises ConfigError."""
    skus = run.config["workload"].get("skus", 1)
    how = (
        f"{run.config['concurrency']:,} buyers, each waiting for their own order, on {skus:,} "
        f"{'SKU' if skus == 1 else 'SKUs'}; every setting {run.config['repeats']} times for "
        f"{run.config['seconds_max']:g} s, in a new random order each time. Medians, with the 95 % "
        "interval of the bootstrap; run.json holds every run. The audits replayed "
        f"{run.checked_events:,} events and found nothing."
    )
    page = [
        f"# Batch sizes on {run.started_at[:10]}, commit {short_commit(run.commit)}",
        "",
        f"{run.machine.line} Store, load generator and engine share the cores.",
        "",
        how,
        "",
        f"| {' | '.join(COLUMNS)} |",
        "|---" * len(COLUMNS) + "|",
        *(f"| {' | '.join(_row(each))} |" for each in run.cells),
        "",
        f"![Throughput and latency by batch size]({PLOT_FILE})",
    ]
    if any(not each.cell.named for each in run.cells):
        write_whole(directory / PLOT_FILE, _plot(run))
    else:
        page = page[:-2]
    write_run(directory, run, page)


def _plot(run: TuneRun) -> bytes:
    """Settings with a delay stand among the named ones: the axis has only sizes."""
    in_line = [each for each in run.cells if not each.cell.named and not _delay(each)]
    in_line = in_line or [each for each in run.cells if not each.cell.named]
    beside = [each for each in run.cells if each not in in_line]

    def panel(label: str, of: Callable[[CellRun], float], *, log: bool = False) -> Panel:
        points: dict[float, list[float]] = {
            each.cell.batch.size_max: [of(one) for one in each.repeats] for each in in_line
        }
        named = {
            each.cell.label: (each.cell.batch.size_max, [of(one) for one in each.repeats])
            for each in beside
        }
        return Panel(label, points, named, log)

    return by_batch_size(
        f"{run.machine.store} {run.machine.store_version}, {run.config['concurrency']:,} in flight",
        [
            panel("durable orders a second", lambda one: one.durable_per_s),
            panel("p99 latency, ms", lambda one: one.p99_ms, log=True),
        ],
    )


def _delay(each: CellSummary) -> float:
    return each.cell.batch.delay_ms_max


def _row(each: CellSummary) -> list[str]:
    rate = each.durable_per_s
    return [
        each.cell.label,
        f"{rate.median:,.0f}",
        f"{rate.low:,.0f} to {rate.high:,.0f}",
        f"{each.p50_ms:,.1f}",
        f"{each.p99_ms:,.1f}",
        f"{each.size_mean:,.1f}",
        f"{each.transactions_per_s:,.0f}",
    ]
