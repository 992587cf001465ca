"""What a benchmark writes: figures with their intervals, run.json and a table."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
from rich.table import Table

from loadtest.intervals import interval_of
from loadtest.machine import Machine, short_commit
from loadtest.results import SCHEMA, Kind, Strategy, write_run

COLUMNS: Final = ("figure", "median", "95 % interval", "ceiling", "share", "budget", "", "checked")


class Ceiling(msgspec.Struct, frozen=True):
    """The same thing without the engine, in the unit of its figure, measured in turn with it."""

    name: str
    repeats: list[float]
    median: float


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """One measured figure: the median of `repeats` with its bootstrap 95 % interval.

    `budget` is what must be reached (`at_least`) or not exceeded, null for a figure that only
    explains another one. `checked` says how the answers behind it were proved.
    """

    name: str
    unit: str
    repeats: list[float]
    median: float
    low: float
    high: float
    budget: float | None
    at_least: bool
    met: bool | None
    ceilings: list[Ceiling]
    checked: str


class BenchAudit(msgspec.Struct, frozen=True):
    """What the audits of all repeats replayed. A run with a failed check is not written."""

    ok: bool
    checked_events: int


class BenchRun(msgspec.Struct, frozen=True, kw_only=True):
    """`run.json` of a benchmark."""

    schema: int = SCHEMA
    kind: Kind = "bench"
    started_at: str
    commit: str
    seed: int | None = None
    machine: Machine
    config: dict[str, Any]
    strategy: Strategy = "group-commit"
    audit: BenchAudit
    figures: list[Figure]


def figure(
    name: str,
    unit: str,
    repeats: list[float],
    budget: float | None,
    *,
    checked: str,
    at_least: bool = True,
    ceilings: dict[str, list[float]] | None = None,
) -> Figure:
    """Summarise repeats and compare their median with the budget."""
    found = interval_of(repeats)
    met = None
    if budget is not None:
        met = found.median >= budget if at_least else found.median <= budget
    return Figure(
        name=name,
        unit=unit,
        repeats=repeats,
        median=found.median,
        low=found.low,
        high=found.high,
        budget=budget,
        at_least=at_least,
        met=met,
        ceilings=[
            Ceiling(title, measured, float(np.median(measured)))
            for title, measured in (ceilings or {}).items()
        ],
        checked=checked,
    )


def table_of(run: BenchRun) -> Table:
    """Return the figures as a table for the terminal."""
    table = Table(title="Budgets, SQLite", title_justify="left", box=None, pad_edge=False)
    for column in COLUMNS:
        table.add_column(column, justify="left" if column in ("figure", "checked") else "right")
    for each in run.figures:
        table.add_row(*(cell.replace("; ", "\n") for cell in cells_of(each)))
    return table


def write(run: BenchRun, out: Path) -> None:
    """Write run.json and a README.md with the table. Raises ConfigError when it cannot."""
    page = [
        f"# Benchmark of {run.started_at[:10]}, commit {short_commit(run.commit)}",
        "",
        run.machine.line,
        (
            f"Settings: {', '.join(f'{key} {value:,}' for key, value in run.config.items())}. "
            "The load generator shares the cores. Medians of the repeats; run.json holds every one."
        ),
        f"The audits of this run replayed {run.audit.checked_events:,} events and found nothing.",
        "",
        f"| {' | '.join(COLUMNS)} |",
        "|---" * len(COLUMNS) + "|",
        *(f"| {' | '.join(cells_of(each))} |" for each in run.figures),
    ]
    write_run(out, run, page)


def cells_of(each: Figure) -> list[str]:
    """A figure as a row of COLUMNS."""
    sign = ">=" if each.at_least else "<="
    return [
        f"{each.name}, {each.unit}",
        _text(each.median),
        f"{_text(each.low)} to {_text(each.high)}",
        "; ".join(f"{_text(ceiling.median)} ({ceiling.name})" for ceiling in each.ceilings),
        "; ".join(f"{each.median / ceiling.median:.0%}" for ceiling in each.ceilings),
        "" if each.budget is None else f"{sign} {_text(each.budget)}",
        {True: "met", False: "MISSED", None: ""}[each.met],
        each.checked,
    ]


def _text(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:,.2f}"
