"""What a tuning experiment is made of: settings to try, at which concurrencies, how often.

A setting is a way to close batches; a cell is a setting under one number of unanswered orders.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

import msgspec

from engine.config import BatchSettings, Settings
from engine.errors import ConfigError
from loadtest.machine import Machine
from loadtest.settings import LIMITS, WorkloadSettings, check_limit, describe_settings

SIZES: Final = (1, 10, 50, 100, 200, 500, 1_000, 2_000, 5_000)
CONCURRENCY: Final = 2_000
CELLS_MAX: Final = 200

DriverName: TypeAlias = Literal["inproc", "http", "locust"]
Aim: TypeAlias = Literal["throughput"]

Stage: TypeAlias = Literal["look", "confirm"]
"""Runs of the experiment, and those made of the chosen setting afterwards."""


class Cell(msgspec.Struct, frozen=True):
    """One batch setting under `concurrency` unanswered orders, or requests with lists of orders.

    `named` is the configuration it comes from, empty in the grid.
    """

    batch: BatchSettings
    named: str = ""
    concurrency: int = CONCURRENCY

    @property
    def label(self) -> str:
        """Of the setting, whatever the concurrency."""
        size, delay = self.batch.size_max, self.batch.delay_ms_max
        text = f"{size:,}" + (f" / {delay:g} ms" if delay else "")
        if self.batch.mode == "adaptive":
            text += f" adaptive {self.batch.latency_aim_ms:g} ms"
        return f"{self.named} ({text})" if self.named else text


class CellRun(msgspec.Struct, frozen=True, kw_only=True):
    """One run of one cell. `size_mean` is orders a batch, rates are a second.

    `orders`, `checked_events` and, over HTTP, `refused` are of the whole run; with Locust the batches
    are as well (`size_mean`, `transactions_per_s`). Every other figure leaves the warm-up out.
    `refused` orders had no answer in their time, or were told to come again later.
    """

    cell: Cell
    repeat: int
    orders: int
    seconds: float
    durable_per_s: float
    transactions_per_s: float
    size_mean: float
    p50_ms: float
    p99_ms: float
    checked_events: int
    refused: int = 0


class Noted(msgspec.Struct, frozen=True):
    """A finished run with where it belongs and what it was measured on."""

    stage: Stage
    run: CellRun
    machine: Machine

    @property
    def key(self) -> tuple[Stage, Cell, int]:
        return self.stage, self.run.cell, self.run.repeat


class Experiment(msgspec.Struct, frozen=True, kw_only=True):
    """What to try: a sale of `seconds` with each of `cells`, `repeats` times.

    `default` is the label of the setting that would be used without an experiment. With `search`
    only the best settings get all their repeats. `confirm` are fresh runs of the chosen one.
    """

    sale: WorkloadSettings
    settings: Settings
    cells: tuple[Cell, ...]
    default: str
    directory: Path
    repeats: int
    seconds: float
    warmup_seconds: float = 0.0
    seed: int = 1
    driver: DriverName = "inproc"
    list_size: int = 1
    search: bool = False
    aim: Aim = "throughput"
    p99_ms_max: float | None = None
    confirm: int = 0

    @property
    def labels(self) -> list[str]:
        return list(dict.fromkeys(each.label for each in self.cells))

    @property
    def concurrencies(self) -> list[int]:
        return list(dict.fromkeys(each.concurrency for each in self.cells))

    def cells_of(self, labels: Sequence[str]) -> list[Cell]:
        """The settings of these labels at every concurrency."""
        return [each for each in self.cells if each.label in labels]

    def describe(self) -> dict[str, Any]:
        """Every choice that matters to the figures, for run.json."""
        at = self.concurrencies
        sale = {name: getattr(self.sale, name) for name in self.sale.__struct_fields__}
        del sale["seconds"]  # Of arrivals, and here everybody comes at once.
        if self.driver == "http":
            sale = {name: sale[name] for name in ("skus", "quantity")}
        return {
            "workload": sale,
            "concurrency": at[0] if len(at) == 1 else at,
            "driver": self.driver,
            "list_size": self.list_size,
            "repeats": self.repeats,
            "seconds_max": self.seconds,
            "warmup_seconds": self.warmup_seconds,
            "search": self.search,
            "aim": self.aim,
            "p99_ms_max": self.p99_ms_max,
            "confirm": self.confirm,
            **describe_settings(self.settings),
        }


def grid(
    settings: Settings,
    sizes: Sequence[int],
    delays_ms: Sequence[float],
    concurrencies: Sequence[int] = (CONCURRENCY,),
) -> list[Cell]:
    """Every size with every delay at every concurrency; what else there is in `settings` stays.

    Raises ConfigError.
    """
    for size in sizes:
        check_limit("batch_size", size)
    for delay in delays_ms:
        check_limit("batch_delay_ms", delay)
    return at_every(
        concurrencies,
        [
            # Of fixed limits: what sets its own stands beside the grid by its name.
            Cell(
                msgspec.structs.replace(
                    settings.batch, mode="fixed", size_max=size, delay_ms_max=delay
                )
            )
            for delay in dict.fromkeys(delays_ms)
            for size in dict.fromkeys(sizes)
        ],
    )


def at_every(concurrencies: Sequence[int], settings: Sequence[Cell]) -> list[Cell]:
    """Each setting at each concurrency. Raises ConfigError."""
    for each in concurrencies:
        check_limit("concurrency", each)
    cells = [
        msgspec.structs.replace(setting, concurrency=each)
        for each in dict.fromkeys(concurrencies)
        for setting in settings
    ]
    if len(cells) > CELLS_MAX:
        raise ConfigError(
            f"{len(cells):,} settings to try, counted at each concurrency; at most {CELLS_MAX} at "
            "a time"
        )
    return cells


def parse_numbers(flag: str, text: str) -> list[float]:
    """Read `1,10,50`. Raises ConfigError naming the flag and its limits."""
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        least, most = LIMITS[flag]
        raise ConfigError(
            f"--{flag.replace('_', '-')} takes numbers from {least:,} to {most:,} separated by "
            f"commas, such as 1,10,100; got {text[:40]!r}"
        ) from None


def parse_whole_numbers(flag: str, text: str) -> list[int]:
    """The same where halves mean nothing."""
    found = parse_numbers(flag, text)
    for each in found:
        if not each.is_integer():
            raise ConfigError(f"--{flag.replace('_', '-')} takes whole numbers, got {each:g}")
    return [int(each) for each in found]
