"""How every command meets its terminal: output, Ctrl-C, a reader that goes away."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, TypeVar

import typer

if TYPE_CHECKING:
    from rich.console import Console

T = TypeVar("T")

INTERRUPTED_CODE: Final = 130
"""What shells report for a program ended by Ctrl-C."""


def interruptible(work: Callable[[], T]) -> T:
    """Return what `work` returns; Ctrl-C ends the program with exit code 130 and no traceback."""
    try:
        return work()
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED_CODE) from None


@contextmanager
def printing() -> Iterator[Console]:
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


def print_json(record: object) -> None:
    """Print a record as indented JSON."""
    import msgspec

    text = msgspec.json.format(msgspec.json.encode(record), indent=2)
    sys.stdout.write(text.decode() + "\n")
