"""The flags of `seckill simulate`, as types: what each means, in which panel of --help it stands."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final, TypeAlias

import typer

from loadtest.sale import Arrival
from loadtest.settings import LIMITS, ORDERS_MAX, WorkloadSettings

SALE: Final = "The sale"
CROWD: Final = "The crowd"
ENGINE: Final = "The engine"
FILES: Final = "Input and output"
COMPARISON: Final = "Comparison"

DEFAULTS: Final = WorkloadSettings()

SIMULATE_EXAMPLES: Final = """
[bold]Examples[/bold]

Ten thousand buyers who try three times each, 500 units, at most 2 a buyer, on a new SQLite file in a folder under runs/:

> seckill simulate --stock 500 --limit-per-buyer 2 --orders-per-buyer 3

Three SKUs of unlike popularity, mixed quantities, orders sent twice, buyers arriving over 10 s:

> seckill simulate --buyers 200000 --skus 3 --stock 50000 \\
--quantity 1:7,2:2,5:1 --duplicates 0.05 --arrival poisson \\
--seconds 10 --seed 7 --out runs/mixed

Carts of one to three SKUs, held for 3 s; three buyers of ten leave without paying, one pays too late:

> seckill simulate --skus 10 --cart-size 1-3 --hold-seconds 3 \\
--pay-rate 0.6 --late-payments 0.1 --arrival poisson

A run that was killed goes on when the same command is given again, with the same --out.
"""


def option(
    text: str, panel: str, limits: str = "", default: object = None, metavar: str | None = "N"
) -> object:
    if limits:
        least, most = LIMITS[limits]
        text += f" From {least:,} to {most:,}."
    if default is not None:
        shown = f"{default:,}" if isinstance(default, int) else str(default)
        text += f" [dim]Default: {shown}.[/dim]"
    return typer.Option(help=text, rich_help_panel=panel, show_default=False, metavar=metavar)


Stock: TypeAlias = Annotated[
    int | None, option("Units of every SKU.", SALE, "stock", DEFAULTS.stock)
]
Skus: TypeAlias = Annotated[
    int | None, option("Different SKUs on sale.", SALE, "skus", DEFAULTS.skus)
]
LimitPerBuyer: TypeAlias = Annotated[
    int | None,
    option(
        "Units of one SKU that one buyer may hold; 0 means no limit.",
        SALE,
        default=DEFAULTS.limit_per_buyer,
    ),
]
Buyers: TypeAlias = Annotated[
    int | None, option("Different buyers.", CROWD, "buyers", DEFAULTS.buyers)
]
OrdersPerBuyer: TypeAlias = Annotated[
    int | None,
    option(
        f"Orders each buyer places, mixed with the others'; {ORDERS_MAX:,} in all at most.",
        CROWD,
        default=DEFAULTS.orders_per_buyer,
    ),
]
Quantity: TypeAlias = Annotated[
    str | None,
    option(
        "Units of one order: 1, a range 1-3, or number:weight pairs 1:7,2:2,5:1, of which only the "
        "proportions count.",
        CROWD,
        default=DEFAULTS.quantity,
        metavar="SPEC",
    ),
]
ArrivalOption: TypeAlias = Annotated[
    Arrival | None,
    option(
        "burst: everybody at once, sent as fast as they are answered. poisson: evenly at random "
        "over --seconds. ramp: more and more over --seconds. With --orders only burst, which "
        "ignores the recorded times.",
        CROWD,
        default=DEFAULTS.arrival,
        metavar=None,
    ),
]
Seconds: TypeAlias = Annotated[
    float | None,
    option(
        "How long buyers keep arriving (poisson, ramp). Latency counts from when an order was due.",
        CROWD,
        default=DEFAULTS.seconds,
        metavar="SECONDS",
    ),
]
Popularity: TypeAlias = Annotated[
    float | None,
    option(
        "Zipf exponent over the SKUs: 0 makes them equal, 1 gives SKU-1 twice the orders of SKU-2.",
        CROWD,
        "popularity",
        DEFAULTS.popularity,
        metavar="EXPONENT",
    ),
]
Duplicates: TypeAlias = Annotated[
    float | None,
    option(
        "Share of orders that are sent a second time, unchanged; they must get the same answer.",
        CROWD,
        "duplicates",
        DEFAULTS.duplicates,
        metavar="SHARE",
    ),
]
HoldSeconds: TypeAlias = Annotated[
    int | None,
    option(
        "How long an accepted order is held until it is paid or given back; 0: it is final.",
        SALE,
        "hold_seconds",
        DEFAULTS.hold_seconds,
        metavar="SECONDS",
    ),
]
PayRate: TypeAlias = Annotated[
    float | None,
    option(
        "Share of the buyers with a held order who pay in time.",
        CROWD,
        "pay_rate",
        DEFAULTS.pay_rate,
        metavar="SHARE",
    ),
]
LatePayments: TypeAlias = Annotated[
    float | None,
    option(
        "Share of them who pay when the time is up. Who neither pays in time nor late, leaves.",
        CROWD,
        "late_payments",
        DEFAULTS.late_payments,
        metavar="SHARE",
    ),
]
CartSize: TypeAlias = Annotated[
    str | None,
    option(
        "Different SKUs of one order, written like --quantity; an order of several is taken whole "
        "or not at all. Needs --hold-seconds.",
        CROWD,
        default=DEFAULTS.cart_size,
        metavar="SPEC",
    ),
]
Seed: TypeAlias = Annotated[
    int | None, option("The same seed gives the same orders.", CROWD, default=DEFAULTS.seed)
]
Concurrency: TypeAlias = Annotated[
    int,
    option(
        "Orders that may be unanswered at a time. 1 sends one after the other, so that the same "
        "buyers win every time.",
        CROWD,
        "concurrency",
        2_000,
    ),
]
Config: TypeAlias = Annotated[
    Path | None, option("Settings as TOML; configs/ has commented ones.", ENGINE, metavar="FILE")
]
StoreUrl: TypeAlias = Annotated[
    str | None,
    option(
        "sqlite:PATH, mysql://user:password@host:port/database or memory: (lost at exit). Without it the config's store.url, else the file "
        "sale.db in the folder of --out.",
        ENGINE,
        metavar="URL",
    ),
]
BatchSize: TypeAlias = Annotated[
    int | None,
    option("Orders of one SKU after which a batch closes.", ENGINE, "batch_size"),
]
BatchDelay: TypeAlias = Annotated[
    float | None,
    option(
        "Milliseconds the first order of a batch may wait for others; 0 never waits.",
        ENGINE,
        "batch_delay_ms",
        metavar="MS",
    ),
]
Orders: TypeAlias = Annotated[
    Path | None,
    option(
        "Replay a recorded sale: a .csv or .jsonl file with the columns at (seconds), buyer, sku, "
        "quantity, command_id. It is checked whole before anything is sent.",
        FILES,
        metavar="FILE",
    ),
]
Out: TypeAlias = Annotated[
    Path | None,
    option(
        "Folder for run.json and the store.",
        FILES,
        default="runs/ and the time in UTC",
        metavar="FOLDER",
    ),
]
History: TypeAlias = Annotated[
    Path | None,
    option(
        "Note every order before it is sent and when it is answered, in a file that survives "
        "kill -9; `seckill audit --history` compares it with the store.",
        FILES,
        metavar="FILE",
    ),
]
Strategies: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--strategies",
        "--strategy",
        help="Compare ways to sell from a MySQL or MariaDB server: all, or some of group-commit "
        "(this engine), row-lock, select-for-update, optimistic, queue, redis-lua (all includes it when --redis-url is given), "
        "separated by commas. Each "
        "gets the same orders in a scratch database of its own, named like the one of --store-url "
        "with _scratch behind it.",
        rich_help_panel=COMPARISON,
        show_default=False,
        metavar="NAMES",
    ),
]
Repeats: TypeAlias = Annotated[
    int | None,
    typer.Option(
        min=1,
        max=100,
        help="Times each strategy is run. [dim]Default: 3.[/dim]",
        rich_help_panel=COMPARISON,
        show_default=False,
        metavar="N",
    ),
]
RedisUrl: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--redis-url",
        help="The Redis of the strategy redis-lua: redis://host:port/0. Its keys start with the "
        "name of the scratch database and are deleted afterwards.",
        rich_help_panel=COMPARISON,
        show_default=False,
        metavar="URL",
    ),
]
Connections: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--connections",
        help="Pool sizes that every baseline is tried with, separated by commas. "
        "[dim]Default: 4,8,16,32,64.[/dim]",
        rich_help_panel=COMPARISON,
        show_default=False,
        metavar="SIZES",
    ),
]
