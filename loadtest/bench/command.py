"""`python -m loadtest.bench`: the budgets, each beside a ceiling measured in the same run."""

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
from loadtest.bench.report import BenchRun, Figure, table_of, write
from loadtest.bench.steps import Bench
from loadtest.machine import describe_machine, source_commit


def measure(bench: Bench, names: list[str], place: Path, started: datetime) -> BenchRun:
    """Run the benchmarks `names` with a progress bar. Raises WrongAnswer when a check fails."""
    commit = source_commit()
    figures: list[Figure] = []
    with Progress(console=Console(stderr=True)) as progress:
        task = progress.add_task("benchmarks", total=len(names))
        for name in names:
            progress.update(task, description=name)
            figures += bench.run(name)
            progress.advance(task)
    info = run_async(bench_runs.store_info(place / "info.db"))
    return BenchRun(
        started_at=started.isoformat(timespec="seconds"),
        commit=commit,
        machine=describe_machine(info),
        config=bench.config(),
        audit=bench.audit(),
        figures=figures,
    )


app = typer.Typer(add_completion=False)


@app.command()
def bench(
    out: Annotated[
        Path | None,
        typer.Option(help="Folder to write to.", show_default="results/bench-DATE-COMMIT"),
    ] = None,
    repeats: Annotated[int, typer.Option(min=1, max=100, help="Times each is measured.")] = 5,
    scale: Annotated[
        float, typer.Option(min=0.001, max=10, help="Share of the orders of a full run.")
    ] = 1.0,
    only: Annotated[
        list[str] | None,
        typer.Option(
            help="individual, lists, lonely, memory, replay, history or start; repeatable."
        ),
    ] = None,
    history_events: Annotated[
        int | None,
        typer.Option(min=1, help="Events of the long history.", show_default="10,000,000 x scale"),
    ] = None,
) -> None:
    """Measure the budgets of the embedded store beside the ceilings of this machine.

    A missed budget is printed and exits with 0; a wrong answer exits with 1 and writes nothing.
    """
    started = datetime.now(UTC)
    out = out or Path("results") / f"bench-{started:%Y-%m-%d}-{source_commit()[:8]}"
    with stores_beside(out) as place:
        runs = Bench(place, repeats, scale, history_events)
        run = measure(runs, chosen(list(runs.steps()), only), place, started)
        write(run, out)
    console = wide_console()
    console.print(table_of(run))
    console.print(f"written: {out}/run.json and README.md")
