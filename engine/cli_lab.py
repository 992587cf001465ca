"""The commands that measure and show: simulate, loadtest, tune, compare, report."""

from __future__ import annotations

from typing import Annotated

import typer

from engine.terminal import interruptible
from loadtest import (
    options,
    options_compare,
    options_loadtest,
    options_report,
    options_tune,
)
from loadtest.swarm.mix import DEFAULT_MIX

lab = typer.Typer(rich_markup_mode="rich")

AsJson = Annotated[
    bool,
    typer.Option("--json", help="Print run.json instead of tables.", rich_help_panel=options.FILES),
]


@lab.command(epilog=options.SIMULATE_EXAMPLES)
def simulate(
    stock: options.Stock = None,
    skus: options.Skus = None,
    limit_per_buyer: options.LimitPerBuyer = None,
    buyers: options.Buyers = None,
    orders_per_buyer: options.OrdersPerBuyer = None,
    quantity: options.Quantity = None,
    arrival: options.ArrivalOption = None,
    seconds: options.Seconds = None,
    popularity: options.Popularity = None,
    duplicates: options.Duplicates = None,
    hold_seconds: options.HoldSeconds = None,
    pay_rate: options.PayRate = None,
    late_payments: options.LatePayments = None,
    cart_size: options.CartSize = None,
    seed: options.Seed = None,
    concurrency: options.Concurrency = 2_000,
    config: options.Config = None,
    store_url: options.StoreUrl = None,
    batch_size: options.BatchSize = None,
    batch_delay_ms: options.BatchDelay = None,
    orders: options.Orders = None,
    out: options.Out = None,
    history: options.History = None,
    strategies: options.Strategies = None,
    repeats: options.Repeats = None,
    redis_url: options.RedisUrl = None,
    connections: options.Connections = None,
    as_json: AsJson = False,
) -> None:
    """Run a flash sale on a real store, watch it, and prove the result.

    Ends with an audit of every event; run.json in the folder of --out holds the figures.
    Exit code 0: proven. 1: the proof or an order failed. 2: bad input. 130: stopped by Ctrl-C.
    """
    from loadtest.simulation.command import SimulateFlags, run_simulation

    flags = SimulateFlags(
        sale={
            "seed": seed,
            "buyers": buyers,
            "orders_per_buyer": orders_per_buyer,
            "skus": skus,
            "stock": stock,
            "quantity": quantity,
            "arrival": arrival,
            "seconds": seconds,
            "popularity": popularity,
            "duplicates": duplicates,
            "limit_per_buyer": limit_per_buyer,
            "hold_seconds": hold_seconds,
            "pay_rate": pay_rate,
            "late_payments": late_payments,
            "cart_size": cart_size,
        },
        concurrency=concurrency,
        config=config,
        store_url=store_url,
        batch_size=batch_size,
        batch_delay_ms=batch_delay_ms,
        orders=orders,
        out=out,
        history=history,
        strategies=strategies,
        repeats=repeats,
        redis_url=redis_url,
        connections=connections,
    )
    code = interruptible(lambda: run_simulation(flags, as_json=as_json))
    if code:
        raise typer.Exit(code)


@lab.command(epilog=options_loadtest.EXAMPLES)
def loadtest(
    users: options_loadtest.Users = 200,
    spawn_rate: options_loadtest.SpawnRate = None,
    duration: options_loadtest.Duration = "20s",
    shape: options_loadtest.ShapeOption = "flash",
    rate: options_loadtest.Rate = 0.0,
    mix: options_loadtest.Mix = DEFAULT_MIX,
    list_size: options_loadtest.ListSize = 100,
    think_seconds: options_loadtest.Think = 0.5,
    processes: options_loadtest.Processes = 1,
    seed: options_loadtest.Seed = 1,
    buyers: options_loadtest.Buyers = 1_000_000,
    popularity: options_loadtest.Popularity = 1.0,
    quantity: options_loadtest.Quantity = "1",
    pay_rate: options_loadtest.PayRate = 0.7,
    stock: options_loadtest.Stock = 1_000_000,
    skus: options_loadtest.Skus = 1,
    sku_prefix: options_loadtest.SkuPrefix = None,
    limit_per_buyer: options_loadtest.Limit = 0,
    hold_seconds: options_loadtest.Hold = 120,
    config: options.Config = None,
    batch_size: options.BatchSize = None,
    batch_delay_ms: options.BatchDelay = None,
    host: options_loadtest.Host = None,
    admin_url: options_loadtest.AdminUrl = None,
    store_url: options_loadtest.StoreUrl = None,
    repeats: options_loadtest.Repeats = 1,
    out: options_loadtest.Out = None,
    as_json: AsJson = False,
) -> None:
    """Load a server over HTTP with Locust, watch it, and prove the result.

    The buyers' counts are compared with the store, and the store is audited.
    Exit code 0: proven. 1: the proof or an order failed. 2: bad input. 130: stopped by Ctrl-C.
    """
    from loadtest.extras import check_installed

    check_installed()
    from loadtest.over_http.command import LoadTestFlags, run_load_tests

    flags = LoadTestFlags(
        users=users,
        spawn_rate=spawn_rate,
        duration=duration,
        shape=shape,
        rate=rate,
        mix=mix,
        list_size=list_size,
        think_seconds=think_seconds,
        processes=processes,
        sale={
            "seed": seed,
            "buyers": buyers,
            "popularity": popularity,
            "quantity": quantity,
            "pay_rate": pay_rate if hold_seconds else 1.0,
            "stock": stock,
            "skus": skus,
            "limit_per_buyer": limit_per_buyer,
            "hold_seconds": hold_seconds,
        },
        sku_prefix=sku_prefix,
        host=host,
        admin_url=admin_url,
        store_url=store_url,
        config=config,
        batch_size=batch_size,
        batch_delay_ms=batch_delay_ms,
        repeats=repeats,
        out=out,
    )
    code = interruptible(lambda: run_load_tests(flags, as_json=as_json))
    if code:
        raise typer.Exit(code)


@lab.command(epilog=options_tune.EXAMPLES)
def tune(
    batch_size: options_tune.Sizes = None,
    batch_delay_ms: options_tune.Delays = "0",
    also: options_tune.Also = None,
    concurrency: options_tune.Concurrency = "2000",
    driver: options_tune.Driver = "inproc",
    list_size: options_tune.ListSize = 1,
    skus: options_tune.Skus = 1,
    popularity: options_tune.Popularity = 1.0,
    seed: options_tune.Seed = 1,
    repeats: options_tune.Repeats = 3,
    seconds: options_tune.Seconds = 2.0,
    warmup_seconds: options_tune.Warmup = 0.5,
    search: options_tune.Search = False,
    aim: options_tune.AimOption = "throughput",
    p99_ms_max: options_tune.P99Max = None,
    confirm: options_tune.Confirm = 3,
    config: options.Config = None,
    store_url: options.StoreUrl = None,
    out: options_tune.Out = None,
    as_json: AsJson = False,
) -> None:
    """Sell with one batch setting after the other, show what each yields, and recommend one.

    Every run has an empty store of its own (on a server a scratch database) and is audited. Stopped
    or killed, it goes on when the same command is given with the same --out.
    Exit code 0: done. 1: an audit failed, no result is written. 2: bad input. 130: stopped by Ctrl-C.
    """
    from loadtest.tuning.command import TuneFlags, run_tuning

    flags = TuneFlags(
        batch_size=batch_size,
        batch_delay_ms=batch_delay_ms,
        also=also or (),
        concurrency=concurrency,
        driver=driver,
        list_size=list_size,
        skus=skus,
        popularity=popularity,
        seed=seed,
        repeats=repeats,
        seconds=seconds,
        warmup_seconds=warmup_seconds,
        search=search,
        aim=aim,
        p99_ms_max=p99_ms_max,
        confirm=confirm,
        config=config,
        store_url=store_url,
        out=out,
    )
    code = interruptible(lambda: run_tuning(flags, as_json=as_json))
    if code:
        raise typer.Exit(code)


@lab.command(epilog=options_compare.COMPARE_EXAMPLES)
def compare(
    results: options_compare.Results,
    fail_below: options_compare.FailBelow = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
) -> None:
    """Compare results: how many times faster than the first, and whether that is shown.

    Exit code 0: compared. 1: below --fail-below, or the audit of a run failed. 2: bad input, or too
    few repeats for --fail-below.
    """
    from loadtest.comparison.command import run_compare

    code = interruptible(lambda: run_compare(results, fail_below, as_json=as_json))
    if code:
        raise typer.Exit(code)


@lab.command()
def report(result: options_report.Result, out: options_report.Out = None) -> None:
    """Show a result as one HTML page with its plots, for a browser, a mail or a printer.

    Reads results of simulate, simulate --strategies, loadtest and tune. Exit code 2: it cannot be read.
    """
    from loadtest.reports.command import write_report

    typer.echo(f"written: {write_report(result, out)}")
