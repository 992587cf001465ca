"""The pages of an experiment: tables, plots and README.md beside run.json."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from rich.table import Table

from loadtest.intervals import REPEATS_MIN, span
from loadtest.machine import short_commit
from loadtest.results import write_run, write_whole
from loadtest.tuning.plots import concurrencies_of, plots_of
from loadtest.tuning.report import CellSummary, TuneRun
from loadtest.tuning.words import sentences

COLUMNS: Final = (
    "batch size",
    "durable/s",
    "95 % interval",
    "p50 ms",
    "p99 ms",
    "mean size",
    "commits/s",
)
COLUMNS_MIN: Final = 5
AT: Final = "in flight"
RUNS: Final = "runs"
RECOMMENDED: Final = " *"
"""Stands behind the label of the setting that is recommended."""


def table_of(run: TuneRun, width: int = 120) -> Table:
    """Return the experiment as a table for a terminal, the last columns left out where they don't fit."""
    marked = ", * is recommended" if recommended(run) is not None else ""
    table = Table(title=f"Batch sizes{marked}", title_justify="left", box=None, pad_edge=False)
    columns, rows = tabulate(run, run.cells)
    while len(columns) > COLUMNS_MIN and _width(columns, rows) > width:
        columns, rows = columns[:-1], [row[:-1] for row in rows]
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number else "left", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    return table


def _width(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> int:
    """Of the table, with two spaces between its columns."""
    return sum(max(map(len, column)) + 2 for column in zip(columns, *rows, strict=True)) - 2


def write(run: TuneRun, directory: Path) -> list[str]:
    """Write run.json, the plots, and a README.md that shows both; return the plots' names.

    Raises ConfigError.
    """
    plots = plots_of(run)
    for each in plots:
        write_whole(directory / each.file, each.svg)
    page = [
        f"# Batch sizes on {run.started_at[:10]}, commit {short_commit(run.commit)}",
        "",
        f"{run.machine.line} Store, load generator and engine share the cores.",
        "",
        _how(run),
        "",
        *_markdown(run, run.cells),
    ]
    if run.recommendation is not None:
        page += ["", "## Recommended", ""]
        page += [line for each in sentences(run) for line in (each, "")][:-1]
        if run.confirmed:
            page += ["", "The fresh runs:", "", *_markdown(run, run.confirmed)]
    if run.dropped:
        page += ["", "## Dropped by the search", ""]
        page += [
            f"- {each.label}, after {_times(each.repeats, 'repeat')}: {each.why}"
            for each in run.dropped
        ]
    for plot in plots:
        page += ["", f"![{plot.caption}]({plot.file})"]
    write_run(directory, run, page)
    return [each.file for each in plots]


def _how(run: TuneRun) -> str:
    config = run.config
    driver, size = config.get("driver", "inproc"), config.get("list_size", 1)
    many = _listed([f"{each:,}" for each in concurrencies_of(run.cells)])
    skus = _times(config["workload"].get("skus", 1), "SKU")
    if driver == "http":
        what = "single orders" if size == 1 else f"lists of {size:,} orders"
        crowd = f"{many} connections to a server process, each with one request under way: {what}"
    elif driver == "locust":
        what = "single orders" if size == 1 else f"lists of {size:,} orders"
        crowd = (
            f"{many} users of Locust at a server process, who order again when answered, with {what} "
            "(mean size and commits/s are of the warm-up too)"
        )
    else:
        crowd = f"{many} buyers, each waiting for their own order"
    warmup = config.get("warmup_seconds", 0)
    after = f" after {warmup:g} s that are not counted" if warmup else ""
    often = (
        "every setting once, the better half of them more often, until few are left with "
        f"{_times(config['repeats'], 'repeat')}"
        if config.get("search")
        else f"every setting {_times(config['repeats'], 'time')}"
    )
    few = "" if config["repeats"] >= REPEATS_MIN else f" where there are {REPEATS_MIN} runs or more"
    star = "" if recommended(run) is None else " * is recommended."
    return (
        f"{crowd}, on {skus}; {often}, for {config['seconds_max']:g} s{after}, in a new random order "
        f"each time. Medians, with their 95 % interval{few}; run.json holds every run. The "
        f"audits replayed {run.checked_events:,} events and found nothing.{star}"
    )


def recommended(run: TuneRun) -> str | None:
    """The label of the setting that is recommended, if one is."""
    chosen = run.recommendation
    return chosen.label if chosen is not None and chosen.holds else None


def tabulate(run: TuneRun, cells: Sequence[CellSummary]) -> tuple[list[str], list[list[str]]]:
    """Concurrency and number of runs are columns where they are not the same everywhere."""
    several = len(concurrencies_of(run.cells)) > 1
    unlike = len({len(each.repeats) for each in cells}) > 1
    columns = [COLUMNS[0], *([AT] if several else []), *COLUMNS[1:], *([RUNS] if unlike else [])]
    rows = []
    for each in cells:
        label, *figures = _row(each)
        label += RECOMMENDED if each.cell.label == recommended(run) else ""
        at = [f"{each.cell.concurrency:,}"] if several else []
        rows.append([label, *at, *figures, *([f"{len(each.repeats)}"] if unlike else [])])
    return columns, rows


def _markdown(run: TuneRun, cells: Sequence[CellSummary]) -> list[str]:
    columns, rows = tabulate(run, cells)
    return [
        f"| {' | '.join(columns)} |",
        "|---" * len(columns) + "|",
        *(f"| {' | '.join(row)} |" for row in rows),
    ]


def _row(each: CellSummary) -> list[str]:
    rate = each.durable_per_s
    return [
        each.cell.label,
        f"{rate.median:,.0f}",
        span(rate, len(each.repeats)),
        f"{each.p50_ms:,.1f}",
        f"{each.p99_ms:,.1f}",
        f"{each.size_mean:,.1f}",
        f"{each.transactions_per_s:,.0f}",
    ]


def _listed(names: Sequence[str]) -> str:
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last


def _times(count: int, what: str) -> str:
    return f"{count:,} {what}" if count == 1 else f"{count:,} {what}s"
