"""The command line: parse, call, print.

What a command needs is imported inside it, so that `seckill --help` answers at once.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn, TypeVar

import typer

from engine.cli_lab import lab
from engine.cli_partitions import partitions
from engine.cli_read_models import StoreToRead, letters, project, urls_to_read
from engine.errors import (
    ConfigError,
    InvalidCommand,
    SchemaMismatch,
    SeckillError,
    StoreLocked,
    StoreUnavailable,
)
from engine.event_loop import run_async
from engine.terminal import interruptible, print_json, printing
from loadtest import options

if TYPE_CHECKING:
    from engine.config import Settings
    from engine.inspection import SkuView, StoreView
    from engine.inventory.audit import AuditReport

T = TypeVar("T")

BAD_INPUT = (ConfigError, InvalidCommand, SchemaMismatch, StoreLocked)
"""Errors that the caller can mend by asking for something else: exit code 2."""

ROWS_SHOWN_MAX = 50
"""Rows of one table on the screen; --json has them all."""

app = typer.Typer(
    name="seckill",
    help="Sell scarce stock to a crowd: no oversell, no lost order, one fsync for many buyers.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run `seckill` and exit: 0 done, 1 failed, 2 bad input, 130 stopped by Ctrl-C."""
    try:
        app(None if arguments is None else list(arguments), prog_name="seckill")
    except BAD_INPUT as error:
        _exit(2, f"error: {error}")
    except SeckillError as error:
        _exit(1, f"error: {error}")
    _exit(0)


app.add_typer(lab)
app.add_typer(project, name="project")
app.add_typer(letters, name="dead-letters")
app.add_typer(partitions, name="partitions")


@app.callback(invoke_without_command=True)
def root(
    context: typer.Context,
    show_version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.")
    ] = False,
) -> None:
    if show_version:
        typer.echo(f"seckill {version('seckill-engine')}")
    elif context.invoked_subcommand is None:
        typer.echo(context.get_help())


@app.command()
def init(
    store_url: Annotated[
        list[str] | None,
        typer.Option(
            "--store-url",
            metavar="URL",
            help="mysql://user:password@host:port/database, once for each of several; or sqlite:PATH.",
        ),
    ] = None,
    config: options.Config = None,
) -> None:
    """Make a store ready: its tables, triggers and view. Done twice, it changes nothing.

    Several databases share the partitions; one that is added later has none until some are moved to it. A MySQL or MariaDB store is initialised once before it is sold from, by a user who may create
    tables, triggers and views; the database itself must exist. A SQLite file needs no init.
    The number of partitions (store.partitions of the config) is fixed from then on.
    """
    from engine.config import load_settings
    from engine.store_settings import store_keys

    settings = load_settings(config, store_keys(store_url))
    lines = interruptible(lambda: run_async(_init(settings)))
    with printing() as console:
        for each in lines:
            console.print(each, markup=False, highlight=False, soft_wrap=True)


@app.command()
def serve(
    config: options.Config = None,
    store_url: Annotated[
        list[str] | None,
        typer.Option(
            metavar="URL",
            help="sqlite:PATH, mysql://user:password@host:port/database (once for each of several) or "
            "memory: (lost at exit). Default sqlite:seckill.db.",
        ),
    ] = None,
    host: Annotated[
        str | None, typer.Option(metavar="HOST", help="Where buyers come in. Default 127.0.0.1.")
    ] = None,
    port: Annotated[
        int | None, typer.Option(metavar="PORT", help="Default 8080; 0 takes a free one.")
    ] = None,
    admin_port: Annotated[
        int | None, typer.Option(metavar="PORT", help="The operator's. Default 8081.")
    ] = None,
    batch_size: options.BatchSize = None,
    batch_delay_ms: options.BatchDelay = None,
    log_level: Annotated[
        str | None, typer.Option(metavar="LEVEL", help="debug, info, warning or error.")
    ] = None,
    role: Annotated[
        str | None,
        typer.Option(
            metavar="ROLE",
            help="In a cluster: gateway takes orders, engine owns partitions, all does both.",
        ),
    ] = None,
) -> None:
    """Sell over HTTP: an API, a live page, metrics. SIGTERM or Ctrl-C finishes what was begun.

    Exit code 0: stopped as told, everybody answered. 1: failed. 2: bad input.
    """
    from engine.service.command import ServeFlags, run_service

    run_service(
        ServeFlags(
            config=config,
            store_url=store_url,
            host=host,
            port=port,
            admin_port=admin_port,
            batch_size=batch_size,
            batch_delay_ms=batch_delay_ms,
            log_level=log_level,
            role=role,
        )
    )


@app.command()
def audit(
    store_url: StoreToRead = None,
    config: options.Config = None,
    history: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="The client's history file: every answer in it must be in the store.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Prove from its events that a store sold right: nothing oversold, lost, doubled.

    It replays every event with code of its own, and compares the read models that are there. Exit code 0: proven. 1: something is wrong.
    2: the store or the history cannot be read.
    """
    try:
        urls = urls_to_read(store_url, config)
        report = interruptible(lambda: run_async(_audit(urls, history)))
    except StoreUnavailable as error:
        # 1 would say that the proof failed.
        _exit(2, f"error: {error}")
    with printing() as console:
        if as_json:
            print_json(report)
        else:
            from loadtest.simulation.summary import print_audit, verdict

            print_audit(console, report)
            console.print(verdict(report), style="bold", highlight=False)
    if not report.ok:
        raise typer.Exit(1)


@app.command()
def inspect(
    sku: Annotated[str | None, typer.Argument(help="One SKU, with its last events.")] = None,
    store_url: StoreToRead = None,
    config: options.Config = None,
    last: Annotated[
        int, typer.Option(min=1, max=10_000, metavar="N", help="Events of the SKU to show.")
    ] = 5,
    as_json: AsJson = False,
) -> None:
    """Show what a store holds: stock, streams, versions, positions."""
    urls = urls_to_read(store_url, config)
    view = interruptible(lambda: run_async(_view(urls, sku, last)))
    with printing() as console:
        if as_json:
            print_json(view)
        else:
            from engine.inspection import print_view

            print_view(console, view, ROWS_SHOWN_MAX)


async def _init(settings: Settings) -> list[str]:
    from engine.partition_table import tell_numbers
    from engine.runtime import initialise_store, open_reader

    info = await initialise_store(settings)
    reader = await open_reader(settings.store.places)
    try:
        number, *of_each = await tell_numbers(reader)
    finally:
        await reader.close()
    about = f"{info.kind} {info.version}, durability {info.durability}"
    return [f"{info.location} is ready: {about}, {number}", *of_each]


async def _audit(urls: tuple[str, ...], history: Path | None) -> AuditReport:
    from engine.inventory.history import read_history
    from engine.runtime import audit_store

    return await audit_store(urls, read_history(history) if history is not None else None)


async def _view(urls: tuple[str, ...], sku: str | None, last: int) -> StoreView | SkuView:
    from engine.inspection import view_sku, view_store
    from engine.runtime import open_reader

    reader = await open_reader(urls)
    try:
        return await view_store(reader) if sku is None else await view_sku(reader, sku, last)
    finally:
        await reader.close()


def _exit(code: int, message: str = "") -> NoReturn:
    if message:
        sys.stderr.write(message + "\n")
    sys.exit(code)
