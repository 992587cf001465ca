"""What every benchmark does around its measuring: a place for stores, and words for what goes wrong."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import typer

from engine.errors import ConfigError, SeckillError
from engine.runtime import tune_garbage_collector
from loadtest.wrong import WrongAnswer


@contextmanager
def stores_beside(out: Path) -> Iterator[Path]:
    """A folder for stores while the block measures and writes `out`.

    Ends the program with 1 for a wrong answer, and with 2 for what could not be done.
    """
    try:
        with _made(out.parent) as stores:
            tune_garbage_collector()
            yield Path(stores).resolve()
    except (typer.Exit, typer.Abort):
        raise  # They are RuntimeErrors as well.
    except WrongAnswer as error:
        typer.echo(f"wrong answer, nothing is written: {error}", err=True)
        raise typer.Exit(1) from None
    except (SeckillError, OSError, RuntimeError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from None


def _made(parent: Path) -> tempfile.TemporaryDirectory[str]:
    """Beside the results: a directory for temporary files may live in memory, where fsync costs nothing.

    Its name is short, because that of a socket in it may have 107 characters. Raises ConfigError.
    """
    try:
        parent.mkdir(parents=True, exist_ok=True)
        return tempfile.TemporaryDirectory(dir=parent, prefix=".bench-")
    except OSError as error:
        raise ConfigError(f"cannot write to {parent}: {error.strerror}") from None


def chosen(known: list[str], only: list[str] | None) -> list[str]:
    """Return the benchmarks to run, in their order. Raises BadParameter for an unknown one."""
    for name in only or ():
        if name not in known:
            raise typer.BadParameter(f"{name!r} is not one of: {', '.join(known)}")
    return [name for name in known if not only or name in only]
