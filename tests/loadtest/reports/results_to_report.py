"""Results with everything that a report can show."""

from __future__ import annotations

from pathlib import Path

import msgspec

from engine.config import BatchSettings
from loadtest.intervals import Interval
from loadtest.results import PaymentCounts, Run, Second, write_run
from loadtest.strategies.report import StrategiesRun
from loadtest.tuning.recommend import Recommendation
from loadtest.tuning.report import TuneRun
from tests.loadtest.published import CONFIG, cell, strategies, tuned
from tests.loadtest.test_results import RUN

SECONDS = 20


def load_test() -> Run:
    """Of 20 seconds, in the tenth of which nothing was answered."""
    timeline = [
        Second(float(at), 1.0, 0, 0, 0, None, None)
        if at == SECONDS // 2
        else Second(float(at), 1.0, 900 + at, 800, 1_600, 4.5, 20.0 + at)
        for at in range(SECONDS)
    ]
    batches = msgspec.structs.replace(RUN.batches, by_size={1: 40, 2: 12, 4: 3, 1_024: 1})
    return msgspec.structs.replace(
        RUN,
        kind="locust",
        config={**CONFIG, "workload": {**CONFIG["workload"], "stock": 50_000, "skus": 2}},
        batches=batches,
        timeline=timeline,
        payments=PaymentCounts(7, 1, 2),
    )


def experiment() -> TuneRun:
    """Four sizes with three delays at two concurrencies, three repeats each, and a named one."""
    cells = {
        cell(size, delay, "", at): [at * size / (1 + delay) + repeat for repeat in range(3)]
        for size in (1, 10, 100, 1_000)
        for delay in (0.0, 1.0, 5.0)
        for at in (50, 2_000)
    }
    cells[cell(50, 50, "article", 50)] = [7.0, 8.0, 9.0]
    return msgspec.structs.replace(
        tuned(cells),
        recommendation=Recommendation(
            aim="throughput",
            p99_ms_max=20.0,
            batch=BatchSettings(size_max=1_000),
            label="1,000",
            durable_per_s=Interval(1_000.0, 900.0, 1_100.0),
            p99_ms=2.0,
            not_told_from=["100"],
        ),
    )


def comparison() -> StrategiesRun:
    return strategies(
        {
            ("group-commit", 0): [100_000.0, 110_000.0, 90_000.0],
            ("row-lock", 4): [900.0, 950.0, 850.0],
            ("row-lock", 64): [400.0, 410.0, 390.0],
        }
    )


def written(folder: Path, run: msgspec.Struct) -> Path:
    write_run(folder, run)
    return folder
