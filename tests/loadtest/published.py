"""Results of every kind, small, for what reads them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from engine.config import BatchSettings
from loadtest.machine import Machine
from loadtest.results import Repeat, Run, Strategy, write_run
from loadtest.strategies.report import StrategiesRun
from loadtest.strategies.report import summarise as summarise_strategies
from loadtest.strategies.strategies import StrategyRun
from loadtest.tuning.experiment import Cell, CellRun
from loadtest.tuning.report import TuneRun
from loadtest.tuning.report import summarise as summarise_cells
from tests.loadtest.test_results import RUN

MACHINE = Machine("cpu", 2, 7.5, "Linux 6", "CPython 3.11", "sqlite", "3.54", "full")
CONFIG: dict[str, Any] = {
    "workload": {"seed": 1, "buyers": 10},
    "concurrency": 50,
    "store": {"url": "sqlite:", "partitions": 1},
    "batch": {"size_max": 8_190, "delay_ms_max": 0},
    "repeats": 3,
    "seconds_max": 2.0,
    "connections_tried": [4, 8],
}


def write_simulated(folder: Path, rates: Sequence[float], **changes: object) -> Path:
    """A simulated run of so many repeats, and the folder it is in."""
    median = sorted(rates)[len(rates) // 2]
    changes = {"commit": "0123456789abcdef", **changes}
    run: Run = msgspec.structs.replace(
        RUN, config=CONFIG, throughput=_rate(RUN, median), repeats=[], **changes
    )
    if len(rates) > 1:
        repeats = [
            Repeat(_rate(run, rate), run.latency_ms, run.orders, run.audit) for rate in rates
        ]
        run = msgspec.structs.replace(run, repeats=repeats)
    write_run(folder, run)
    return folder


def _rate(run: Run, rate: float) -> Any:
    return msgspec.structs.replace(run.throughput, durable_per_s=rate)


def tuned(rates: Mapping[Cell, Sequence[float]]) -> TuneRun:
    runs = [
        CellRun(
            cell=cell,
            repeat=repeat,
            orders=1,
            seconds=1.0,
            durable_per_s=rate,
            transactions_per_s=1.0,
            size_mean=4.0,
            p50_ms=1.0,
            p99_ms=2.0,
            checked_events=5,
        )
        for cell, repeats in rates.items()
        for repeat, rate in enumerate(repeats, 1)
    ]
    return TuneRun(
        started_at="2026-04-01T20:00:00+00:00",
        commit="0123456789abcdef",
        seed=1,
        machine=MACHINE,
        config=CONFIG,
        checked_events=10,
        cells=summarise_cells(list(rates), runs),
    )


def cell(size: int, delay_ms: float = 0, named: str = "", concurrency: int = 2_000) -> Cell:
    return Cell(BatchSettings(size_max=size, delay_ms_max=delay_ms), named, concurrency)


def strategies(rates: Mapping[tuple[Strategy, int], Sequence[float]], **more: int) -> StrategiesRun:
    """By strategy and connections."""
    runs = [
        StrategyRun(
            strategy=strategy,
            connections=connections,
            accepted=10,
            refused=0,
            failed=0,
            accepted_per_s=rate,
            durable_per_s=rate,
            p50_ms=1.0,
            p99_ms=2.0,
            seconds=1.0,
            oversold=0,
            lost=0,
            stopped_early=connections > 0,
        )
        for (strategy, connections), repeats in rates.items()
        for rate in repeats
    ]
    runs[-1] = msgspec.structs.replace(runs[-1], **more)
    return StrategiesRun(
        started_at="2026-04-01T20:00:00+00:00",
        commit="0123456789abcdef",
        seed=1,
        machine=MACHINE,
        config=CONFIG,
        strategies=summarise_strategies(runs),
    )
