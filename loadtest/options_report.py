"""The flags of `seckill report`, as types."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, TypeAlias

import typer

Result: TypeAlias = Annotated[
    Path, typer.Argument(metavar="DIR", help="The folder of a result, or its run.json.")
]
Out: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="The page. [dim]Default: report.html beside run.json.[/dim]",
        show_default=False,
    ),
]
