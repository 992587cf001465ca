"""A tuning run with Locust: a real server under users who order again as soon as they are answered."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from engine.config import Settings
from engine.errors import ConfigError
from loadtest.http_processes import check_connections
from loadtest.machine import Machine
from loadtest.over_http.process import BOOKS_FILE, Load
from loadtest.over_http.run import LoadTest, run_load_test
from loadtest.swarm.books import Page, add_up, percentiles_ms
from loadtest.tuning.experiment import Cell, CellRun, Experiment
from loadtest.wrong import NotProven

PROCESSES: Final = 1
"""Of Locust. On the two cores that a server shares with it, a second one only takes its core away."""


def locust_driver(
    experiment: Experiment,
) -> Callable[[Cell, int, Settings], tuple[CellRun, Machine]]:
    """A driver whose `concurrency` is users: they buy, nothing is held, and none of them thinks.

    Raises ConfigError for what it cannot do.
    """
    if experiment.settings.store.url == "memory:":
        raise ConfigError(
            "--driver locust needs a store that can be audited when the server has ended"
        )
    check_connections("--concurrency", max(experiment.concurrencies), experiment.settings)
    # Books are kept by whole seconds.
    warmup = math.ceil(experiment.warmup_seconds)

    def drive(cell: Cell, repeat: int, settings: Settings) -> tuple[CellRun, Machine]:
        with tempfile.TemporaryDirectory(prefix="seckill-tune-") as folder:
            directory = Path(folder)
            test = _test(
                experiment, cell, settings, directory, warmup + math.ceil(experiment.seconds)
            )
            outcome = run_load_test(test)
            page = msgspec.json.decode((directory / BOOKS_FILE).read_bytes(), type=Page)
        run = outcome.run
        if run.stopped_early:
            raise KeyboardInterrupt
        if outcome.exit_code:
            found = [
                *run.audit.findings,
                *outcome.samples,
                f"{run.orders.unknown:,} orders in doubt",
            ]
            raise NotProven(f"batch size {cell.label}: {found[0]}")
        first = math.floor(page.first_at or 0.0) + warmup
        counted = [book for second, book in page.seconds.items() if second >= first]
        seconds = max((page.last_at or 0.0) - first, 1e-9)
        p50, _, p99, *_ = percentiles_ms(add_up(each.latency for each in counted))
        return CellRun(
            cell=cell,
            repeat=repeat,
            orders=run.orders.accepted,
            seconds=round(seconds, 6),
            durable_per_s=round(sum(each.accepted for each in counted) / seconds, 1),
            # Of the whole run: the server counts batches, and its warm-up is among them.
            transactions_per_s=round(run.batches.transactions / run.throughput.seconds, 1),
            size_mean=run.batches.size_mean,
            p50_ms=p50,
            p99_ms=p99,
            checked_events=run.audit.checked_events,
            refused=run.orders.refused_overload,
        ), run.machine

    return drive


def _test(
    experiment: Experiment, cell: Cell, settings: Settings, directory: Path, seconds: float
) -> LoadTest:
    lists = experiment.list_size > 1
    sale = experiment.sale
    return LoadTest(
        load=Load(
            users=cell.concurrency,
            spawn_per_second=cell.concurrency,
            seconds=seconds,
            shape="flash",
            per_second=0,
            mix="list:1" if lists else "buyer:1",
            list_size=experiment.list_size,
            think_seconds=0,
            processes=PROCESSES,
        ),
        sale=msgspec.structs.replace(sale, arrival="burst", hold_seconds=0),
        settings=settings,
        directory=directory,
        keep_store=True,
    )
