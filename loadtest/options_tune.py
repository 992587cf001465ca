"""The flags of `seckill tune`, as types: what each means, in which panel of --help it stands."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final, TypeAlias

import typer

from loadtest.options import COMPARISON, CROWD, ENGINE, FILES, option

CHOICE: Final = "The choice"

EXAMPLES: Final = """
[bold]Examples[/bold]

The usual sizes on a new SQLite file, with the setting of the articles beside them:

> seckill tune --also configs/article.toml

Sizes with and without a delay, for three crowds, of single orders over HTTP:

> seckill tune --batch-size 1,10,50,100 --batch-delay-ms 0,1,5 \\
--concurrency 50,500,2000 --driver http --repeats 5 --out runs/tuned

Stopped by Ctrl-C or killed, it goes on when the same command is given again.

The fastest setting on a server that keeps p99 within 20 ms, found without trying all of them equally often:

> seckill tune --store-url mysql://shop:secret@db/shop \\
--search --p99-ms-max 20
"""

Sizes: TypeAlias = Annotated[
    str | None,
    option(
        "Batch sizes to try, separated by commas.",
        ENGINE,
        "batch_size",
        "1,10,50,100,200,500,1000,2000,5000",
        metavar="SIZES",
    ),
]
Delays: TypeAlias = Annotated[
    str,
    option(
        "Milliseconds the first order of a batch may wait, separated by commas; every size is "
        "tried with each.",
        ENGINE,
        "batch_delay_ms",
        "0",
        metavar="DELAYS",
    ),
]
Also: TypeAlias = Annotated[
    list[Path] | None,
    option(
        "Try the batch settings of this TOML file too, beside the sizes; repeatable.",
        ENGINE,
        metavar="FILE",
    ),
]
Concurrency: TypeAlias = Annotated[
    str,
    option(
        "Orders that may be unanswered at a time, separated by commas; every setting is tried with "
        "each. Over HTTP: connections.",
        CROWD,
        "concurrency",
        "2000",
        metavar="NUMBERS",
    ),
]
Driver: TypeAlias = Annotated[
    str,
    option(
        "inproc: simulated buyers in the engine's own process. http: a server process and "
        "connections to it. locust: a server process under Locust.",
        CROWD,
        default="inproc",
        metavar="NAME",
    ),
]
ListSize: TypeAlias = Annotated[
    int, option("Orders of one request over HTTP.", CROWD, "list_size", 1)
]
Repeats: TypeAlias = Annotated[int, option("Times each setting is run.", COMPARISON, "repeats", 3)]
Seconds: TypeAlias = Annotated[
    float, option("How long each run sells.", COMPARISON, "seconds", 2, metavar="SECONDS")
]
Warmup: TypeAlias = Annotated[
    float,
    option(
        "How long a run sells before anything is counted.",
        COMPARISON,
        "warmup_seconds",
        0.5,
        metavar="SECONDS",
    ),
]
Search: TypeAlias = Annotated[
    bool,
    typer.Option(
        "--search",
        help="Successive halving: every setting once, then the better half more often, until few "
        "are left, which get all --repeats.",
        rich_help_panel=COMPARISON,
    ),
]
AimOption: TypeAlias = Annotated[
    str,
    option(
        "throughput: the most durable orders a second.",
        CHOICE,
        default="throughput",
        metavar="AIM",
    ),
]
P99Max: TypeAlias = Annotated[
    float | None,
    option(
        "Only settings whose p99 stays within so many milliseconds at every concurrency.",
        CHOICE,
        "p99_ms_max",
        metavar="MS",
    ),
]
Confirm: TypeAlias = Annotated[
    int,
    option(
        "Fresh runs of the recommended setting, in turns with the default; 0 leaves them out.",
        CHOICE,
        "confirm",
        3,
    ),
]
Skus: TypeAlias = Annotated[int, option("Different SKUs on sale.", CROWD, "skus", 1)]
Popularity: TypeAlias = Annotated[
    float, option("Zipf exponent over the SKUs.", CROWD, "popularity", 1.0, metavar="EXPONENT")
]
Seed: TypeAlias = Annotated[
    int, option("The same seed gives the same orders in the same turns.", CROWD, default=1)
]
Out: TypeAlias = Annotated[
    Path | None,
    option(
        "Folder for run.json, README.md with plots, recommended.toml and tune.jsonl, from which an "
        "experiment that was stopped goes on.",
        FILES,
        default="runs/ and the time in UTC",
        metavar="FOLDER",
    ),
]
