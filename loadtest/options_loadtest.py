"""The flags of `seckill loadtest`, as types."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final, TypeAlias

from loadtest.options import COMPARISON, CROWD, FILES, SALE, option
from loadtest.swarm.mix import DEFAULT_MIX
from loadtest.swarm.shapes import Shape

TARGET: Final = "The server"

EXAMPLES: Final = """
[bold]Examples[/bold]

Two hundred buyers for twenty seconds against a server of its own, on a new SQLite file:

> seckill loadtest --users 200 --duration 20s

Arrivals by a timetable, 800 a second in three waves, so that a stall of the server shows in the latency:

> seckill loadtest --users 500 --rate 800 --shape wave --duration 60s

Gateways that send lists, three runs each with a database of its own on a server:

> seckill loadtest --mix list:1 --users 20 --list-size 500 \\
--store-url mysql://shop:secret@db/shop --repeats 3

A server that is running already:

> seckill loadtest --host http://10.0.0.5:8080 --admin-url http://10.0.0.5:8081
"""

Users: TypeAlias = Annotated[
    int,
    option(
        "Users at the most; each has one order under way. In an open loop they are the connections.",
        *(CROWD, "users", 200),
    ),
]
SpawnRate: TypeAlias = Annotated[
    float | None,
    option("Users that come per second.", CROWD, "spawn_rate", default="all at once"),
]
Duration: TypeAlias = Annotated[
    str, option("Such as 20s, 5m or 1h.", CROWD, default="20s", metavar="TIME")
]
ShapeOption: TypeAlias = Annotated[
    Shape,
    option(
        "How many of the users (or of --rate) are there over time. flash: all at once. ramp: more and "
        "more. wave: three waves. soak: a slow beginning, then all.",
        CROWD,
        default="flash",
        metavar=None,
    ),
]
Rate: TypeAlias = Annotated[
    float,
    option(
        "Open loop: orders (with list: lists) due per second, whatever the server does; latency counts "
        "from when each was due. 0: each user sends when the order before was answered.",
        CROWD,
        "rate",
        0,
    ),
]
Mix: TypeAlias = Annotated[
    str,
    option(
        "Users by weight: buyer (one order a request, then pays or leaves), list (sends lists), reader "
        "(asks), impatient (sends each order twice).",
        CROWD,
        default=DEFAULT_MIX,
        metavar="NAME:N,...",
    ),
]
ListSize: TypeAlias = Annotated[int, option("Orders of one list.", CROWD, "list_size", 100)]
Think: TypeAlias = Annotated[
    float,
    option("At most, before a buyer pays.", CROWD, "think_seconds", 0.5, metavar="SECONDS"),
]
Processes: TypeAlias = Annotated[
    int, option("Processes of Locust; one takes a core.", CROWD, "processes", 1)
]
Stock: TypeAlias = Annotated[int, option("Units of every SKU.", SALE, "stock", 1_000_000)]
Skus: TypeAlias = Annotated[int, option("Different SKUs on sale.", SALE, "skus", 1)]
SkuPrefix: TypeAlias = Annotated[
    str | None,
    option(
        "What stands before -1, -2 of the SKUs on sale.",
        SALE,
        default="SKU; with --host LOAD and the time",
        metavar="NAME",
    ),
]
Limit: TypeAlias = Annotated[
    int, option("Units of one SKU that one buyer may hold; 0: no limit.", SALE, default=0)
]
Hold: TypeAlias = Annotated[
    int,
    option(
        "How long an accepted order is held until it is paid or given back; 0: it is final.",
        *(SALE, "hold_seconds", 120),
        metavar="SECONDS",
    ),
]
Quantity: TypeAlias = Annotated[
    str, option("Units of one order: 1, 1-3 or 1:7,2:2,5:1.", CROWD, default="1", metavar="SPEC")
]
Buyers: TypeAlias = Annotated[int, option("Different buyers.", CROWD, "buyers", 1_000_000)]
Popularity: TypeAlias = Annotated[
    float,
    option("Zipf exponent over the SKUs.", CROWD, "popularity", 1.0, metavar="EXPONENT"),
]
PayRate: TypeAlias = Annotated[
    float,
    option(
        "Share of the buyers with a held order who pay.", CROWD, "pay_rate", 0.7, metavar="SHARE"
    ),
]
Seed: TypeAlias = Annotated[
    int, option("The same seed draws the same orders and arrivals.", CROWD, default=1)
]
Host: TypeAlias = Annotated[
    str | None,
    option(
        "The buyers' URL of a running server. Without it one is started, on a new store, and stopped.",
        TARGET,
        metavar="URL",
    ),
]
AdminUrl: TypeAlias = Annotated[
    str | None,
    option(
        "Its operator's URL, unless it tells; the secret is read from SECKILL_AUTH__ADMIN_SECRET.",
        TARGET,
        metavar="URL",
    ),
]
StoreUrl: TypeAlias = Annotated[
    str | None,
    option(
        "Where the started server sells: sqlite:PATH of a new file, or mysql://... where a scratch "
        "database is made beside the named one and dropped at the end. Without it sale.db in the "
        "folder of --out.",
        TARGET,
        metavar="URL",
    ),
]
Repeats: TypeAlias = Annotated[
    int, option("Runs, each with a new server and store.", COMPARISON, "repeats", 1)
]
Out: TypeAlias = Annotated[
    Path | None,
    option(
        "Folder for run.json, report.html, Locust's own files and histograms.",
        FILES,
        default="runs/ and the time in UTC",
        metavar="FOLDER",
    ),
]
