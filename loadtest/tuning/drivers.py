"""How an experiment sells: who sends the orders, and over what.

A driver is a function; DRIVERS names them. To add one, write what makes it from an experiment
(checking there what it cannot do) and put it into the table.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, NamedTuple, TypeAlias

from engine.config import Settings
from engine.errors import ConfigError
from loadtest.extras import check_installed
from loadtest.machine import Machine
from loadtest.simulation.simulate import Plan, run_sale
from loadtest.tuning.experiment import Cell, CellRun, DriverName, Experiment
from loadtest.tuning.http_driver import http_driver
from loadtest.workload import generate
from loadtest.wrong import NotProven

Driver: TypeAlias = Callable[[Cell, int, Settings], tuple[CellRun, Machine]]
"""Runs one repeat of a cell on the empty store of the settings, and audits it.

Raises NotProven, ConfigError when nothing was left to measure, and what the engine raises.
"""


class DriverKind(NamedTuple):
    """`make` raises ConfigError. `overhead_seconds` is what a run takes besides selling: a guess."""

    make: Callable[[Experiment], Driver]
    overhead_seconds: float


def inproc_driver(experiment: Experiment) -> Driver:
    """The simulated crowd in the engine's own process."""
    if experiment.list_size != 1:
        raise ConfigError(
            "--list-size needs --driver http or locust: a simulated buyer sends single orders"
        )
    workload = generate(experiment.sale)

    def drive(cell: Cell, repeat: int, settings: Settings) -> tuple[CellRun, Machine]:
        outcome = run_sale(
            Plan(
                workload,
                settings,
                experiment.directory,
                cell.concurrency,
                seconds_max=experiment.warmup_seconds + experiment.seconds,
                warmup_seconds=experiment.warmup_seconds,
            )
        )
        run, orders = outcome.run, outcome.run.orders
        # A setting that is too slow leaves orders in doubt, which the audit allows for.
        if not run.audit.ok or orders.failed:
            found = [*run.audit.findings, *outcome.errors]
            raise NotProven(f"batch size {cell.label}: {found[0]}")
        seconds = run.throughput.seconds
        return CellRun(
            cell=cell,
            repeat=repeat,
            orders=orders.accepted,
            seconds=seconds,
            durable_per_s=run.throughput.durable_per_s,
            transactions_per_s=round(run.batches.transactions / seconds, 1),
            size_mean=run.batches.size_mean,
            p50_ms=run.latency_ms.p50,
            p99_ms=run.latency_ms.p99,
            checked_events=run.audit.checked_events,
            refused=orders.refused_overload + orders.unknown,
        ), run.machine

    return drive


def _locust_driver(experiment: Experiment) -> Driver:
    check_installed()
    from loadtest.tuning.locust_driver import locust_driver

    return locust_driver(experiment)


DRIVERS: Final[Mapping[DriverName, DriverKind]] = {
    "inproc": DriverKind(inproc_driver, 0.6),
    "http": DriverKind(http_driver, 1.2),
    "locust": DriverKind(_locust_driver, 6.0),
}


def make_driver(experiment: Experiment) -> Driver:
    """The driver an experiment names. Raises ConfigError for what it cannot do."""
    kind = DRIVERS.get(experiment.driver)
    if kind is None:
        known = ", ".join(DRIVERS)
        raise ConfigError(f"--driver must be one of {known}, got {experiment.driver!r}")
    drive = kind.make(experiment)

    def checked(cell: Cell, repeat: int, settings: Settings) -> tuple[CellRun, Machine]:
        run, machine = drive(cell, repeat, settings)
        if not run.durable_per_s > 0:
            raise ConfigError(
                f"batch size {cell.label} sold nothing in {experiment.seconds:g} s after the "
                "warm-up; give more --seconds"
            )
        return run, machine

    return checked
