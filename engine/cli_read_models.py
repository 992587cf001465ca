"""`seckill project` and `seckill dead-letters`: what is asked and done about read models."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from engine.event_loop import run_async
from engine.terminal import interruptible, printing
from loadtest import options

if TYPE_CHECKING:
    from engine.queries import Queries

T = TypeVar("T")

StoreToRead = Annotated[
    list[str] | None,
    typer.Option(
        "--store-url",
        metavar="URL",
        help="The store to read, sqlite:PATH or mysql://user:password@host:port/database; once for "
        "each of several databases. Else the one of --config. An engine may be writing to it.",
    ),
]

project = typer.Typer(help="Look at the read models, or build one anew.", no_args_is_help=True)
letters = typer.Typer(
    help="Deal with commits that could not be taken in or reacted to.", no_args_is_help=True
)

ReadModel = Annotated[str, typer.Argument(metavar="NAME", help="orders or sales.")]
HasLetters = Annotated[str, typer.Argument(metavar="NAME", help="orders, sales or checkout.")]


@project.command("status")
def project_status(store_url: StoreToRead = None, config: options.Config = None) -> None:
    """Show how far each read model is behind the events."""
    rows = _ask(store_url, config, lambda queries: queries.lag())
    with printing() as console:
        for each in rows:
            console.print(
                f"{each.name}: partition {each.partition} at {each.position:,}, "
                f"{each.commits:,} commits and {each.seconds:.3f} s behind, "
                f"{each.dead_letters:,} dead letters",
                highlight=False,
            )


@project.command("rebuild")
def project_rebuild(
    name: ReadModel, store_url: StoreToRead = None, config: options.Config = None
) -> None:
    """Build a read model from all events beside the live one, then swap. The sale goes on."""
    _ask(store_url, config, lambda queries: queries.rebuild(name))
    typer.echo(f"{name} was built anew")


@letters.command("list")
def letters_list(
    name: HasLetters, store_url: StoreToRead = None, config: options.Config = None
) -> None:
    """Show the commits that wait, and why; one without a reason waits behind another."""
    found = _ask(store_url, config, lambda queries: queries.dead_letters(name))
    for each in found:
        where = f"partition {each.partition} position {each.position:,}"
        typer.echo(f"{where}: {each.aggregate_type} {each.aggregate_id}: {each.reason or 'waits'}")
    typer.echo(f"{len(found):,} dead letters")


@letters.command("retry")
def letters_retry(
    name: HasLetters, store_url: StoreToRead = None, config: options.Config = None
) -> None:
    """Take the dead letters in, once their cause is mended. Exit code 1 when some are left.

    Those of checkout are taken up by the engine that runs, or by the next one: exit code 0."""
    _settle(name, store_url, config, skip=False)


@letters.command("skip")
def letters_skip(
    name: HasLetters, store_url: StoreToRead = None, config: options.Config = None
) -> None:
    """Give up the first dead letter of each SKU or order and take in what waits behind it.

    That of checkout must have a reason, and not one that begins with "waits:": what waits is taken up as
    with retry."""
    _settle(name, store_url, config, skip=True)


def urls_to_read(store_url: Sequence[str] | None, config: Path | None) -> tuple[str, ...]:
    """The URLs of the store that flags or a config file name; one of the two must.

    Raises ConfigError for a config, exits with 2 when there is neither.
    """
    if store_url:
        return tuple(store_url)
    if config is None:
        raise typer.BadParameter("give --store-url, or --config with a store in it")
    from engine.config import load_settings

    return load_settings(config).store.places


def _settle(name: str, store_url: Sequence[str] | None, config: Path | None, *, skip: bool) -> None:
    from engine.inventory.checkout import CHECKOUT

    left = _ask(store_url, config, lambda queries: queries.retry_dead_letters(name, skip=skip))
    typer.echo(f"{left:,} dead letters left")
    if left and name == CHECKOUT.name:
        typer.echo("The running engine takes them up in seconds, or the next one when it starts.")
        typer.echo(f"What became of them: seckill dead-letters list {name}")
    elif left:
        raise typer.Exit(1)


def _ask(
    store_url: Sequence[str] | None,
    config: Path | None,
    question: Callable[[Queries], Coroutine[Any, Any, T]],
) -> T:
    """Ask the read models of a store, which are fed as the settings say."""
    from engine.config import load_settings
    from engine.runtime import open_queries
    from engine.store_settings import store_keys

    settings = load_settings(config, store_keys(urls_to_read(store_url, config)))

    async def ask() -> T:
        async with open_queries(settings) as queries:
            return await question(queries)

    return interruptible(lambda: run_async(ask()))
