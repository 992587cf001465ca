"""`python -m loadtest.cluster.demo`: a sale over a cluster, one engine of which is killed.

Three brokers, two engines, two gateways and a MariaDB, all on this machine. Buyers order over HTTP;
in the middle of it the engine that sells the scarce SKU is killed with -9. It ends with the audit.
"""

from __future__ import annotations

import asyncio
import shutil
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Final, NamedTuple

import msgspec
import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from engine.clock import Clock, SystemClock
from engine.cqrs.event_store import StoreInfo
from engine.cqrs.partitioning import partition_of
from engine.errors import SeckillError
from engine.event_loop import run_async
from engine.inventory.audit import AuditReport
from engine.inventory.history import HistoryWriter, read_history
from engine.runtime import audit_store, tune_garbage_collector
from engine.terminal import interruptible, print_json, wide_console
from loadtest.cluster.figures import (
    ClusterRun,
    gateway_figures,
    orders_of,
    partition_figures,
    reconcile_orders,
    take_over_of,
    throughput_of,
    timeline_of,
)
from loadtest.cluster.processes import ClusterProcesses
from loadtest.cluster.report import PLOT_FILE, print_run, write
from loadtest.cluster.sale import ClusterCrowd, SaleLoad
from loadtest.machine import Machine, describe_machine, source_commit
from loadtest.places import check_directory, default_directory, made_directory
from loadtest.reconcile import Check
from loadtest.serve_process import ServeProcess
from loadtest.settings import describe_settings
from loadtest.simulation.simulate import summarise_audit

HISTORY_FILE: Final = "history.jsonl"
PROCESSES_FOLDER: Final = "processes"
SCARCE: Final = "HOT"
STOCK: Final = 1_000_000
SCARCE_TIMES: Final = 1.5
"""The stock of the scarce SKU, in what is sold of it until the kill: it is sold out after it."""

LIMIT_PER_BUYER: Final = 6

GIVEN_UP_SECONDS: Final = 30.0
"""Nobody waits longer for a dead engine's partitions to sell again: three times what they have."""

ASKED_AGAIN_MAX: Final = 200
"""Orders from before the kill that are asked for in the end, through every gateway."""

POLL_SECONDS: Final = 0.05
PHASES: Final = 10


class Demo(msgspec.Struct, frozen=True, kw_only=True):
    """What to run: so many seconds before the kill, and after the partitions sell again."""

    directory: Path
    before_seconds: float = 10.0
    after_seconds: float = 10.0
    load: SaleLoad
    stock: int = STOCK
    limit_per_buyer: int = LIMIT_PER_BUYER


class Killed(NamedTuple):
    """The engine that was killed: between which times, and who owned the partitions before."""

    engine: str
    killed_at: float
    dead_at: float
    owners: Mapping[int, str]


class Outcome(NamedTuple):
    run: ClusterRun
    report: AuditReport
    check: Check
    samples: Sequence[str]


Step = Callable[[str], None]
"""Told what is done now."""


def skus_for(partitions: int) -> dict[str, int]:
    """A SKU for every partition, and the scarce one; each with its partition."""
    found = {SCARCE: partition_of(SCARCE, partitions)}
    open_places = set(range(partitions))
    number = 0
    while open_places:
        number += 1
        sku = f"SKU-{number}"
        place = partition_of(sku, partitions)
        if place in open_places:
            open_places.remove(place)
            found[sku] = place
    return found


def run_demo(demo: Demo, cluster: ClusterProcesses, step: Step) -> Outcome:
    """Start the cluster, sell, kill, audit. Raises RuntimeError when a process does not start."""
    started_at = datetime.now(UTC).isoformat(timespec="seconds")
    commit = source_commit()
    history = demo.directory / HISTORY_FILE
    try:
        cluster.start(step)
        settings = cluster.settings
        places = skus_for(settings.store.partitions)
        load = msgspec.structs.replace(demo.load, skus=tuple(places))
        machine = _machine(cluster)
        step("opening the sale")
        for sku in places:
            stock = _scarce_stock(demo, load) if sku == SCARCE else demo.stock
            cluster.gateways[0].shop.open_sale(sku, stock, demo.limit_per_buyer, 0)
        writer = HistoryWriter(history)
        try:
            crowd = ClusterCrowd([each.url for each in cluster.gateways], load, writer)
            killed, stopped_at = run_async(_sell(demo, crowd, cluster, places, SystemClock(), step))
        finally:
            writer.close()
        step("audit")
        cluster.terminate_nodes()
        report = run_async(audit_store(settings.store.places, read_history(history)))
    finally:
        cluster.close()
    times = (killed.killed_at, killed.dead_at, stopped_at)
    partitions = partition_figures(crowd, places, killed.owners, killed.engine, times)
    dead = {each.partition for each in partitions if each.killed}
    check = reconcile_orders(crowd, report)
    run = ClusterRun(
        started_at=started_at,
        commit=commit,
        seed=load.seed,
        machine=machine,
        config={
            "brokers": len(cluster.brokers.urls),
            "engines": len(cluster.engines),
            "gateways": len(cluster.gateways),
            "workload": msgspec.to_builtins(load),
            "before_seconds": demo.before_seconds,
            "after_seconds": demo.after_seconds,
            **describe_settings(settings),
        },
        orders=orders_of(crowd.total),
        retried=crowd.total.again,
        throughput=throughput_of(crowd),
        latency_ms=crowd.latency.percentiles(),
        audit=summarise_audit(report, [check]),
        take_over=take_over_of(killed.engine, killed.killed_at - crowd.began, partitions),
        gateways=[
            gateway_figures(each.name, counts)
            for each, counts in zip(cluster.gateways, crowd.counts, strict=True)
        ],
        timeline=timeline_of(crowd, lambda sku: places[sku] in dead),
    )
    return Outcome(run, report, check, crowd.samples)


def _scarce_stock(demo: Demo, load: SaleLoad) -> int:
    units_per_second = load.per_second / len(load.skus) * (load.quantity_max + 1) / 2
    return max(1, int(units_per_second * demo.before_seconds * SCARCE_TIMES))


async def _sell(
    demo: Demo,
    crowd: ClusterCrowd,
    cluster: ClusterProcesses,
    places: Mapping[str, int],
    clock: Clock,
    step: Step,
) -> tuple[Killed, float]:
    """Let the crowd buy, kill an engine meanwhile; returns that, and when the last order began."""
    step("selling")
    buying = asyncio.create_task(crowd.run())
    try:
        await _unless_ended(buying, clock.sleep(demo.before_seconds))
        killed = await _kill(cluster, places, clock, step)
        dead = {sku for sku, place in places.items() if killed.owners[place] == killed.engine}
        await _unless_ended(buying, _until_sold_again(crowd, places, dead, killed, clock))
        step("selling on")
        await _unless_ended(buying, clock.sleep(demo.after_seconds))
        stopped_at = clock.monotonic()
        crowd.stop()
        await buying
    finally:
        buying.cancel()
    step("asking again for orders from before the kill")
    before = [
        each
        for each in crowd.sales
        if each.answered_at < killed.killed_at and each.order.aggregate_id in dead
    ]
    await crowd.ask_again(before[-ASKED_AGAIN_MAX:])
    return killed, stopped_at


async def _kill(
    cluster: ClusterProcesses, places: Mapping[str, int], clock: Clock, step: Step
) -> Killed:
    """Kill the engine that sells the scarce SKU. Raises RuntimeError when nobody does."""
    owners = await asyncio.to_thread(cluster.owners)
    victim = _engine(cluster, owners.get(places[SCARCE], ""))
    numbers = sorted(number for number, name in owners.items() if name == victim.name)
    step(f"{victim.name} is killed (-9), it owns the partitions {', '.join(map(str, numbers))}")
    killed_at = clock.monotonic()
    await asyncio.to_thread(victim.kill)
    return Killed(victim.name, killed_at, clock.monotonic(), owners)


def _engine(cluster: ClusterProcesses, name: str) -> ServeProcess:
    for each in cluster.engines:
        if each.name == name:
            return each
    raise RuntimeError(f"no engine owns the partition of {SCARCE}: the gateways say {name!r}")


async def _until_sold_again(
    crowd: ClusterCrowd,
    places: Mapping[str, int],
    dead: set[str],
    killed: Killed,
    clock: Clock,
) -> None:
    """Return when each partition of the dead engine sold an order that was sent since, or too late."""
    wanted = {places[sku] for sku in dead}
    seen, looked = Counter[int](), len(crowd.sales)
    while wanted - seen.keys() and clock.monotonic() - killed.killed_at < GIVEN_UP_SECONDS:
        await clock.sleep(POLL_SECONDS)
        for each in crowd.sales[looked:]:
            if each.sent_at > killed.dead_at:
                seen[places[each.order.aggregate_id]] += 1
        looked = len(crowd.sales)


async def _unless_ended(buying: asyncio.Task[None], work: Awaitable[None]) -> None:
    """Wait for `work`. A crowd that ends before it ends by an error, which is raised."""
    waiting = asyncio.ensure_future(work)
    try:
        await asyncio.wait([buying, waiting], return_when=asyncio.FIRST_COMPLETED)
        if buying.done():
            await buying
        await waiting
    finally:
        waiting.cancel()


def _machine(cluster: ClusterProcesses) -> Machine:
    store = cluster.gateways[0].shop.about().store
    return describe_machine(StoreInfo(store.kind, store.version, store.durability, ""))


app = typer.Typer(add_completion=False)


@app.command()
def cluster_demo(
    out: Annotated[
        Path | None, typer.Option(help="Folder to write to.", show_default="runs/TIME")
    ] = None,
    seconds: Annotated[
        float,
        typer.Option(min=0.5, max=600, help="Of the sale before the kill, and after it is over."),
    ] = 10.0,
    buyers: Annotated[int, typer.Option(min=1, max=1_000, help="Who buy at a time.")] = 160,
    per_second: Annotated[
        float, typer.Option(min=1, max=20_000, help="Orders of all of them, while all goes well.")
    ] = 800.0,
    seed: Annotated[int, typer.Option(min=0, help="Of what is ordered.")] = 1,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print run.json instead of tables.")
    ] = False,
) -> None:
    """Sell over a cluster on this machine, kill an engine with -9, and prove the result.

    Exit code 0: proven, and its partitions sold again within 10 seconds. 1: not so. 2: a process or a
    folder is missing. 130: stopped by Ctrl-C.
    """
    out = out or default_directory()
    # The processes have working directories of their own.
    directory = out.absolute()
    load = SaleLoad(skus=(), buyers=buyers, per_second=per_second, seed=seed)
    demo = Demo(directory=directory, before_seconds=seconds, after_seconds=seconds, load=load)
    errors = Console(stderr=True, soft_wrap=True)
    try:
        check_directory(directory)
        tune_garbage_collector()
        with made_directory(directory):
            outcome = interruptible(lambda: _run_and_show(demo, errors))
            write(outcome.run, directory)
    except typer.Exit:
        raise  # It is a RuntimeError as well.
    except (SeckillError, RuntimeError) as error:
        errors.print(f"error: {error}", markup=False, highlight=False)
        raise typer.Exit(2) from None
    if as_json:
        print_json(outcome.run)
    else:
        console = wide_console()
        print_run(console, outcome.run, outcome.report, outcome.check, outcome.samples)
    errors.print(
        f"written: {out}/run.json, {PLOT_FILE} and README.md", markup=False, highlight=False
    )
    if not outcome.run.ok:
        raise typer.Exit(1)


def _run_and_show(demo: Demo, errors: Console) -> Outcome:
    """Run it with a bar of its phases, and keep only the logs of the processes."""
    place = demo.directory / PROCESSES_FOLDER
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TimeElapsedColumn(),
        console=errors,
        transient=True,
    ) as progress:
        task = progress.add_task("", total=PHASES)
        clock = SystemClock()
        began = clock.monotonic()

        def step(text: str) -> None:
            at = f"{clock.monotonic() - began:5.1f} s  "
            progress.console.print(at + text, style="dim", markup=False, highlight=False)
            progress.update(task, description=text)
            progress.advance(task)

        try:
            return run_demo(demo, ClusterProcesses(place), step)
        finally:
            _drop_data(place)


def _drop_data(place: Path) -> None:
    """Data directories are hundreds of megabytes that nobody reads again; logs are kept."""
    for each in place.glob("*/"):
        shutil.rmtree(each / "data", ignore_errors=True)
    for each in place.glob("*/*/jetstream"):
        shutil.rmtree(each, ignore_errors=True)


if __name__ == "__main__":
    app()
