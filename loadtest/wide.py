"""Where the tables of long runs are printed."""

from __future__ import annotations

import sys
from typing import Final

from rich.console import Console

PIPE_COLUMNS: Final = 200


def wide_console() -> Console:
    """As wide as the terminal; a table squeezed into the 80 columns of a pipe cannot be read."""
    return Console() if sys.stdout.isatty() else Console(width=PIPE_COLUMNS)
