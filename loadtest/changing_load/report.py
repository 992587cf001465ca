"""What a study under a changing load says: a table by phase, its reading, and plots over time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any, Final

import msgspec
from rich.table import Table

from engine.config import BatchSettings
from loadtest.changing_load.runs import (
    WINDOW_SECONDS,
    LoadRun,
    Phase,
    PhaseFigures,
    Window,
    spans,
)
from loadtest.intervals import Interval, interval_of
from loadtest.machine import Machine, short_commit
from loadtest.plots import TimePanel, over_time
from loadtest.results import SCHEMA, Kind, Strategy, write_run, write_whole

PLOT_FILE: Final = "over-time.svg"
REPEATS_MIN: Final = 3
"""With fewer, an interval is hardly more than the runs themselves."""

COLUMNS: Final = (
    "phase",
    "batches",
    "decided/s",
    "p50 ms",
    "p99 ms",
    "p99 / default",
    "commits/s",
    "mean size",
    "refused",
)


class PhaseSummary(msgspec.Struct, frozen=True, kw_only=True):
    """The repeats of one setting in one phase: medians and intervals; null when nothing was decided.

    `p99_ratio` compares with the first setting in the same repeat, null for itself. `refused`
    counts over all repeats.
    """

    decided_per_s: float
    p50_ms: float | None
    p99_ms: Interval | None
    p99_ratio: Interval | None
    transactions_per_s: float
    size_mean: float
    refused: int


class SettingSummary(msgspec.Struct, frozen=True, kw_only=True):
    """One setting: a summary by the name of each phase, and every run of it."""

    label: str
    batch: BatchSettings
    phases: dict[str, PhaseSummary]
    repeats: list[LoadRun]


class ChangingLoadRun(msgspec.Struct, frozen=True, kw_only=True):
    """`run.json` of a study. Every run in it was audited and found right.

    `capacity_per_s` is what the default settings took from a crowd of 2,000, or the number given.
    """

    schema: int = SCHEMA
    kind: Kind = "changing-load"
    started_at: str
    commit: str
    seed: int
    machine: Machine
    config: dict[str, Any]
    strategy: Strategy = "group-commit"
    capacity_per_s: float
    capacity_was_measured: bool
    phases: list[Phase]
    checked_events: int
    settings: list[SettingSummary]


def summarise(
    settings: Mapping[str, BatchSettings], runs: Sequence[LoadRun]
) -> list[SettingSummary]:
    """Put the repeats of each setting together; the first one is what the others are compared to."""
    base = next(iter(settings))
    by_label = {
        label: sorted((run for run in runs if run.label == label), key=lambda run: run.repeat)
        for label in settings
    }
    return [
        SettingSummary(
            label=label,
            batch=batch,
            phases={
                name: _summarise(name, by_label[label], by_label[base] if label != base else ())
                for name in by_label[label][0].figures
            },
            repeats=by_label[label],
        )
        for label, batch in settings.items()
    ]


def _summarise(name: str, ours: Sequence[LoadRun], theirs: Sequence[LoadRun]) -> PhaseSummary:
    figures = [run.figures[name] for run in ours]
    p50, p99 = (
        [each for each in found if each is not None]
        for found in zip(*((each.p50_ms, each.p99_ms) for each in figures), strict=True)
    )
    ratios = [
        mine / other
        for mine, other in (
            (run.figures[name].p99_ms, base.figures[name].p99_ms)
            for run, base in zip(ours, theirs, strict=False)
        )
        if mine and other
    ]

    def middle(of: Callable[[PhaseFigures], float]) -> float:
        return median(of(each) for each in figures)

    return PhaseSummary(
        decided_per_s=middle(lambda each: each.decided_per_s),
        p50_ms=median(p50) if p50 else None,
        p99_ms=interval_of(p99) if p99 else None,
        p99_ratio=interval_of(ratios) if ratios else None,
        transactions_per_s=middle(lambda each: each.transactions_per_s),
        size_mean=middle(lambda each: each.size_mean),
        refused=sum(each.refused for each in figures),
    )


def table_of(run: ChangingLoadRun) -> Table:
    """Return the study as a table for the terminal, a section for each phase."""
    table = Table(title="Changing load", title_justify="left", box=None, pad_edge=False)
    for number, column in enumerate(COLUMNS):
        table.add_column(column, justify="right" if number > 1 else "left", no_wrap=True)
    for row in _rows(run):
        table.add_row(*row)
    return table


def reading(run: ChangingLoadRun) -> list[str]:
    """A sentence for each phase: what can be told from the first setting, and what cannot."""
    if len(run.settings[0].repeats) < REPEATS_MIN:
        return [f"Fewer than {REPEATS_MIN} repeats tell no setting from another."]
    base = run.settings[0].label
    found = []
    for phase in run.phases:
        lower: list[str] = []
        higher: list[str] = []
        same: list[str] = []
        for each in run.settings[1:]:
            ratio = each.phases[phase.name].p99_ratio
            if ratio is None or ratio.low <= 1 <= ratio.high:
                same.append(each.label)
            else:
                (lower if ratio.high < 1 else higher).append(f"{each.label} ({ratio.median:.2f})")
        parts = [
            f"{what}: {', '.join(names)}"
            for what, names in (("lower", lower), ("higher", higher), ("no difference shown", same))
            if names
        ]
        found.append(f"- **{phase.name}**, p99 compared with {base}. {'; '.join(parts)}.")
    return found


def write(run: ChangingLoadRun, directory: Path) -> None:
    """Write run.json, the plot, and a README.md that shows both. Raises ConfigError."""
    repeats = run.config["repeats"]
    load = ", ".join(
        f"{each.name} {each.per_second:,.0f}/s for {each.seconds:g} s" for each in run.phases
    )
    capacity = (
        "the default settings took" if run.capacity_was_measured else "were assumed to be taken:"
    )
    title = (
        f"# Batch settings under a changing load on {run.started_at[:10]}, "
        f"commit {short_commit(run.commit)}"
    )
    how = (
        f"Orders for one SKU in an open loop: {load}. Before, {capacity} "
        f"{run.capacity_per_s:,.0f} orders/s from 2,000 buyers who wait for their answers; the burst is "
        "twice that and the flash 0.7 of it. Latency counts from when an order was due, rates are what "
        f"was done during the phase. Every setting {repeats} times, in a new random order each time; "
        "medians, with the 95 % interval of the bootstrap; run.json holds every run. The ratio is to the "
        f"first setting in the same repeat. The audits replayed {run.checked_events:,} events and "
        "found nothing."
    )
    page = [
        title,
        "",
        f"{run.machine.line} Store, load generator and engine share the cores.",
        "",
        how,
        "",
        f"| {' | '.join(COLUMNS)} |",
        "|---" * len(COLUMNS) + "|",
        *(f"| {' | '.join(row)} |" for row in _rows(run)),
        "",
        *reading(run),
        "",
        f"![p99 latency and mean batch over time]({PLOT_FILE})",
    ]
    write_whole(directory / PLOT_FILE, _plot(run))
    write_run(directory, run, page)


def _rows(run: ChangingLoadRun) -> list[list[str]]:
    return [
        [phase.name, each.label, *_cells(each.phases[phase.name])]
        for phase in run.phases
        for each in run.settings
    ]


def _cells(each: PhaseSummary) -> list[str]:
    return [
        f"{each.decided_per_s:,.0f}",
        "-" if each.p50_ms is None else f"{each.p50_ms:,.1f}",
        _interval(each.p99_ms, 1),
        _interval(each.p99_ratio, 2),
        f"{each.transactions_per_s:,.0f}",
        f"{each.size_mean:,.1f}",
        f"{each.refused:,}",
    ]


def _interval(found: Interval | None, digits: int) -> str:
    if found is None:
        return "-"
    middle, low, high = (f"{value:,.{digits}f}" for value in msgspec.structs.astuple(found))
    return middle if low == high else f"{middle} ({low} to {high})"


def _plot(run: ChangingLoadRun) -> bytes:
    """Lines are medians over the repeats."""
    count = len(run.settings[0].repeats[0].windows)
    seconds = [WINDOW_SECONDS * (number + 0.5) for number in range(count)]

    def lines(of: Callable[[Window], float | None]) -> dict[str, list[float | None]]:
        return {each.label: _medians(each.repeats, of, count) for each in run.settings}

    return over_time(
        f"{run.machine.store} {run.machine.store_version}",
        seconds,
        [
            TimePanel("p99 latency, ms", lines(lambda each: each.p99_ms), log=True),
            TimePanel("mean batch, orders", lines(lambda each: each.size_mean), log=True),
        ],
        spans(run.phases),
    )


def _medians(
    runs: Sequence[LoadRun], of: Callable[[Window], float | None], count: int
) -> list[float | None]:
    found: list[float | None] = []
    for number in range(count):
        values = [of(run.windows[number]) for run in runs]
        known = [each for each in values if each is not None]
        found.append(median(known) if known else None)
    return found
