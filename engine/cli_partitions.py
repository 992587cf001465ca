"""`seckill partitions`: where partitions live, and moving one to another database."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from engine.cli_read_models import StoreToRead, urls_to_read
from engine.event_loop import run_async
from engine.partition_table import NOBODY
from engine.terminal import interruptible, print_json, printing
from loadtest import options

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import Console

    from engine.partition_table import PartitionRow

partitions = typer.Typer(
    help="Show where partitions live, or move one to another database.",
    invoke_without_command=True,
)

WHAT = {
    "mark": "nobody writes it",
    "receive": "announced where it goes",
    "clear": "read models let go of it",
    "copy": "copying commits",
    "verify": "comparing commits",
    "tell": "all databases know",
    "claim": "it has moved",
    "settle": "cleaning up",
}
"""The steps of a move, in words."""


@partitions.callback()
def show(
    context: typer.Context,
    store_url: StoreToRead = None,
    config: options.Config = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Show every partition: its database, epoch, position, and who acquired it last.

    With --config also how many commits its read models are behind and, of a cluster, which node owns it
    now. Exit code 1: a partition is being moved, its database does not answer, or nobody owns it.
    """
    if context.invoked_subcommand is not None:
        return
    urls = urls_to_read(store_url, config)
    rows = interruptible(lambda: run_async(_read(urls, config)))
    with printing() as console:
        if as_json:
            print_json(rows)
        else:
            from engine.partition_table import table_of

            console.print(table_of(rows))
    if any(each.state != "ok" or each.node == NOBODY for each in rows):
        raise typer.Exit(1)


@partitions.command()
def move(
    partition: Annotated[int, typer.Argument(metavar="PARTITION", help="Its number.")],
    to: Annotated[
        str,
        typer.Option(
            metavar="DATABASE", help="The name of the database, as `seckill partitions` shows it."
        ),
    ],
    store_url: StoreToRead = None,
    config: options.Config = None,
) -> None:
    """Move a partition to another database of its store: stop it, copy, compare, switch.

    Its orders wait or are refused meanwhile; all others are sold. Cut off at any point, the same command goes on; with --to naming where it was, it is taken back. Its read models are built anew.
    """
    urls = urls_to_read(store_url, config)
    with printing() as console:
        done = interruptible(lambda: _move(console, urls, partition, to))
        console.print(done, markup=False, highlight=False)


async def _read(urls: tuple[str, ...], config: Path | None) -> list[PartitionRow]:
    from engine.clock import SystemClock
    from engine.config import load_settings
    from engine.errors import BrokerUnavailable, StoreUnavailable
    from engine.partition_table import read_rows, with_lags, with_owners
    from engine.runtime import open_queries, open_reader

    reader = await open_reader(urls)
    try:
        rows = await read_rows(reader)
    finally:
        await reader.close()
    if config is None:
        return rows
    settings = load_settings(config)
    if settings.cluster.servers:
        from engine.cluster.look import live_owners

        try:
            owners = await live_owners(settings.cluster, SystemClock())
        except BrokerUnavailable as error:
            typer.echo(f"warning: nobody says who owns the partitions now: {error}", err=True)
        else:
            waiting = {number: (node, held.queue_depth) for number, (node, held) in owners.items()}
            rows = with_owners(rows, waiting)
    try:
        async with open_queries(settings) as queries:
            return with_lags(rows, await queries.lag())
    except StoreUnavailable:
        # The rows say which database it is.
        return rows


def _move(console: Console, urls: tuple[str, ...], partition: int, to: str) -> str:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    from engine.runtime import move_partition

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=console, transient=not console.is_terminal) as progress:
        bars = {}

        def report(what: str, done: int, total: int) -> None:
            if what not in bars:
                bars[what] = progress.add_task(WHAT[what], total=None)
            progress.update(bars[what], completed=done, total=total)

        return run_async(move_partition(urls, partition, to, report))
