"""`seckill simulate`: from flags to a plan, from a plan to what is printed."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Final

import msgspec
from rich.console import Console

from engine.config import COMMAND_SIDE_KEYS, Settings, load_settings
from engine.errors import ConfigError
from engine.runtime import tune_garbage_collector
from engine.terminal import print_json, printing
from loadtest.machine import describe_machine, source_commit
from loadtest.places import choose_store_url, default_directory, made_directory
from loadtest.progress import show_progress
from loadtest.results import RUN_FILE
from loadtest.settings import WorkloadSettings, check_limit, flag_of, refuse_cluster
from loadtest.simulation.orders_file import read_orders
from loadtest.simulation.simulate import Outcome, Plan, describe_plan, simulate, unwatched
from loadtest.simulation.summary import print_summary
from loadtest.strategies.report import StrategiesRun, summarise, table_of, write
from loadtest.strategies.strategies import (
    SECONDS_MAX,
    check_strategies,
    compare,
    parse_connections,
    parse_strategies,
)
from loadtest.workload import Workload, generate

OF_HELD_ORDERS: Final = ("hold_seconds", "pay_rate", "late_payments", "cart_size")

REPEATS: Final = 3
"""Times each strategy is run unless --repeats says otherwise."""


class SimulateFlags(msgspec.Struct, frozen=True, kw_only=True):
    """The flags as they were given; None is a flag that was not. `sale` are those of a workload."""

    sale: Mapping[str, Any]
    concurrency: int
    config: Path | None
    store_url: str | None
    batch_size: int | None
    batch_delay_ms: float | None
    orders: Path | None
    out: Path | None
    history: Path | None
    strategies: str | None = None
    repeats: int | None = None
    redis_url: str | None = None
    connections: str | None = None


def run_simulation(flags: SimulateFlags, *, as_json: bool) -> int:
    """Run the sale, print it, return the exit code. Raises ConfigError for flags that don't fit."""
    plan = make_plan(flags)
    if flags.strategies is not None:
        if plan.workload.hold_seconds:
            raise ConfigError("the baselines know no --hold-seconds; leave it out")
        return run_comparison(plan, flags, as_json=as_json)
    for flag, value in (
        ("--repeats", flags.repeats),
        ("--redis-url", flags.redis_url),
        ("--connections", flags.connections),
    ):
        if value is not None:
            raise ConfigError(f"{flag} goes with --strategies")
    tune_garbage_collector()
    errors = Console(stderr=True, soft_wrap=True)
    outcome = simulate(plan, unwatched if as_json else partial(show_progress, console=errors))
    with printing() as console:
        if as_json:
            print_json(outcome.run)
        else:
            print_summary(console, outcome, plan.workload)
    _say_where(errors, plan, outcome, as_json=as_json)
    return outcome.exit_code


def run_comparison(plan: Plan, flags: SimulateFlags, *, as_json: bool) -> int:
    """Run the sale by every strategy, print and write the table, return the exit code."""
    names = parse_strategies(flags.strategies or "all", redis=flags.redis_url is not None)
    check_strategies(plan, names, flags.redis_url)
    repeats, connections = flags.repeats or REPEATS, parse_connections(flags.connections)
    tune_garbage_collector()
    started_at = datetime.now(UTC).isoformat(timespec="seconds")
    commit = source_commit()
    errors = Console(stderr=True, soft_wrap=True)
    with made_directory(plan.directory):
        runs, info = compare(
            plan,
            names,
            repeats,
            flags.redis_url,
            connections,
            lambda line: errors.print(line, style="dim", markup=False, highlight=False),
        )
    run = StrategiesRun(
        started_at=started_at,
        commit=commit,
        seed=plan.workload.seed,
        machine=describe_machine(info),
        config={
            **describe_plan(plan),
            "repeats": repeats,
            "seconds_max": SECONDS_MAX,
            "connections_tried": connections,
        },
        strategies=summarise(runs),
    )
    write(run, plan.directory)
    with printing() as console:
        if as_json:
            print_json(run)
        else:
            console.print(table_of(run, console.width))
    errors.print(
        f"written: {plan.directory / RUN_FILE}", style="dim", markup=False, highlight=False
    )
    return 0 if run.ok else 1


def make_plan(flags: SimulateFlags) -> Plan:
    """Check all flags together; creates nothing. Raises ConfigError."""
    directory = flags.out or default_directory()
    url = choose_store_url(flags.store_url, flags.config, _settings(flags, None), directory)
    workload = _workload(
        {key: value for key, value in flags.sale.items() if value is not None}, flags.orders
    )
    plan = Plan(workload, _settings(flags, url), directory, flags.concurrency, flags.history)
    plan.check()
    return plan


def _settings(flags: SimulateFlags, url: str | None) -> Settings:
    held = bool(flags.sale.get("hold_seconds"))
    given = {
        # Holds need somebody who gives them back; without them there is nothing to look after.
        **({} if held else COMMAND_SIDE_KEYS),
        "store.url": url,
        "batch.size_max": flags.batch_size,
        "batch.delay_ms_max": flags.batch_delay_ms,
    }
    for name in ("batch_size", "batch_delay_ms"):
        if (value := getattr(flags, name)) is not None:
            check_limit(name, value)
    settings = load_settings(
        flags.config, {key: value for key, value in given.items() if value is not None}
    )
    refuse_cluster(settings)
    return settings


def _workload(given: Mapping[str, Any], orders: Path | None) -> Workload:
    """Draw the orders, or read them from the file; `given` are the flags that were set."""
    if orders is None:
        settings = WorkloadSettings(**given)
        settings.check()
        if "seconds" in given and settings.arrival == "burst":
            raise ConfigError("--seconds needs --arrival poisson or ramp; a burst has no length")
        return generate(settings)
    arrival = given.get("arrival")
    if arrival not in (None, "burst"):
        raise ConfigError("--orders has its own times; only --arrival burst goes with it")
    foreign = sorted(given.keys() - {"stock", "limit_per_buyer", "arrival"})
    life = [each for each in foreign if each in OF_HELD_ORDERS]
    if life:
        raise ConfigError(
            f"{flag_of(life[0])} does not go with --orders: recorded orders are final"
        )
    if foreign:
        raise ConfigError(f"{flag_of(foreign[0])} has no meaning with --orders; the file says it")
    defaults = WorkloadSettings()
    return read_orders(
        orders,
        stock=given.get("stock", defaults.stock),
        limit_per_buyer=given.get("limit_per_buyer", defaults.limit_per_buyer),
        timed=arrival is None,
    )


def _say_where(errors: Console, plan: Plan, outcome: Outcome, *, as_json: bool) -> None:
    if outcome.interrupted:
        errors.print(
            f"stopped; to go on, repeat the command with --out {plan.directory}", markup=False
        )
    elif not as_json:
        where = plan.directory / RUN_FILE
        errors.print(f"written: {where}", style="dim", markup=False, highlight=False)
