"""`seckill tune`: from flags to an experiment, from an experiment to what is printed."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import msgspec
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from engine.config import COMMAND_SIDE_KEYS, load_settings
from engine.errors import ConfigError
from engine.runtime import tune_garbage_collector
from engine.terminal import print_json, printing
from loadtest.machine import source_commit
from loadtest.places import choose_store_url, default_directory, made_directory
from loadtest.results import RUN_FILE
from loadtest.settings import WorkloadSettings, check_limit
from loadtest.simulate import Plan, describe_plan
from loadtest.tune import (
    SIZES,
    Cell,
    CellRun,
    Experiment,
    grid,
    parse_numbers,
    run_experiment,
)
from loadtest.tune_report import PLOT_FILE, TuneRun, summarise, table_of, write
from loadtest.workload import generate

ORDERS_PER_SECOND: Final = 500_000
"""More than any setting can sell, so that a run ends by its time."""


class TuneFlags(msgspec.Struct, frozen=True, kw_only=True):
    """The flags as they were given; None is a flag that was not."""

    batch_size: str | None
    batch_delay_ms: str
    also: Sequence[Path]
    skus: int
    popularity: float
    concurrency: int
    seconds: float
    repeats: int
    seed: int
    config: Path | None
    store_url: str | None
    out: Path | None


def run_tuning(flags: TuneFlags, *, as_json: bool) -> int:
    """Run the experiment, print and write it, return the exit code. Raises ConfigError."""
    experiment = make_experiment(flags)
    tune_garbage_collector()
    started_at = datetime.now(UTC).isoformat(timespec="seconds")
    commit = source_commit()
    errors = Console(stderr=True, soft_wrap=True)
    with made_directory(experiment.directory):
        with _progress(errors) as progress:
            task = progress.add_task("", total=experiment.runs)

            def done(run: CellRun) -> None:
                rate = f"{run.cell.label}: {run.durable_per_s:,.0f} durable orders/s"
                progress.console.print(rate, style="dim", markup=False, highlight=False)
                progress.advance(task)

            runs, machine = run_experiment(experiment, done)
        plan = _plan(experiment)
        run = TuneRun(
            started_at=started_at,
            commit=commit,
            seed=experiment.seed,
            machine=machine,
            config={
                **describe_plan(plan),
                "repeats": experiment.repeats,
                "seconds_max": experiment.seconds_max,
            },
            checked_events=sum(each.checked_events for each in runs),
            cells=summarise(experiment.cells, runs),
        )
        write(run, experiment.directory)
    with printing() as console:
        if as_json:
            print_json(run)
        else:
            console.print(table_of(run))
    errors.print(
        f"written: {experiment.directory}/{RUN_FILE}, README.md and {PLOT_FILE}",
        style="dim",
        markup=False,
        highlight=False,
    )
    return 0


def make_experiment(flags: TuneFlags) -> Experiment:
    """Check all flags together; creates nothing. Raises ConfigError."""
    for name in ("seconds", "repeats", "seed"):
        check_limit(name, getattr(flags, name))
    directory = flags.out or default_directory()
    found = load_settings(flags.config)
    url = choose_store_url(flags.store_url, flags.config, found, directory)
    settings = load_settings(flags.config, {**COMMAND_SIDE_KEYS, "store.url": url})
    sizes = (
        [_whole(each) for each in parse_numbers("batch_size", flags.batch_size)]
        if (flags.batch_size is not None)
        else SIZES
    )
    delays = parse_numbers("batch_delay_ms", flags.batch_delay_ms)
    cells = grid(settings, sizes, delays)
    cells.append(Cell(settings.batch, flags.config.stem if flags.config else "default"))
    cells += [Cell(load_settings(path).batch, path.stem) for path in flags.also]
    names = [each.label for each in cells]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise ConfigError(f"{twice} would be tried twice; name it once")
    orders = min(int(flags.seconds * ORDERS_PER_SECOND), 10_000_000)
    workload = WorkloadSettings(
        seed=flags.seed, buyers=orders, skus=flags.skus, popularity=flags.popularity, stock=orders
    )
    workload.check()
    experiment = Experiment(
        generate(workload),
        settings,
        tuple(cells),
        directory,
        flags.concurrency,
        flags.repeats,
        flags.seconds,
        flags.seed,
    )
    _plan(experiment).check()
    return experiment


def _plan(experiment: Experiment) -> Plan:
    return Plan(
        experiment.workload, experiment.settings, experiment.directory, experiment.concurrency
    )


def _whole(size: float) -> int:
    if not size.is_integer():
        raise ConfigError(f"--batch-size takes whole numbers, got {size:g}")
    return int(size)


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("runs"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
    )
