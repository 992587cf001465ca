"""The command line: parse, call, print.

What a command needs is imported inside it, so that `seckill --help` answers at once.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Coroutine, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn, TypeVar

import typer

from engine.errors import (
    ConfigError,
    InvalidCommand,
    SchemaMismatch,
    SeckillError,
    StoreLocked,
)
from loadtest.settings import LIMITS, ORDERS_MAX, WorkloadSettings

if TYPE_CHECKING:
    from loadtest.simulate import Plan
    from loadtest.workload import Workload

T = TypeVar("T")

BAD_INPUT = (ConfigError, InvalidCommand, SchemaMismatch, StoreLocked)
"""Errors that the caller can mend by asking for something else: exit code 2."""

INTERRUPTED_CODE = 130
"""What shells report for a program ended by Ctrl-C."""

app = typer.Typer(
    name="seckill",
    help="Sell scarce stock to a crowd: no oversell, no lost order, one fsync for many buyers.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)

SALE, CROWD, ENGINE, OUTPUT = "The sale", "The crowd", "The engine", "Input and output"

SIMULATE_EXAMPLES = """
[bold]Examples[/bold]

Ten thousand buyers, 500 units, on a new SQLite file in runs/:

    seckill simulate --stock 500 --limit-per-buyer 2

Three SKUs of unlike popularity, mixed quantities, orders sent twice, buyers arriving over 10 s:

    seckill simulate --buyers 200000 --skus 3 --stock 50000 --quantity 1:0.7,2:0.2,5:0.1
    --duplicates 0.05 --arrival poisson --seconds 10 --seed 7 --out runs/mixed

A killed run goes on when the same command is given again with the same --out.
"""

AUDIT_EXAMPLES = """
[bold]Example[/bold]

    seckill audit --store-url sqlite:runs/mixed/sale.db --history runs/mixed/history.jsonl

Exit code 0: proven. 1: something is wrong. 2: the store or the history cannot be read.
"""


def _limits(name: str) -> str:
    least, most = LIMITS[name]
    return f"From {least:,} to {most:,}."


@app.callback(invoke_without_command=True)
def root(
    context: typer.Context,
    show_version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.")
    ] = False,
) -> None:
    if show_version:
        typer.echo(f"seckill {version('seckill-engine')}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
        raise typer.Exit(2)


@app.command(epilog=SIMULATE_EXAMPLES)
def simulate(
    stock: Annotated[
        int | None,
        typer.Option(help=f"Units of every SKU. {_limits('stock')}", rich_help_panel=SALE),
    ] = None,
    skus: Annotated[
        int | None,
        typer.Option(help=f"Different SKUs on sale. {_limits('skus')}", rich_help_panel=SALE),
    ] = None,
    limit_per_buyer: Annotated[
        int | None,
        typer.Option(
            help="Units of one SKU that one buyer may hold; 0 means no limit.",
            rich_help_panel=SALE,
        ),
    ] = None,
    buyers: Annotated[
        int | None,
        typer.Option(help=f"Different buyers. {_limits('buyers')}", rich_help_panel=CROWD),
    ] = None,
    orders_per_buyer: Annotated[
        int | None,
        typer.Option(
            help="Orders each buyer places, mixed with the others'; "
            f"{ORDERS_MAX:,} orders in all at most.",
            rich_help_panel=CROWD,
        ),
    ] = None,
    quantity: Annotated[
        str | None,
        typer.Option(
            help="Units of one order: 1, a range 1-3, or weights 1:0.7,2:0.2,5:0.1.",
            rich_help_panel=CROWD,
        ),
    ] = None,
    arrival: Annotated[
        Literal["burst", "poisson", "ramp"] | None,
        typer.Option(
            help="burst: everybody at once, each worker as fast as it is answered. poisson: "
            "evenly at random over --seconds. ramp: more and more over --seconds.",
            rich_help_panel=CROWD,
        ),
    ] = None,
    seconds: Annotated[
        float | None,
        typer.Option(
            help="How long buyers keep arriving (poisson, ramp). Latency counts from the moment "
            "an order was due.",
            rich_help_panel=CROWD,
        ),
    ] = None,
    popularity: Annotated[
        float | None,
        typer.Option(
            help="Zipf exponent over the SKUs: 0 makes them equal, 1 gives SKU-1 twice the "
            f"orders of SKU-2. {_limits('popularity')}",
            rich_help_panel=CROWD,
        ),
    ] = None,
    duplicates: Annotated[
        float | None,
        typer.Option(
            help="Share of orders that are sent a second time, with the same id; they must get "
            f"the same answer. {_limits('duplicates')}",
            rich_help_panel=CROWD,
        ),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(help="The same seed gives the same orders.", rich_help_panel=CROWD),
    ] = None,
    concurrency: Annotated[
        int,
        typer.Option(
            help="Orders that may be unanswered at a time; 1 sends one after the other, so that "
            f"the same buyers win every time. {_limits('concurrency')}",
            rich_help_panel=CROWD,
        ),
    ] = 2_000,
    config: Annotated[
        Path | None,
        typer.Option(help="Settings as TOML, see configs/.", rich_help_panel=ENGINE),
    ] = None,
    store_url: Annotated[
        str | None,
        typer.Option(
            help="sqlite:PATH or memory:  Without it the config's store.url, else a file "
            "sale.db in the folder of --out.",
            rich_help_panel=ENGINE,
        ),
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(
            help="Orders of one SKU after which a batch closes. From 1 to 100,000.",
            rich_help_panel=ENGINE,
        ),
    ] = None,
    batch_delay_ms: Annotated[
        float | None,
        typer.Option(
            help="Milliseconds the first order of a batch may wait for others; 0 never waits.",
            rich_help_panel=ENGINE,
        ),
    ] = None,
    orders: Annotated[
        Path | None,
        typer.Option(
            help="Replay a recorded sale instead: a .csv or .jsonl file with the columns at "
            "(seconds), buyer, sku, quantity, command_id. Checked whole before anything is sent.",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder for run.json and the store. Default: runs/ and the time in UTC.",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    history: Annotated[
        Path | None,
        typer.Option(
            help="Note every order before it is sent and when it is answered, in a file that "
            "survives kill -9; `seckill audit --history` compares it with the store.",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    as_json: Annotated[
        bool,
        typer.Option("--json", help="Print run.json instead of tables.", rich_help_panel=OUTPUT),
    ] = False,
) -> None:
    """Run a flash sale on a real store, watch it, and prove the result.

    Ends with an audit of every event; run.json in the folder of --out holds the figures.
    Exit code 0: proven. 1: the proof or an order failed. 2: bad input. 130: stopped by Ctrl-C.
    """
    from loadtest.places import choose_store_url, default_directory
    from loadtest.simulate import Plan

    given = {
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
    }
    directory = out or default_directory()
    settings = _load_settings(config, store_url, batch_size, batch_delay_ms)
    url = choose_store_url(store_url, config, settings, directory)
    settings = _load_settings(config, url, batch_size, batch_delay_ms)
    plan = Plan(_make_workload(given, orders), settings, directory, concurrency, history)
    plan.check()
    _simulate(plan, as_json=as_json)
