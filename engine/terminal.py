"""How every command meets its terminal: output, Ctrl-C, a reader that goes away."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, TypeVar

import typer

from engine.event_loop import Terminated

if TYPE_CHECKING:
    from rich.console import Console

T = TypeVar("T")

INTERRUPTED_CODE: Final = 130
"""What shells report for a program ended by Ctrl-C."""


TERMINATED_CODE: Final = 143
"""The same for SIGTERM."""

PIPE_COLUMNS: Final = 200


def interruptible(work: Callable[[], T]) -> T:
    """Return what `work` returns; Ctrl-C and SIGTERM end the program without a traceback.

    Exit code 130 and 143. What `work` has to clean up is cleaned up.
    """

    def terminate(*_: object) -> None:
        raise Terminated

    before = signal.signal(signal.SIGTERM, terminate)
    try:
        return work()
    except Terminated:
        raise typer.Exit(TERMINATED_CODE) from None
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED_CODE) from None
    finally:
        signal.signal(signal.SIGTERM, before)


def wide_console() -> Console:
    """As wide as the terminal or COLUMNS; what is squeezed into the 80 columns of a pipe loses figures."""
    from rich.console import Console

    told = sys.stdout.isatty() or os.environ.get("COLUMNS")
    return Console() if told else Console(width=PIPE_COLUMNS)


@contextmanager
def printing() -> Iterator[Console]:
    """A console for results; a reader who has seen enough, such as `head`, ends the program.

    It ends by the signal as other programs do, and not with exit code 1, which means "not proven".
    All work is done and written down by then.
    """
    before = signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    try:
        yield wide_console()
        sys.stdout.flush()
    finally:
        signal.signal(signal.SIGPIPE, before)


def print_json(record: object) -> None:
    """Print a record as indented JSON."""
    import msgspec

    text = msgspec.json.format(msgspec.json.encode(record), indent=2)
    sys.stdout.write(text.decode() + "\n")
