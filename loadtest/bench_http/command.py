"""`python -m loadtest.bench_http`: orders over HTTP, and what is left of them in an overload."""

from __future__ import annotations

import os
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress

from engine.errors import ConfigError
from engine.event_loop import run_async
from engine.runtime import tune_garbage_collector
from engine.terminal import wide_console
from loadtest.bench import runs as bench_runs
from loadtest.bench.command import chosen
from loadtest.bench.report import Figure
from loadtest.bench_http.report import HttpRun, table_of, write
from loadtest.bench_http.steps import QUICK, HttpBench, Sizes
from loadtest.bench_http.wrk import generator_name
from loadtest.machine import describe_machine, source_commit
from loadtest.wrong import WrongAnswer


def measure(
    bench: HttpBench, names: list[str], place: Path, started: datetime, seed: int
) -> HttpRun:
    """Run the benchmarks `names` with a progress bar. Raises WrongAnswer when a check fails."""
    commit = source_commit()
    loads = [_load_average()]
    figures: list[Figure] = []
    with Progress(console=Console(stderr=True)) as progress:
        task = progress.add_task("benchmarks", total=len(names))
        for name in names:
            progress.update(task, description=name)
            figures += bench.run(name)
            progress.advance(task)
    info = run_async(bench_runs.store_info(place / "info.db"))
    return HttpRun(
        started_at=started.isoformat(timespec="seconds"),
        commit=commit,
        seed=seed,
        machine=describe_machine(info),
        load_average=[*loads, _load_average()],
        config=bench.config(),
        audit=bench.audit(),
        figures=figures,
        overloads=bench.overloads,
    )


app = typer.Typer(add_completion=False)


@app.command()
def bench_http(
    out: Annotated[
        Path | None,
        typer.Option(help="Folder to write to.", show_default="results/http-DATE-COMMIT"),
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="A look in two minutes instead of ten.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Of the order of the runs.")] = 1,
    only: Annotated[
        list[str] | None,
        typer.Option(
            help="singles, lists, lonely, overload-lists or overload-singles; repeatable."
        ),
    ] = None,
) -> None:
    """Measure the service from outside, each server and generator a process of its own.

    A missed budget is printed and exits with 0; a wrong answer exits with 1 and writes nothing.
    """
    started = datetime.now(UTC)
    out = out or Path("results") / f"http-{started:%Y-%m-%d}-{source_commit()[:8]}"
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        # Beside the results: a directory for temporary files may live in memory, where fsync
        # costs nothing.
        with tempfile.TemporaryDirectory(dir=out.parent, prefix=".bench-stores-") as stores:
            place = Path(stores).resolve()
            runs = HttpBench(place, QUICK if quick else Sizes(), generator_name(), seed)
            names = chosen(list(runs.steps()), only)
            tune_garbage_collector()
            run = measure(runs, names, place, started, seed)
        write(run, out)
    except WrongAnswer as error:
        typer.echo(f"wrong answer, nothing is written: {error}", err=True)
        raise typer.Exit(1) from None
    except ConfigError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from None
    except OSError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from None
    console = wide_console()
    console.print(table_of(run))
    console.print(f"written: {out}/run.json and README.md")


def _load_average() -> float:
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else 0.0
