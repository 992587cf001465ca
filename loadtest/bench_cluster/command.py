"""`python -m loadtest.bench_cluster`: what the way over the brokers costs, and who pays it."""

from __future__ import annotations

import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress

from engine.config import load_settings
from engine.event_loop import run_async
from engine.runtime import initialise_store
from engine.terminal import wide_console
from engine.testing.mariadb_server import mariadb_server
from engine.testing.nats_server import find_nats_server
from loadtest.bench.program import chosen, stores_beside
from loadtest.bench_cluster.report import ClusterRun, tables_of, write
from loadtest.bench_cluster.steps import NAMES, QUICK, ClusterBench, Sizes, check_programs
from loadtest.machine import Machine, describe_machine, load_average, source_commit


def measure(
    place: Path, sizes: Sizes, names: list[str], started: datetime, seed: int
) -> ClusterRun:
    """Run the benchmarks `names` with a progress bar. Raises WrongAnswer when a check fails."""
    commit = source_commit()
    loads = [load_average()]
    with Progress(console=Console(stderr=True)) as progress:
        bench = ClusterBench(place, sizes, seed, lambda: progress.advance(task))
        task = progress.add_task("benchmarks", total=sum(map(bench.work, names)))
        for name in names:
            progress.update(task, description=name)
            bench.run(name)
            loads.append(load_average())
    return ClusterRun(
        started_at=started.isoformat(timespec="seconds"),
        commit=commit,
        seed=seed,
        machine=_machine(place),
        broker=_broker_version(),
        load_average=loads,
        config=bench.config(),
        audit=bench.audit(),
        rows=bench.rows,
        brokers=bench.brokers,
    )


app = typer.Typer(add_completion=False)


@app.command()
def bench_cluster(
    out: Annotated[
        Path | None,
        typer.Option(help="Folder to write to.", show_default="results/DATE-cluster-hop"),
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="A look in three minutes instead of ten.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Of the order of the runs.")] = 1,
    only: Annotated[list[str] | None, typer.Option(help=f"{', '.join(NAMES)}; repeatable.")] = None,
) -> None:
    """Measure orders in process, and over brokers in one process and in two, on this machine.

    Brokers, MariaDB, engines and gateways are started for it and ended with it; every store is
    audited. A wrong answer exits with 1 and writes nothing.
    """
    started = datetime.now(UTC)
    out = out or Path("results") / f"{started:%Y-%m-%d}-cluster-hop"
    with stores_beside(out) as place:
        check_programs()
        names = chosen(list(NAMES), only)
        run = measure(place, QUICK if quick else Sizes(), names, started, seed)
        write(run, out)
    console = wide_console()
    for table in tables_of(run):
        console.print(table)
    console.print(f"written: {out}/run.json and README.md")


def _machine(place: Path) -> Machine:
    """The machine, with the database of most layouts."""
    place /= "machine"
    place.mkdir()
    with mariadb_server(place) as server:
        server.execute("CREATE DATABASE seckill")
        settings = load_settings(environ={}, overrides={"store.url": server.url()})
        return describe_machine(run_async(initialise_store(settings)))


def _broker_version() -> str:
    """Such as "nats-server: v2.15.1"."""
    program = find_nats_server()
    assert program is not None
    done = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
    return done.stdout.strip()
