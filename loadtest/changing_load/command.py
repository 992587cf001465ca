"""`python -m loadtest.changing_load`: batch settings under a load that changes, adaptive ones too."""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Final

import msgspec
import typer
from rich.console import Console

from engine.config import COMMAND_SIDE_KEYS, BatchSettings, Settings, load_settings
from engine.errors import SeckillError
from engine.event_loop import run_async
from engine.runtime import tune_garbage_collector
from engine.terminal import wide_console
from loadtest.changing_load.report import ChangingLoadRun, summarise, table_of, write
from loadtest.changing_load.runs import LoadRun, phases, run_load
from loadtest.machine import source_commit
from loadtest.places import check_directory, choose_store_url, made_directory
from loadtest.progress import count_runs
from loadtest.scratch import scratch_store
from loadtest.settings import WorkloadSettings, check_limit, describe_settings
from loadtest.simulation.simulate import Plan, run_sale
from loadtest.workload import generate
from loadtest.wrong import NotProven

CONCURRENCY: Final = 2_000
CAPACITY_SECONDS: Final = 1.5
CAPACITY_SECONDS_MIN: Final = 0.5
"""A shorter one may end before the first transaction does on a busy machine, and measure nothing."""
ORDERS_PER_SECOND_MAX: Final = 500_000

SETTINGS: Final[dict[str, BatchSettings]] = {
    "default (8,190)": BatchSettings(),
    "1,000": BatchSettings(size_max=1_000),
    "2,000": BatchSettings(size_max=2_000),
    "1,000 / 5 ms": BatchSettings(size_max=1_000, delay_ms_max=5),
    "article (50 / 50 ms)": BatchSettings(size_max=50, delay_ms_max=50),
    "adaptive 5 ms": BatchSettings(mode="adaptive", latency_aim_ms=5),
    "adaptive 20 ms": BatchSettings(mode="adaptive", latency_aim_ms=20),
    "adaptive 50 ms": BatchSettings(mode="adaptive", latency_aim_ms=50),
}
"""What is compared, the first with all others: sizes as `seckill tune` finds them best on SQLite and
on MariaDB, one with a short delay, and the classic setting."""


class Study(msgspec.Struct, frozen=True):
    """Every setting `repeats` times. `capacity_per_s` 0 measures it; `scale` shortens the phases."""

    settings: Settings
    directory: Path
    repeats: int
    seed: int
    scale: float = 1.0
    capacity_per_s: float = 0.0


def run_study(study: Study, done: Callable[[LoadRun], None] = lambda _: None) -> ChangingLoadRun:
    """Run every setting in a new random order each repeat. Raises NotProven and SeckillError."""
    started = datetime.now(UTC).isoformat(timespec="seconds")
    commit = source_commit()
    capacity = study.capacity_per_s or measure_capacity(study)
    load = phases(capacity, study.scale)
    shuffle = random.Random(study.seed).shuffle
    runs: list[LoadRun] = []
    machine = None
    for repeat in range(1, study.repeats + 1):
        labels = list(SETTINGS)
        shuffle(labels)
        for label in labels:
            batch = SETTINGS[label]
            settings = msgspec.structs.replace(study.settings, batch=batch)
            with scratch_store(settings, study.directory) as scratch:
                seed = study.seed + repeat
                run, machine = run_async(run_load(scratch, label, repeat, load, seed))
            runs.append(run)
            done(run)
    assert machine is not None, "a study has at least one setting"
    config = describe_settings(study.settings)
    del config["batch"], config["service"]
    return ChangingLoadRun(
        started_at=started,
        commit=commit,
        seed=study.seed,
        machine=machine,
        config={"repeats": study.repeats, "scale": study.scale, **config},
        capacity_per_s=round(capacity, 1),
        capacity_was_measured=not study.capacity_per_s,
        phases=list(load),
        checked_events=sum(each.checked_events for each in runs),
        settings=summarise(SETTINGS, runs),
    )


def measure_capacity(study: Study) -> float:
    """What the default settings take from a crowd that waits for its answers, orders a second."""
    seconds = max(CAPACITY_SECONDS * study.scale, CAPACITY_SECONDS_MIN)
    while not (found := _capacity_over(study, seconds)):
        # The machine stood still for all of it.
        seconds *= 2
    return found


def _capacity_over(study: Study, seconds: float) -> float:
    orders = int(seconds * ORDERS_PER_SECOND_MAX)
    workload = generate(WorkloadSettings(seed=study.seed, buyers=orders, stock=orders))
    with scratch_store(study.settings, study.directory) as scratch:
        plan = Plan(workload, scratch, study.directory, CONCURRENCY, seconds_max=seconds)
        outcome = run_sale(plan)
    if not outcome.run.audit.ok:
        raise NotProven(f"measuring the capacity: {outcome.run.audit.findings[0]}")
    return outcome.run.throughput.durable_per_s


app = typer.Typer(add_completion=False)


@app.command()
def changing_load(
    store_url: Annotated[
        str | None, typer.Option(help="sqlite:PATH or mysql://...; each run has a place beside it.")
    ] = None,
    repeats: Annotated[int, typer.Option(help="Runs of each setting.")] = 5,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder to write to.", show_default="results/changing-load-DATE-COMMIT"),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the arrivals and of the order of runs.")] = 1,
    scale: Annotated[
        float, typer.Option(min=0.01, max=100, help="Of the length of all phases, for a look.")
    ] = 1.0,
    capacity: Annotated[
        float, typer.Option(min=0, max=10_000_000, help="Orders/s of the store; 0 measures it.")
    ] = 0.0,
) -> None:
    """Compare batch settings from idle through a rush to the quiet hour after it."""
    started = datetime.now(UTC)
    out = out or Path("results") / f"changing-load-{started:%Y-%m-%d}-{source_commit()[:8]}"
    errors = Console(stderr=True, soft_wrap=True)
    try:
        check_limit("repeats", repeats)
        check_limit("seed", seed)
        check_directory(out)
        url = choose_store_url(store_url, None, load_settings(), out)
        settings = load_settings(None, {**COMMAND_SIDE_KEYS, "store.url": url})
        tune_garbage_collector()
        with made_directory(out):
            with count_runs(errors) as progress:
                task = progress.add_task("", total=repeats * len(SETTINGS))

                def done(run: LoadRun) -> None:
                    flash = run.figures["flash"]
                    line = f"{run.label}: flash p99 {flash.p99_ms or 0:,.1f} ms"
                    progress.console.print(line, style="dim", markup=False, highlight=False)
                    progress.advance(task)

                run = run_study(Study(settings, out, repeats, seed, scale, capacity), done)
            write(run, out)
    except NotProven as error:
        errors.print(f"wrong answer, nothing is written: {error}", markup=False, highlight=False)
        raise typer.Exit(1) from None
    except SeckillError as error:
        errors.print(f"error: {error}", markup=False, highlight=False)
        raise typer.Exit(2) from None
    console = wide_console()
    console.print(table_of(run))
    errors.print(f"written: {out}/run.json, README.md and plots", markup=False, highlight=False)
