"""What a comparison of strategies says: one table, in the terminal and in a folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
from rich.table import Table

from loadtest.intervals import REPEATS_MIN, Interval, interval_of
from loadtest.machine import Machine, short_commit
from loadtest.results import SCHEMA, Kind, Strategy, write_run
from loadtest.strategies.strategies import ROW_LOCK, StrategyRun

COLUMNS: Final = (
    "strategy",
    "pool",
    "accepted/s",
    "durable/s",
    "x row-lock",
    "p50 ms",
    "p99 ms",
    "oversold",
    "lost",
    "failed",
)


NARROWER: Final = ("accepted/s", "pool", "p50 ms")
"""Left out, in this order, of a table that does not fit; run.json has them."""


class StrategySummary(msgspec.Struct, frozen=True, kw_only=True):
    """One strategy at its best pool size, and every run of it in `repeats`.

    `ratio` compares with the best row-lock of the same repeat, null without one. `oversold`, `lost`
    and `failed` count over all runs.
    """

    strategy: Strategy
    connections: int
    accepted_per_s: float
    durable_per_s: Interval
    ratio: Interval | None
    p50_ms: float
    p99_ms: float
    oversold: int
    lost: int
    failed: int
    repeats: list[StrategyRun]

    @property
    def at_best(self) -> list[StrategyRun]:
        """The repeats with the pool size that counts."""
        return [each for each in self.repeats if each.connections == self.connections]


class StrategiesRun(msgspec.Struct, frozen=True, kw_only=True):
    """`run.json` of a comparison."""

    schema: int = SCHEMA
    kind: Kind = "strategies"
    started_at: str
    commit: str
    seed: int | None
    machine: Machine
    config: dict[str, Any]
    strategies: list[StrategySummary]

    @property
    def ok(self) -> bool:
        return not any(each.oversold or each.lost or each.failed for each in self.strategies)


def summarise(runs: Sequence[StrategyRun]) -> list[StrategySummary]:
    """Put the repeats of each strategy together; of several pool sizes the fastest one counts."""
    by_name: dict[Strategy, dict[int, list[StrategyRun]]] = {}
    for run in runs:
        by_name.setdefault(run.strategy, {}).setdefault(run.connections, []).append(run)
    best = {name: max(sizes.values(), key=_median_rate) for name, sizes in by_name.items()}
    base = [run.durable_per_s for run in best.get(ROW_LOCK, ())]
    return [
        _summarise(name, best[name], base, [each for size in sizes.values() for each in size])
        for name, sizes in by_name.items()
    ]


def _summarise(
    name: Strategy,
    best: Sequence[StrategyRun],
    base: Sequence[float],
    all_runs: Sequence[StrategyRun],
) -> StrategySummary:
    rates = [run.durable_per_s for run in best]
    ratios = [ours / theirs for ours, theirs in zip(rates, base, strict=False) if theirs]
    return StrategySummary(
        strategy=name,
        connections=best[0].connections,
        accepted_per_s=interval_of([run.accepted_per_s for run in best]).median,
        durable_per_s=interval_of(rates),
        ratio=interval_of(ratios) if ratios else None,
        p50_ms=interval_of([run.p50_ms for run in best]).median,
        p99_ms=interval_of([run.p99_ms for run in best]).median,
        # A slow pool size must be as right as the fastest one.
        oversold=sum(run.oversold for run in all_runs),
        lost=sum(run.lost for run in all_runs),
        failed=sum(run.failed for run in all_runs),
        repeats=list(all_runs),
    )


def _median_rate(runs: Sequence[StrategyRun]) -> float:
    return interval_of([run.durable_per_s for run in runs]).median


def table_of(run: StrategiesRun, width: int = 120) -> Table:
    """Return the comparison as a table for the terminal. No figure is ever cut.

    Where it does not fit, an interval takes two lines, and then columns are left out.
    """
    rows = [dict(zip(COLUMNS, cells_of(each, "\n"), strict=True)) for each in run.strategies]
    columns = list(COLUMNS)
    if _width(columns, rows) > width:
        rows = [{name: cell.replace(" to ", "\nto ") for name, cell in row.items()} for row in rows]
    for name in NARROWER:
        if _width(columns, rows) > width:
            columns.remove(name)
    table = Table(title="Strategies", title_justify="left", box=None, pad_edge=False)
    if _are_few(run):
        table.caption = f"Too few repeats for an interval: that takes {REPEATS_MIN}."
        table.caption_justify = "left"
    for name in columns:
        table.add_column(name, justify="left" if name == "strategy" else "right", no_wrap=True)
    for row in rows:
        table.add_row(*(row[name] for name in columns))
    return table


def _width(columns: Sequence[str], rows: Sequence[Mapping[str, str]]) -> int:
    """Of the table, with two spaces between its columns."""
    longest = [
        max(len(line) for text in (name, *(row[name] for row in rows)) for line in text.split("\n"))
        for name in columns
    ]
    return sum(longest) + 2 * (len(columns) - 1)


def _are_few(run: StrategiesRun) -> bool:
    return min(len(each.at_best) for each in run.strategies) < REPEATS_MIN


def write(run: StrategiesRun, directory: Path) -> None:
    """Write run.json and a README.md with the table. Raises ConfigError when it cannot."""
    on = f"{run.machine.line} Server, load generator and engine share the cores."
    sure = "with their 95 % interval"
    if _are_few(run):
        sure = f"without an interval: that takes {REPEATS_MIN}"
    how = (
        f"Medians of the repeats, {sure}; run.json holds every one. "
        "The same seeded orders for all; a baseline is stopped after "
        f"{run.config['seconds_max']:g} s. Every baseline was tried with pools of "
        f"{', '.join(map(str, run.config['connections_tried']))} connections in every "
        "repeat; the best is shown."
    )
    page = [
        f"# Strategies compared on {run.started_at[:10]}, commit {short_commit(run.commit)}",
        *("", on, "", how, ""),
        f"| {' | '.join(COLUMNS)} |",
        "|---" * len(COLUMNS) + "|",
        *(f"| {' | '.join(cells_of(each, ' '))} |" for each in run.strategies),
    ]
    write_run(directory, run, page)


def cells_of(each: StrategySummary, gap: str) -> list[str]:
    """One row; `gap` stands between a median and its interval, if there are enough repeats for one."""
    count = len(each.at_best)
    return [
        each.strategy,
        f"{each.connections:,}" if each.connections else "-",
        f"{each.accepted_per_s:,.0f}",
        _interval(each.durable_per_s, count, 0, gap),
        _interval(each.ratio, count, 2, gap) if each.ratio else "-",
        f"{each.p50_ms:,.1f}",
        f"{each.p99_ms:,.1f}",
        f"{each.oversold:,}",
        f"{each.lost:,}",
        f"{each.failed:,}",
    ]


def _interval(found: Interval, repeats: int, digits: int, gap: str) -> str:
    median, low, high = (f"{value:,.{digits}f}" for value in msgspec.structs.astuple(found))
    return median if repeats < REPEATS_MIN else f"{median}{gap}({low} to {high})"
