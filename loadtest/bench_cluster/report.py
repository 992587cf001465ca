"""What a benchmark of a cluster writes: run.json, a page of tables, and a plot."""

from __future__ import annotations

import io
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, Final

import msgspec
from rich.table import Table

from loadtest.bench.report import BenchAudit
from loadtest.bench_cluster.brokers import BrokerRow
from loadtest.bench_cluster.programs import ALONE
from loadtest.bench_cluster.runs import Row
from loadtest.bench_cluster.scaling import COLUMNS as SCALING_COLUMNS
from loadtest.bench_cluster.scaling import REPLICAS, USED_SHARE, scaling
from loadtest.bench_cluster.steps import CPU, HOP, LISTS
from loadtest.intervals import Interval
from loadtest.machine import Machine, short_commit
from loadtest.plots import COLORS, STYLE
from loadtest.results import SCHEMA, Kind, Strategy, write_run, write_whole

COMMANDS_PER_S_MIN: Final = 333_000
"""A million in three seconds."""

PARTS: Final = (ALONE, "gateway", "brokers", "engine", "database")
PLOT_FILE: Final = "cluster.svg"

TITLES: Final = {
    HOP: "What the hop costs",
    LISTS: "Commands in lists",
    CPU: "Processor time at a fixed load",
}
COLUMNS: Final = ("layout", "orders/s", "times in process", "p50, ms", "p99, ms")
CPU_COLUMNS: Final = ("layout", *PARTS, "sum")
BROKER_COLUMNS: Final = (
    "messages",
    "brokers",
    "commands each",
    "bytes",
    "messages/s",
    "commands/s",
)


class ClusterRun(msgspec.Struct, frozen=True, kw_only=True):
    """`run.json` of a benchmark of a cluster. Every store in it was audited and found right."""

    schema: int = SCHEMA
    kind: Kind = "bench-cluster"
    started_at: str
    commit: str
    seed: int
    machine: Machine
    broker: str
    load_average: list[float]
    """Of one minute, at the beginning and after each benchmark: what else the cores had to do."""
    config: dict[str, Any]
    strategy: Strategy = "group-commit"
    audit: BenchAudit
    rows: dict[str, list[Row]]
    """By benchmark: hop, lists, cpu."""
    brokers: list[BrokerRow]


def tables_of(run: ClusterRun) -> list[Table]:
    """The tables for the terminal."""
    found = []
    for title, columns, lines in _tables(run):
        table = Table(title=title, title_justify="left", box=None, pad_edge=False)
        for number, column in enumerate(columns):
            table.add_column(column, justify="right" if number else "left")
        for line in lines:
            table.add_row(*line)
        found.append(table)
    return found


def write(run: ClusterRun, out: Path) -> None:
    """Write run.json, the plot, and a README.md with all of it. Raises ConfigError."""
    settings = ", ".join(f"{key} {_setting(value)}" for key, value in run.config.items())
    loads = ", ".join(f"{each:.1f}" for each in run.load_average)
    page = [
        f"# A cluster on one machine on {run.started_at[:10]}, commit {short_commit(run.commit)}",
        "",
        f"{run.machine.line} {run.broker}, every message synced to disk.",
        (
            f"Settings: {settings}. All processes share the cores, and the load average was {loads} at the "
            "beginning and after each benchmark. Medians of the repeats with 95 % intervals; the layouts of "
            "a table were measured in turn, in a new random order each time. `times in process` is the "
            "median of the ratios to the same turn in process, on the same store."
        ),
        f"The audits of this run replayed {run.audit.checked_events:,} events and found nothing.",
    ]
    for title, columns, lines in _tables(run):
        page += [
            *("", f"## {title}", ""),
            f"| {' | '.join(columns)} |",
            "|---" * len(columns) + "|",
            *(f"| {' | '.join(line)} |" for line in lines),
        ]
    reached = [row for row in run.rows.get(LISTS, ()) if row.layout.replicas]
    if reached:
        best = max(reached, key=lambda row: row.per_second.median)
        met = "reached" if best.per_second.median >= COMMANDS_PER_S_MIN else "NOT reached"
        page += [
            "",
            (
                f"The number to beat is {COMMANDS_PER_S_MIN:,} commands/s through the broker: {met} here, the "
                f"best row has {_text(best.per_second)}."
            ),
        ]
    page += _scaling_lines(run)
    if run.rows:
        write_whole(out / PLOT_FILE, plot_of(run))
        page += ["", f"![Orders a second, and processor time by part]({PLOT_FILE})"]
    write_run(out, run, page)


def _tables(run: ClusterRun) -> list[tuple[str, Sequence[str], list[list[str]]]]:
    found: list[tuple[str, Sequence[str], list[list[str]]]] = []
    for name, rows in run.rows.items():
        for workload, group in groupby(rows, key=lambda row: row.workload):
            some = list(group)
            title = f"{TITLES[name]}: {workload}"
            if name != CPU:
                found.append((title, COLUMNS, [_cells(row) for row in some]))
            title = f"Seconds of processor time for a million orders: {workload}"
            if name in (CPU, LISTS):
                found.append((title, CPU_COLUMNS, [_cpu_cells(row) for row in some]))
    if run.brokers:
        found.append(("The brokers alone", BROKER_COLUMNS, [_broker(row) for row in run.brokers]))
    return found


def _scaling_lines(run: ClusterRun) -> list[str]:
    """What the run says of more nodes; nothing when a benchmark that it takes was left out."""
    lists = _spread(run.rows.get(LISTS, ()), many=True)
    hot = _spread(run.rows.get(LISTS, ()), many=False)
    singles = _spread(run.rows.get(HOP, ()), many=True)
    if lists is None or hot is None or singles is None or not run.brokers:
        return []
    return [
        *("", "## What that says of more nodes", ""),
        (
            f"Nodes of {run.machine.cores} cores like these, of which {USED_SHARE:.0%} are used, and processes "
            "where they are needed; docs/scaling.md tells what is assumed. No measurement."
        ),
        "",
        f"| {' | '.join(SCALING_COLUMNS)} |",
        "|---" * len(SCALING_COLUMNS) + "|",
        *(
            f"| {' | '.join((what, *cells))} |"
            for what, cells in scaling(lists, hot, singles, run.brokers, run.machine.cores)
        ),
    ]


def _spread(rows: Sequence[Row], *, many: bool) -> Row | None:
    """The row of many SKUs, or of one, through all brokers from a gateway to an engine of its own."""
    for row in rows:
        if row.layout.has_events or row.workload.endswith("SKUs") != many:
            continue
        if row.layout.is_split and row.layout.replicas == REPLICAS:
            return row
    return None


def _cells(row: Row) -> list[str]:
    return [
        row.layout.name,
        _text(row.per_second),
        "" if row.ratio is None else _text(row.ratio),
        _text(row.p50_ms),
        _text(row.p99_ms),
    ]


def _cpu_cells(row: Row) -> list[str]:
    parts = [_text(row.cpu[part]) if part in row.cpu else "" for part in PARTS]
    return [row.layout.name, *parts, _number(sum(each.median for each in row.cpu.values()))]


def _broker(row: BrokerRow) -> list[str]:
    return [
        *(row.what, f"{row.replicas}", f"{row.commands:,}", f"{row.message_bytes:,}"),
        *(_text(row.messages_per_s), _text(row.commands_per_s)),
    ]


def _text(found: Interval) -> str:
    return f"{_number(found.median)} ({_number(found.low)} to {_number(found.high)})"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:,.2f}"


def _setting(value: object) -> str:
    if isinstance(value, list | tuple):
        return "/".join(_setting(each) for each in value)
    return f"{value:,}" if isinstance(value, int | float) else str(value)


def plot_of(run: ClusterRun) -> bytes:
    """For every row its orders a second, and beside them who used the processor, and how much."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    rows = [row for some in run.rows.values() for row in some]
    places = range(len(rows))
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(13.0, 1.6 + 0.24 * len(rows)), layout="constrained")
        rates, shares = figure.subplots(1, 2, sharey=True)
        rates.barh(
            places,
            [row.per_second.median for row in rows],
            color=[COLORS[row.layout.replicas] for row in rows],
            xerr=[
                [row.per_second.median - row.per_second.low for row in rows],
                [row.per_second.high - row.per_second.median for row in rows],
            ],
            error_kw={"elinewidth": 1, "ecolor": "#111111"},
        )
        rates.set_xscale("log")
        rates.set_xlabel("orders a second, with 95 % interval")
        rates.xaxis.set_major_formatter(lambda value, _: f"{value:,.10g}")
        names = [f"{row.workload}: {row.layout.name}" for row in rows]
        rates.set_yticks(places, names, fontsize=8)
        rates.set_ylim(len(rows) - 0.4, -0.6)
        sums = [sum(each.median for each in row.cpu.values()) for row in rows]
        before = [0.0] * len(rows)
        for color, part in zip(COLORS, PARTS, strict=False):
            width = [
                100 * row.cpu[part].median / (total or 1) if part in row.cpu else 0.0
                for row, total in zip(rows, sums, strict=True)
            ]
            shares.barh(places, width, left=before, color=color, label=part)
            before = [low + each for low, each in zip(before, width, strict=True)]
        for place, total in zip(places, sums, strict=True):
            shares.text(101, place, f"{_number(total)} s", va="center", fontsize=8)
        shares.set_xlim(0, 115)
        shares.set_xlabel("% of the processor time;\nat the end seconds for a million orders")
        figure.legend(
            *shares.get_legend_handles_labels(), loc="outside upper right", ncols=len(PARTS)
        )
        buffer = io.BytesIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()
