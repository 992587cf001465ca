"""The pages of an experiment: tables, plots and README.md beside run.json."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from rich.table import Table

from loadtest.machine import short_commit
from loadtest.plots import Panel, by_batch_size
from loadtest.results import write_run, write_whole
from loadtest.tune import CellRun
from loadtest.tune_report import CellSummary, TuneRun
from loadtest.tune_words import sentences

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
COLUMNS_MIN: Final = 5
AT: Final = "in flight"
RUNS: Final = "runs"


def table_of(run: TuneRun, width: int = 120) -> Table:
    """Return the experiment as a table for a terminal, the last columns left out where they don't fit."""
    table = Table(title="Batch sizes", title_justify="left", box=None, pad_edge=False)
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
    for name, plot in plots.items():
        write_whole(directory / name, plot)
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
    for name in plots:
        page += ["", f"![Throughput and latency by batch size]({name})"]
    write_run(directory, run, page)
    return list(plots)


def plots_of(run: TuneRun) -> dict[str, bytes]:
    """A plot for each concurrency by its file name; none without a setting of the grid."""
    found = {}
    several = _concurrencies(run)
    for at in several:
        cells = [each for each in run.cells if each.cell.concurrency == at]
        if any(not each.cell.named for each in cells):
            name = PLOT_FILE if len(several) == 1 else f"batch-size-{at}.svg"
            found[name] = _plot(run, cells, at)
    return found


def _how(run: TuneRun) -> str:
    config = run.config
    driver, size = config.get("driver", "inproc"), config.get("list_size", 1)
    many = _listed([f"{each:,}" for each in _concurrencies(run)])
    skus = _times(config["workload"].get("skus", 1), "SKU")
    if driver == "http":
        what = "single orders" if size == 1 else f"lists of {size:,} orders"
        crowd = f"{many} connections to a server process, each with one request under way: {what}"
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
    return (
        f"{crowd}, on {skus}; {often}, for {config['seconds_max']:g} s{after}, in a new random order "
        "each time. Medians, with the 95 % interval of the bootstrap; run.json holds every run. The "
        f"audits replayed {run.checked_events:,} events and found nothing."
    )


def _plot(run: TuneRun, cells: Sequence[CellSummary], at: int) -> bytes:
    """Settings with a delay stand among the named ones: the axis has only sizes."""
    in_line = [each for each in cells if not each.cell.named and not _delay(each)]
    in_line = in_line or [each for each in cells if not each.cell.named]
    beside = [each for each in cells if each not in in_line]

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
        f"{run.machine.store} {run.machine.store_version}, {at:,} in flight",
        [
            panel("durable orders a second", lambda one: one.durable_per_s),
            panel("p99 latency, ms", lambda one: one.p99_ms, log=True),
        ],
    )


def _delay(each: CellSummary) -> float:
    return each.cell.batch.delay_ms_max


def _concurrencies(run: TuneRun) -> list[int]:
    return list(dict.fromkeys(each.cell.concurrency for each in run.cells))


def tabulate(run: TuneRun, cells: Sequence[CellSummary]) -> tuple[list[str], list[list[str]]]:
    """Concurrency and number of runs are columns where they are not the same everywhere."""
    several = len(_concurrencies(run)) > 1
    unlike = len({len(each.repeats) for each in cells}) > 1
    columns = [COLUMNS[0], *([AT] if several else []), *COLUMNS[1:], *([RUNS] if unlike else [])]
    rows = []
    for each in cells:
        label, *figures = _row(each)
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
        f"{rate.low:,.0f} to {rate.high:,.0f}",
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
