"""Experiments and runs of them, made up, for what looks at them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from engine.config import BatchSettings, Settings, load_settings
from engine.cqrs.event_store import StoreInfo
from loadtest.machine import Machine, describe_machine
from loadtest.settings import WorkloadSettings
from loadtest.tuning.experiment import Cell, CellRun, Experiment
from loadtest.wrong import NotProven

SETTINGS = load_settings(None, {"store.url": "memory:", "batch.aggregates_max": 7}, {})
MACHINE = describe_machine(StoreInfo("memory", "1", "none", "none"))


def cell(size: int, concurrency: int = 2_000, named: str = "", delay_ms: float = 0) -> Cell:
    return Cell(BatchSettings(size_max=size, delay_ms_max=delay_ms), named, concurrency)


def run_of(cell: Cell, repeat: int = 1, rate: float = 100.0, p99_ms: float = 2.0) -> CellRun:
    return CellRun(
        cell=cell,
        repeat=repeat,
        orders=1,
        seconds=1.0,
        durable_per_s=rate,
        transactions_per_s=1.0,
        size_mean=1.0,
        p50_ms=1.0,
        p99_ms=p99_ms,
        checked_events=5,
    )


def runs_of(rates: Mapping[Cell, Sequence[float]], p99_ms: float = 2.0) -> list[CellRun]:
    """By cell and repeat."""
    return [
        run_of(cell, repeat, rate, p99_ms)
        for cell, repeats in rates.items()
        for repeat, rate in enumerate(repeats, 1)
    ]


def experiment(directory: Path, cells: Sequence[Cell], **changes: object) -> Experiment:
    plain = Experiment(
        sale=WorkloadSettings(buyers=2_000, stock=2_000),
        settings=SETTINGS,
        cells=tuple(cells),
        default=cells[-1].label,
        directory=directory,
        repeats=2,
        seconds=60.0,
    )
    return msgspec.structs.replace(plain, **changes)


class Scripted:
    """A driver that sells as fast as it is told by batch size, and notes what it ran."""

    def __init__(
        self, rates: Mapping[int, float], p99_ms: Mapping[int, float] | None = None
    ) -> None:
        self.ran: list[tuple[str, int, int]] = []
        self.runs_max: int | None = None
        self._rates, self._p99_ms = rates, p99_ms or {}

    def __call__(self, cell: Cell, repeat: int, _settings: Settings) -> tuple[CellRun, Machine]:
        if self.runs_max is not None and len(self.ran) >= self.runs_max:
            raise NotProven("stopped by the test")
        self.ran.append((cell.label, cell.concurrency, repeat))
        size = cell.batch.size_max
        # Repeats differ a little, in the same way for all.
        rate = self._rates[size] * (1 + 0.01 * repeat)
        return run_of(cell, repeat, rate, self._p99_ms.get(size, 2.0)), MACHINE
