"""What a benchmark over HTTP writes: figures, run.json, a page, and a plot of each overload."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path
from typing import Any, Final

import msgspec
from rich.table import Table

from loadtest.bench.report import COLUMNS, BenchAudit, Figure, cells_of
from loadtest.bench_http.overload import DEADLINE_MS, LISTS, TIMES, WINDOW_SECONDS, Overload
from loadtest.machine import Machine, short_commit
from loadtest.plots import TimePanel, over_time
from loadtest.results import SCHEMA, Kind, Strategy, write_run, write_whole


class HttpRun(msgspec.Struct, frozen=True, kw_only=True):
    """`run.json` of a benchmark over HTTP. Every store in it was audited and found right."""

    schema: int = SCHEMA
    kind: Kind = "bench-http"
    started_at: str
    commit: str
    seed: int
    machine: Machine
    load_average: list[float]
    """Of one minute, at the beginning and at the end: what else the cores had to do."""
    config: dict[str, Any]
    strategy: Strategy = "group-commit"
    audit: BenchAudit
    figures: list[Figure]
    overloads: list[Overload]


PLOT_NAMES: Final = {True: "overload-lists.svg", False: "overload-single-orders.svg"}


def table_of(run: HttpRun) -> Table:
    """Return the figures as a table for the terminal."""
    table = Table(title="Over HTTP, SQLite", title_justify="left", box=None, pad_edge=False)
    for column in COLUMNS:
        table.add_column(column, justify="left" if column in ("figure", "checked") else "right")
    for each in run.figures:
        table.add_row(*(cell.replace("; ", "\n") for cell in cells_of(each)))
    return table


def write(run: HttpRun, out: Path) -> None:
    """Write run.json, the plots, and a README.md with all of it. Raises ConfigError."""
    settings = ", ".join(f"{key} {_setting(value)}" for key, value in run.config.items())
    loads = " and ".join(f"{each:.1f}" for each in run.load_average)
    page = [
        f"# Over HTTP on {run.started_at[:10]}, commit {short_commit(run.commit)}",
        "",
        run.machine.line,
        (
            f"Settings: {settings}. Server and generator are processes of their own and share the cores; "
            f"the load average was {loads} at the beginning and at the end. Medians of the repeats, in "
            "a new random order each time; run.json holds every one."
        ),
        f"The audits of this run replayed {run.audit.checked_events:,} events and found nothing.",
        "",
        f"| {' | '.join(COLUMNS)} |",
        "|---" * len(COLUMNS) + "|",
        *(f"| {' | '.join(cells_of(each))} |" for each in run.figures),
    ]
    for each in run.overloads:
        plot = PLOT_NAMES[each.kind == LISTS]
        write_whole(out / plot, plot_of(each))
        page += ["", *_lines_of(each), "", f"![An overload with {each.kind}]({plot})"]
    write_run(out, run, page)


def plot_of(each: Overload) -> bytes:
    """An overload over time: what was answered, how fast, and the server's memory."""
    seen = each.windows
    spans = {
        phase: (group[0].at_seconds, group[-1].at_seconds + WINDOW_SECONDS)
        for phase, members in groupby(seen, key=lambda window: window.phase)
        if (group := list(members))
    }
    return over_time(
        f"Overload with {each.kind}",
        [window.at_seconds + WINDOW_SECONDS / 2 for window in seen],
        [
            TimePanel(
                "orders a second",
                {"answered in time": [window.in_time_per_s for window in seen]},
                {"80 % of the peak": each.peak_per_s * 0.8},
            ),
            TimePanel(
                "latency, ms",
                {
                    "p50": [window.p50_ms for window in seen],
                    "p95": [window.p95_ms for window in seen],
                },
                {"deadline": DEADLINE_MS},
                log=True,
            ),
            TimePanel(
                "resident memory, MiB",
                {
                    "server": [window.resident_mib for window in seen],
                    "of that: orders\naccepted since": _accepted_mib(each),
                },
            ),
        ],
        spans,
    )


def _accepted_mib(each: Overload) -> list[float | None]:
    """What the accepted orders occupy, on top of the memory the server began with."""
    total = 0.0
    found: list[float | None] = []
    for window in each.windows:
        total += window.in_time_per_s * WINDOW_SECONDS * each.accepted_bytes_each / 2**20
        found.append(total)
    return found


def _lines_of(each: Overload) -> list[str]:
    answers = ", ".join(f"{name}: {count:,}" for name, count in each.answers.items())
    offered = (
        f"{TIMES} times the peak, open loop"
        if each.kind == LISTS
        else f"{TIMES} times the connections"
    )
    until = each.seconds_until_normal
    return [
        f"## Overload with {each.kind}",
        "",
        (
            f"{offered}, for {each.plan.overload_seconds:g} s, each with a deadline of {DEADLINE_MS:,} ms. "
            f"Offered {each.offered_per_s:,.0f} orders/s, peak {each.peak_per_s:,.0f}, goodput "
            f"{each.goodput_per_s:,.0f}. Resident memory {each.resident_mib_before:,.0f} MiB before, at most "
            f"{each.resident_mib_max:,.0f}, {each.resident_mib_after:,.0f} at the end, of which an accepted "
            f"order takes {each.accepted_bytes_each:,.0f} bytes. Normal again "
            + ("never." if until is None else f"after {until:.1f} s.")
        ),
        "",
        f"Orders by answer: {answers}.",
    ]


def _setting(value: object) -> str:
    if isinstance(value, list):
        return "/".join(_setting(each) for each in value)
    return f"{value:,}" if isinstance(value, int | float) else str(value)
