"""The command line: parse, call, print.

What a command needs is imported inside it, so that `seckill --help` answers at once.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, TypeVar

import typer

from engine.errors import ConfigError, InvalidCommand, SchemaMismatch, SeckillError, StoreLocked
from loadtest import options

if TYPE_CHECKING:
    from rich.console import Console

    from engine.config import Settings
    from engine.inspection import SkuView, StoreView
    from engine.inventory.audit import AuditReport
    from loadtest.simulate import Plan
    from loadtest.workload import Workload

T = TypeVar("T")

BAD_INPUT = (ConfigError, InvalidCommand, SchemaMismatch, StoreLocked)
"""Errors that the caller can mend by asking for something else: exit code 2."""

INTERRUPTED_CODE = 130
"""What shells report for a program ended by Ctrl-C."""

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

StoreToRead = Annotated[
    str,
    typer.Option(
        "--store-url",
        metavar="URL",
        help="The store to read, sqlite:PATH. An engine may be writing to it.",
    ),
]
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


@app.command(epilog=options.SIMULATE_EXAMPLES)
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
    seed: options.Seed = None,
    concurrency: options.Concurrency = 2_000,
    config: options.Config = None,
    store_url: options.StoreUrl = None,
    batch_size: options.BatchSize = None,
    batch_delay_ms: options.BatchDelay = None,
    orders: options.Orders = None,
    out: options.Out = None,
    history: options.History = None,
    as_json: Annotated[
        bool,
        typer.Option(
            "--json", help="Print run.json instead of tables.", rich_help_panel=options.FILES
        ),
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
    settings = _load_settings(config, None, batch_size, batch_delay_ms)
    url = choose_store_url(store_url, config, settings, directory)
    settings = _load_settings(config, url, batch_size, batch_delay_ms)
    workload = _make_workload(
        {key: value for key, value in given.items() if value is not None}, orders
    )
    plan = Plan(workload, settings, directory, concurrency, history)
    plan.check()
    _run_simulation(plan, as_json=as_json)


@app.command()
def audit(
    store_url: StoreToRead,
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

    It replays every event with code of its own. Exit code 0: proven. 1: something is wrong.
    2: the store or the history cannot be read.
    """
    report = _interruptible(lambda: asyncio.run(_audit(store_url, history)))
    with _printing() as console:
        if as_json:
            _print_json(report)
        else:
            from loadtest.summary import print_audit, verdict

            print_audit(console, report)
            console.print(verdict(report), style="bold", highlight=False)
    if not report.ok:
        raise typer.Exit(1)


@app.command()
def inspect(
    store_url: StoreToRead,
    sku: Annotated[str | None, typer.Argument(help="One SKU, with its last events.")] = None,
    last: Annotated[
        int, typer.Option(min=1, max=10_000, metavar="N", help="Events of the SKU to show.")
    ] = 5,
    as_json: AsJson = False,
) -> None:
    """Show what a store holds: stock, streams, versions, positions."""
    view = _interruptible(lambda: asyncio.run(_view(store_url, sku, last)))
    with _printing() as console:
        if as_json:
            _print_json(view)
        else:
            from engine.inspection import print_view

            print_view(console, view, ROWS_SHOWN_MAX)


def _load_settings(
    config: Path | None, url: str | None, batch_size: int | None, batch_delay_ms: float | None
) -> Settings:
    from engine.config import load_settings
    from loadtest.settings import check_limit

    overrides: dict[str, object] = {}
    if url is not None:
        overrides["store.url"] = url
    if batch_size is not None:
        check_limit("batch_size", batch_size)
        overrides["batch.size_max"] = batch_size
    if batch_delay_ms is not None:
        check_limit("batch_delay_ms", batch_delay_ms)
        overrides["batch.delay_ms_max"] = batch_delay_ms
    return load_settings(config, overrides)


def _make_workload(given: Mapping[str, Any], orders: Path | None) -> Workload:
    """Draw the orders, or read them from the file; `given` are the flags that were set."""
    from loadtest.settings import WorkloadSettings, flag_of

    if orders is None:
        from loadtest.workload import generate

        settings = WorkloadSettings(**given)
        settings.check()
        if "seconds" in given and settings.arrival == "burst":
            raise ConfigError("--seconds needs --arrival poisson or ramp; a burst has no length")
        return generate(settings)
    from loadtest.orders_file import read_orders

    arrival = given.get("arrival")
    if arrival not in (None, "burst"):
        raise ConfigError("--orders has its own times; only --arrival burst goes with it")
    foreign = sorted(given.keys() - {"stock", "limit_per_buyer", "arrival"})
    if foreign:
        raise ConfigError(f"{flag_of(foreign[0])} has no meaning with --orders; the file says it")
    return read_orders(
        orders,
        stock=given.get("stock", options.DEFAULTS.stock),
        limit_per_buyer=given.get("limit_per_buyer", 0),
        timed=arrival is None,
    )


def _run_simulation(plan: Plan, *, as_json: bool) -> None:
    from rich.console import Console

    from engine.runtime import tune_garbage_collector
    from loadtest.progress import show_progress
    from loadtest.results import RUN_FILE
    from loadtest.simulate import simulate, unwatched
    from loadtest.summary import print_summary

    tune_garbage_collector()
    errors = Console(stderr=True, soft_wrap=True)
    watch = unwatched if as_json else partial(show_progress, console=errors)
    outcome = _interruptible(lambda: simulate(plan, watch))
    with _printing() as console:
        if as_json:
            _print_json(outcome.run)
        else:
            print_summary(console, outcome, plan.workload)
    if outcome.interrupted:
        errors.print(
            f"stopped; to go on, repeat the command with --out {plan.directory}", markup=False
        )
    elif not as_json:
        where = plan.directory / RUN_FILE
        errors.print(f"written: {where}", style="dim", markup=False, highlight=False)
    if outcome.exit_code:
        raise typer.Exit(outcome.exit_code)


async def _audit(store_url: str, history: Path | None) -> AuditReport:
    from engine.inventory.audit import audit as audit_store
    from engine.inventory.history import read_history
    from engine.runtime import open_reader

    noted = read_history(history) if history is not None else None
    reader = await open_reader(store_url)
    try:
        return await audit_store(reader, noted)
    finally:
        await reader.close()


async def _view(store_url: str, sku: str | None, last: int) -> StoreView | SkuView:
    from engine.inspection import view_sku, view_store
    from engine.runtime import open_reader

    reader = await open_reader(store_url)
    try:
        return await view_store(reader) if sku is None else await view_sku(reader, sku, last)
    finally:
        await reader.close()


def _interruptible(work: Callable[[], T]) -> T:
    try:
        return work()
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED_CODE) from None


@contextmanager
def _printing() -> Iterator[Console]:
    """A console for results; a reader who has seen enough, such as `head`, ends the program.

    It ends by the signal as other programs do, and not with exit code 1, which means "not proven".
    All work is done and written down by then.
    """
    from rich.console import Console

    before = signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    try:
        yield Console()
        sys.stdout.flush()
    finally:
        signal.signal(signal.SIGPIPE, before)


def _print_json(record: object) -> None:
    import msgspec

    text = msgspec.json.format(msgspec.json.encode(record), indent=2)
    sys.stdout.write(text.decode() + "\n")


def _exit(code: int, message: str = "") -> NoReturn:
    if message:
        sys.stderr.write(message + "\n")
    sys.exit(code)
