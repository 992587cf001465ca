"""What an experiment found, as run.json holds it: every run, the choice and why."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from loadtest.intervals import Interval, interval_of
from loadtest.machine import Machine
from loadtest.results import SCHEMA, Kind, Strategy
from loadtest.tuning.experiment import Cell, CellRun
from loadtest.tuning.recommend import Recommendation
from loadtest.tuning.search import Dropped


class CellSummary(msgspec.Struct, frozen=True, kw_only=True):
    """The repeats of one cell: medians, and the interval of the throughput."""

    cell: Cell
    durable_per_s: Interval
    p50_ms: float
    p99_ms: float
    size_mean: float
    transactions_per_s: float
    repeats: list[CellRun]


class TuneRun(msgspec.Struct, frozen=True, kw_only=True):
    """`run.json` of an experiment. Every run in it was audited and found right.

    `dropped` are settings a search gave up early, so that their cells have fewer repeats. `confirmed`
    are the fresh runs of the recommended setting and, unless it is that, the default.
    """

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
    dropped: list[Dropped] = []
    confirmed: list[CellSummary] = []


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
