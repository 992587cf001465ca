"""`seckill loadtest`: from flags to runs of Locust, from runs to what is printed and written."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import msgspec
from rich.console import Console

from engine.config import Settings, load_settings
from engine.errors import ConfigError
from engine.terminal import print_json, printing
from loadtest.http_processes import check_connections
from loadtest.over_http.process import Load
from loadtest.over_http.progress import show_load
from loadtest.over_http.run import LoadTest, LoadTestOutcome, run_load_test
from loadtest.over_http.summary import print_outcome
from loadtest.places import (
    check_directory,
    choose_store_url,
    default_directory,
    made_directory,
)
from loadtest.reports.command import write_report
from loadtest.results import RUN_FILE, Repeat, Run, write_run
from loadtest.sale import SKU_PREFIX
from loadtest.settings import WorkloadSettings, check_limit
from loadtest.shop_client import ShopClient
from loadtest.swarm.mix import parse_mix

SECONDS: Final = {"s": 1.0, "m": 60.0, "h": 3_600.0}
SKU_PREFIX_ALLOWED: Final = re.compile(r"[A-Za-z0-9._-]{1,40}")
_DURATION = re.compile(r"(\d{1,6}(?:\.\d{1,3})?)([smh]?)", re.ASCII)


class LoadTestFlags(msgspec.Struct, frozen=True, kw_only=True):
    """The flags as they were given; None is a flag that was not. `sale` are fields of the sale."""

    users: int
    spawn_rate: float | None
    duration: str
    shape: Any
    rate: float
    mix: str
    list_size: int
    think_seconds: float
    processes: int
    sale: dict[str, Any]
    sku_prefix: str | None
    host: str | None
    admin_url: str | None
    store_url: str | None
    config: Path | None
    batch_size: int | None
    batch_delay_ms: float | None
    repeats: int
    out: Path | None


def run_load_tests(flags: LoadTestFlags, *, as_json: bool) -> int:
    """Run, print and write; return the exit code. Raises ConfigError for flags that don't fit."""
    test = make_test(flags)
    errors = Console(stderr=True, soft_wrap=True)
    outcomes: list[LoadTestOutcome] = []
    with made_directory(test.directory):
        for number in range(1, flags.repeats + 1):
            if flags.repeats > 1:
                _say(errors, f"run {number} of {flags.repeats}")
            units = test.sale.stock * test.sale.skus
            with show_load(errors, test.load.seconds, units) as progress:
                outcomes.append(run_load_test(_numbered(test, number, flags.repeats), progress))
            if outcomes[-1].exit_code:
                break
        worst = max(outcomes, key=lambda each: each.exit_code)
        outcome = worst if worst.exit_code else _median(outcomes)
        run = outcome.run
        if len(outcomes) > 1:
            run = msgspec.structs.replace(run, repeats=[_repeat(each.run) for each in outcomes])
        write_run(test.directory, run)
        page = write_report(test.directory)
    with printing() as console:
        if as_json:
            print_json(run)
        else:
            print_outcome(console, outcome, run, test)
    _say(errors, f"written: {page} and {RUN_FILE}")
    return outcome.exit_code


def make_test(flags: LoadTestFlags) -> LoadTest:
    """Check all flags together; creates nothing. Raises ConfigError."""
    seconds = parse_duration(flags.duration)
    for name in ("users", "rate", "list_size", "think_seconds", "processes", "repeats"):
        check_limit(name, getattr(flags, name))
    check_limit("spawn_rate", flags.users if flags.spawn_rate is None else flags.spawn_rate)
    if flags.processes > flags.users:
        raise ConfigError(f"--processes must be at most --users, got {flags.processes}")
    try:
        parse_mix(flags.mix)
    except ValueError as error:
        raise ConfigError(f"--mix {error}") from None
    sale = WorkloadSettings(**flags.sale)
    sale.check()
    directory = flags.out or default_directory()
    check_directory(directory)
    load = Load(
        users=flags.users,
        spawn_per_second=flags.spawn_rate or flags.users,
        seconds=seconds,
        shape=flags.shape,
        per_second=flags.rate,
        mix=flags.mix,
        list_size=flags.list_size,
        think_seconds=flags.think_seconds,
        processes=flags.processes,
        sku_prefix=_sku_prefix(flags),
    )
    if flags.host is not None:
        return LoadTest(
            load=load,
            sale=sale,
            settings=load_settings(None),
            directory=directory,
            keep_store=True,
            host=_running(flags),
        )
    if flags.admin_url is not None:
        raise ConfigError("--admin-url goes with --host; a server of its own is found")
    settings, keep = _settings(flags, directory)
    check_connections("--users", flags.users, settings)
    if sale.hold_seconds and not settings.query_side.managers:
        raise ConfigError(
            "--hold-seconds needs query_side.managers = true: nobody else gives back what is not paid; "
            "--hold-seconds 0 makes every order final"
        )
    return LoadTest(load=load, sale=sale, settings=settings, directory=directory, keep_store=keep)


def _sku_prefix(flags: LoadTestFlags) -> str:
    """What a running server has not sold yet, unless it is named."""
    if flags.sku_prefix is None:
        return SKU_PREFIX if flags.host is None else f"LOAD-{datetime.now(UTC):%m%d-%H%M%S}"
    if not SKU_PREFIX_ALLOWED.fullmatch(flags.sku_prefix):
        raise ConfigError(
            "--sku-prefix takes 1 to 40 letters, digits, dots, underscores and dashes, got "
            f"{flags.sku_prefix[:60]!r}"
        )
    return flags.sku_prefix


def _running(flags: LoadTestFlags) -> ShopClient:
    given = {
        "--config": flags.config,
        "--store-url": flags.store_url,
        "--batch-size": flags.batch_size,
        "--batch-delay-ms": flags.batch_delay_ms,
    }
    for name in (each for each, value in given.items() if value is not None):
        raise ConfigError(f"{name} does not go with --host: that server has its own settings")
    if flags.repeats > 1:
        raise ConfigError("--repeats does not go with --host: every run needs a new store")
    # Only the secret is read from the environment; it is not this command's server.
    secret = load_settings(None).auth.admin_secret
    assert flags.host is not None
    return ShopClient(flags.host, flags.admin_url, secret)


def _settings(flags: LoadTestFlags, directory: Path) -> tuple[Settings, bool]:
    """The settings of the server, and whether its store is kept."""
    for name in ("batch_size", "batch_delay_ms"):
        if (value := getattr(flags, name)) is not None:
            check_limit(name, value)
    given = {"batch.size_max": flags.batch_size, "batch.delay_ms_max": flags.batch_delay_ms}
    overrides = {key: value for key, value in given.items() if value is not None}
    found = load_settings(flags.config, overrides)
    # The server runs in the folder of the results, so a relative path must not depend on where.
    url = choose_store_url(flags.store_url, flags.config, found, directory)
    kind, _, path = url.partition(":")
    if kind not in ("sqlite", "mysql", "memory"):
        # Not shown: it may have a password in it.
        raise ConfigError(
            "--store-url must be sqlite:PATH or mysql://user:password@host:port/database"
        )
    if kind == "sqlite":
        url = f"sqlite:{Path(path).absolute()}"
        folder = Path(path).absolute().parent
        if not folder.is_dir() and folder != directory.absolute():
            raise ConfigError(f"--store-url {path}: there is no folder {folder}")
    keep = flags.repeats == 1 and kind == "sqlite"
    if keep and Path(path).exists():
        raise ConfigError(f"{path} is there already; a load test needs a new file for its store")
    if kind == "memory":
        raise ConfigError("a store in memory is gone with its server and could not be audited")
    return load_settings(flags.config, {**overrides, "store.url": url}), keep


def parse_duration(text: str) -> float:
    """Seconds of `20s`, `5m`, `1h` or `20`. Raises ConfigError."""
    match = _DURATION.fullmatch(text.strip())
    seconds = float(match[1]) * SECONDS[match[2] or "s"] if match else 0.0
    # Locust takes whole seconds only.
    if not 1 <= seconds <= 86_400 or not seconds.is_integer():
        raise ConfigError(
            f"--duration must be whole seconds from 1s to 24h, such as 20s or 5m; got {text!r}"
        )
    return seconds


def _median(outcomes: list[LoadTestOutcome]) -> LoadTestOutcome:
    ranked = sorted(outcomes, key=lambda each: each.run.throughput.durable_per_s)
    return ranked[(len(ranked) - 1) // 2]


def _numbered(test: LoadTest, number: int, repeats: int) -> LoadTest:
    """With a folder of its own for every repeat: each has a log, histograms and Locust's files."""
    if repeats == 1:
        return test
    directory = test.directory / f"repeat-{number}"
    # A run that was killed may have left one; what is in it is written anew.
    directory.mkdir(exist_ok=True)
    return msgspec.structs.replace(test, directory=directory)


def _repeat(run: Run) -> Repeat:
    return Repeat(run.throughput, run.latency_ms, run.orders, run.audit)


def _say(errors: Console, text: str) -> None:
    errors.print(text, style="dim", markup=False, highlight=False)
