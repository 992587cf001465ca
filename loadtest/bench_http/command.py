"""`python -m loadtest.bench_http`: orders over HTTP, and what is left of them in an overload."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress

from engine.event_loop import run_async
from engine.terminal import wide_console
from loadtest.bench import runs as bench_runs
from loadtest.bench.program import chosen, stores_beside
from loadtest.bench.report import Figure
from loadtest.bench_http.report import HttpRun, table_of, write
from loadtest.bench_http.steps import QUICK, HttpBench, Sizes
from loadtest.bench_http.wrk import generator_name
from loadtest.machine import describe_machine, load_average, source_commit


def measure(
    bench: HttpBench, names: list[str], place: Path, started: datetime, seed: int
) -> HttpRun:
    """Run the benchmarks `names` with a progress bar. Raises WrongAnswer when a check fails."""
    commit = source_commit()
    loads = [load_average()]
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
        load_average=[*loads, load_average()],
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
    with stores_beside(out) as place:
        runs = HttpBench(place, QUICK if quick else Sizes(), generator_name(), seed)
        run = measure(runs, chosen(list(runs.steps()), only), place, started, seed)
        write(run, out)
    console = wide_console()
    console.print(table_of(run))
    console.print(f"written: {out}/run.json and README.md")
