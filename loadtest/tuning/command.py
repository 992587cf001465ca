"""`seckill tune`: from flags to an experiment, from an experiment to what is printed."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, get_args

import msgspec
from rich.console import Console

from engine.config import COMMAND_SIDE_KEYS, load_settings
from engine.errors import ConfigError
from engine.runtime import tune_garbage_collector
from engine.terminal import print_json, printing
from loadtest.machine import source_commit, source_state
from loadtest.places import check_directory, choose_store_url, default_directory, made_directory
from loadtest.progress import count_runs
from loadtest.reports.command import write_report
from loadtest.results import PAGE_FILE, RUN_FILE, write_whole
from loadtest.scratch import place_of
from loadtest.settings import WorkloadSettings, check_limit, refuse_cluster
from loadtest.tuning.drivers import DRIVERS, Driver, make_driver
from loadtest.tuning.experiment import (
    SIZES,
    Aim,
    Cell,
    CellRun,
    DriverName,
    Experiment,
    at_every,
    grid,
    parse_numbers,
    parse_whole_numbers,
)
from loadtest.tuning.journal import JOURNAL_FILE, Journal, open_journal
from loadtest.tuning.page import table_of, write
from loadtest.tuning.report import TuneRun, summarise
from loadtest.tuning.runs import Findings, run_experiment, runs_planned
from loadtest.tuning.search import Dropped
from loadtest.tuning.words import TOML_FILE, recommended_toml, sentences

ORDERS_PER_SECOND: Final = 500_000
"""More than any setting can sell, so that a run ends by its time."""


class TuneFlags(msgspec.Struct, frozen=True, kw_only=True):
    """The flags as they were given; None is a flag that was not."""

    batch_size: str | None
    batch_delay_ms: str
    also: Sequence[Path]
    skus: int
    popularity: float
    concurrency: str
    driver: str
    list_size: int
    seconds: float
    warmup_seconds: float
    repeats: int
    search: bool
    aim: str
    p99_ms_max: float | None
    confirm: int
    seed: int
    config: Path | None
    store_url: str | None
    out: Path | None


def run_tuning(flags: TuneFlags, *, as_json: bool) -> int:
    """Run the experiment, print and write it, return the exit code. Raises ConfigError."""
    experiment = make_experiment(flags)
    driver = make_driver(experiment)
    tune_garbage_collector()
    errors = Teller()
    started_at = datetime.now(UTC).isoformat(timespec="seconds")
    commit = source_commit()
    directory = experiment.directory
    with (
        made_directory(directory),
        open_journal(directory, fingerprint(experiment, source_state()), started_at) as journal,
    ):
        try:
            found = _run(experiment, driver, journal, errors)
        except KeyboardInterrupt:
            if journal.runs:
                errors.say(
                    f"stopped; {len(journal.runs):,} finished runs are kept in "
                    f"{directory / JOURNAL_FILE}: the same command with --out {directory} goes on"
                )
            raise
        run = _result(experiment, found, journal.started_at, commit)
        written = [*_write(run, directory), write_report(directory).name]
    with printing() as console:
        if as_json:
            print_json(run)
        else:
            console.print(table_of(run, console.width))
            for each in sentences(run):
                console.print()
                console.print(each, markup=False, highlight=False)
    errors.say(f"written to {directory}: {', '.join(written)}")
    return 0


class Teller:
    """What is said on stderr, beside the results."""

    def __init__(self) -> None:
        self.console = Console(stderr=True, soft_wrap=True)

    def say(self, text: str) -> None:
        self.console.print(text, style="dim", markup=False, highlight=False)


def _run(experiment: Experiment, driver: Driver, journal: Journal, errors: Teller) -> Findings:
    total = runs_planned(experiment)
    errors.say(estimate(experiment, total - journal.kept))
    if journal.kept:
        errors.say(f"{journal.kept:,} runs are kept from before")
    with count_runs(errors.console) as progress:
        task = progress.add_task("", total=total)

        def done(run: CellRun, kept: bool) -> None:
            progress.advance(task)
            if not kept:
                at = f" at {run.cell.concurrency:,}" if len(experiment.concurrencies) > 1 else ""
                errors.say(f"{run.cell.label}{at}: {run.durable_per_s:,.0f} durable orders/s")

        def tell(dropped: Sequence[Dropped]) -> None:
            for each in dropped:
                errors.say(f"dropped {each.label}: {each.why}")

        return run_experiment(experiment, driver, journal, done, tell)


def estimate(experiment: Experiment, runs: int) -> str:
    """How long so many runs take, roughly, in words."""
    overhead = DRIVERS[experiment.driver].overhead_seconds
    each = experiment.seconds + experiment.warmup_seconds + overhead
    seconds = runs * each
    long = (
        f"{seconds:,.0f} seconds"
        if seconds < 90
        else f"{seconds / 60:,.0f} minutes"
        if seconds < 5_400
        else f"{seconds / 3_600:,.1f} hours"
    )
    return f"{runs:,} {'run' if runs == 1 else 'runs'} of about {each:,.1f} s: about {long}"


def _result(experiment: Experiment, found: Findings, started_at: str, commit: str) -> TuneRun:
    chosen = found.recommendation
    again = experiment.cells_of([each.cell.label for each in found.fresh])
    return TuneRun(
        started_at=started_at,
        commit=commit,
        seed=experiment.seed,
        machine=found.machine,
        config=experiment.describe(),
        checked_events=sum(each.checked_events for each in (*found.runs, *found.fresh)),
        cells=summarise(experiment.cells, found.runs),
        recommendation=chosen,
        dropped=found.dropped,
        confirmed=summarise(again, found.fresh),
    )


def _write(run: TuneRun, directory: Path) -> list[str]:
    """Write all files and return their names. run.json is the last: it says that all is done."""
    extra = []
    if run.recommendation is not None and run.recommendation.holds:
        write_whole(directory / TOML_FILE, recommended_toml(run).encode())
        extra = [TOML_FILE]
    return [RUN_FILE, PAGE_FILE, *write(run, directory), *extra]


def make_experiment(flags: TuneFlags) -> Experiment:
    """Check all flags together; creates nothing. Raises ConfigError."""
    limited = ("seconds", "warmup_seconds", "repeats", "confirm", "list_size", "seed")
    for name in (*limited, *(["p99_ms_max"] if flags.p99_ms_max is not None else [])):
        check_limit(name, getattr(flags, name))
    _check_choice("driver", flags.driver, tuple(DRIVERS))
    _check_choice("aim", flags.aim, get_args(Aim))
    if flags.search and flags.repeats < 2:
        raise ConfigError("--search needs --repeats of 2 or more: it gives the better ones more")
    directory = flags.out or default_directory()
    check_directory(directory)
    found = load_settings(flags.config)
    refuse_cluster(found)
    url = choose_store_url(flags.store_url, flags.config, found, directory)
    settings = load_settings(flags.config, {**COMMAND_SIDE_KEYS, "store.url": url})
    given = flags.batch_size
    sizes = SIZES if given is None else parse_whole_numbers("batch_size", given)
    delays = parse_numbers("batch_delay_ms", flags.batch_delay_ms)
    concurrencies = parse_whole_numbers("concurrency", flags.concurrency)
    tried = grid(settings, sizes, delays, concurrencies[:1])
    default = Cell(settings.batch, flags.config.stem if flags.config else "default")
    tried += [default, *(Cell(load_settings(path).batch, path.stem) for path in flags.also)]
    names = [each.label for each in tried]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise ConfigError(f"{twice} would be tried twice; name it once")
    cells = at_every(concurrencies, tried)
    for each in tried:
        _check_batch(flags.config, url, each)
    seconds = flags.seconds + flags.warmup_seconds
    orders = max(1, min(int(seconds * ORDERS_PER_SECOND), 10_000_000))
    sale = WorkloadSettings(
        seed=flags.seed, buyers=orders, skus=flags.skus, popularity=flags.popularity, stock=orders
    )
    sale.check()
    return Experiment(
        sale=sale,
        settings=settings,
        cells=tuple(cells),
        default=default.label,
        directory=directory,
        repeats=flags.repeats,
        seconds=flags.seconds,
        warmup_seconds=flags.warmup_seconds,
        seed=flags.seed,
        driver=msgspec.convert(flags.driver, DriverName),
        list_size=flags.list_size,
        search=flags.search,
        aim=msgspec.convert(flags.aim, Aim),
        p99_ms_max=flags.p99_ms_max,
        confirm=flags.confirm,
    )


def _check_choice(flag: str, value: str, known: Sequence[str]) -> None:
    if value not in known:
        raise ConfigError(f"--{flag} must be one of {', '.join(known)}; got {value[:40]!r}")


def _check_batch(config: Path | None, url: str, cell: Cell) -> None:
    """A batch setting that does not go with the others is found now, not in the middle."""
    batch: dict[str, Any] = msgspec.to_builtins(cell.batch)
    overrides = {f"batch.{name}": value for name, value in batch.items()}
    try:
        load_settings(config, {**COMMAND_SIDE_KEYS, "store.url": url, **overrides})
    except ConfigError as error:
        raise ConfigError(f"batch size {cell.label}: {error}") from None


def fingerprint(experiment: Experiment, commit: str) -> dict[str, Any]:
    """All that must be alike for runs to stand in one table; of the store no name and no secret.

    Another commit is another engine, so it counts as well.
    """
    return {
        "commit": commit,
        # By their labels, so that what differs can be named.
        "settings": {
            each.label: msgspec.to_builtins(each.batch)
            for each in experiment.cells_of(experiment.labels)
        },
        "store_place": place_of(experiment.settings.store.url),
        "seed": experiment.seed,
        **experiment.describe(),
    }
