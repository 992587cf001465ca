"""The arguments and flags of `seckill compare`, as types."""

from __future__ import annotations

from typing import Annotated, Final, TypeAlias

import typer

COMPARE_EXAMPLES: Final = """
[bold]Examples[/bold]

Every strategy of one comparison beside the first:

> seckill compare results/strategies-2026-11-23-c9e53728-strict

Two batch settings of one experiment:

> seckill compare runs/tune:1000 runs/tune:1000/5ms

Three runs before a change and three after it; exit code 1 when it is shown to cost 5 %:

> seckill compare before1,before2,before3 after1,after2,after3 \\
--fail-below 0.95
"""

Results: TypeAlias = Annotated[
    list[str],
    typer.Argument(
        metavar="RESULT",
        help="Folders with a run.json (simulate, loadtest, tune), or such files; the first is the "
        "base. FOLDER:NAME takes one entry of a folder that holds several; A1,A2,A3 are "
        "repeats of one. One folder of several entries alone compares them all.",
        show_default=False,
    ),
]
FailBelow: TypeAlias = Annotated[
    float | None,
    typer.Option(
        metavar="RATIO",
        help="Exit with 1 when an entry is shown to be slower than the base (its whole interval is "
        "below 1) and its median ratio is below this. Above 0, at most 1.",
        show_default=False,
    ),
]
