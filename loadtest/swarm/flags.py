"""The flags of the locustfile; in the web page they are fields of the form."""

from __future__ import annotations

import math
from argparse import ArgumentTypeError, Namespace
from collections.abc import Callable, Mapping
from typing import Final

from locust.argument_parser import LocustArgumentParser

from loadtest.sale import SKU_PREFIX, Sale, parse_quantities
from loadtest.swarm.mix import parse_mix
from loadtest.swarm.shapes import SHAPES

QUANTITY_MAX: Final = 1_000_000
LIST_SIZE_MAX: Final = 10_000
"""Of the service."""

PER_SECOND_MAX: Final = 1_000_000


def add_flags(parser: LocustArgumentParser) -> None:
    """Add the crowd's flags to Locust's own."""
    # Not in a group: only the parser itself knows what the web page may show.
    parser.add_argument(
        "--shape",
        include_in_web_ui=False,  # Read when Locust starts.
        choices=["", *SHAPES],
        default="",
        help="How many of --users (or of --rate) are there over --run-time: flash, ramp, wave, soak. "
        "Without it users come as --spawn-rate says and stay.",
    )
    parser.add_argument(
        "--rate",
        type=_number(0, PER_SECOND_MAX),
        default=0.0,
        help="Open loop: orders due per second over --run-time, whatever the server does; latency "
        "counts from when each was due. 0: every user sends when the one before was answered.",
    )
    parser.add_argument(
        "--mix",
        include_in_web_ui=False,  # Read when Locust starts.
        type=_mix_text,
        default="",
        help="Users by weight, such as buyer:8,list:1,reader:1,impatient:1; who is not named is left "
        "out.",
    )
    parser.add_argument("--seed", type=_number(0, 2**63 - 1, whole=True), default=1)
    parser.add_argument(
        "--skus",
        type=_number(1, 10_000, whole=True),
        default=1,
        help="Orders are for SKU-1 to SKU-N.",
    )
    parser.add_argument("--sku-prefix", default=SKU_PREFIX, help="What stands before -1 to -N.")
    parser.add_argument("--buyers", type=_number(1, 10_000_000, whole=True), default=1_000_000)
    parser.add_argument(
        "--popularity", type=_number(0, 10), default=1.0, help="Zipf exponent over the SKUs."
    )
    parser.add_argument("--quantity", type=_quantity, default="1", help="1, 1-3 or 1:7,2:2,5:1.")
    parser.add_argument(
        "--pay-rate", type=_number(0, 1), default=0.7, help="Share of held orders that are paid."
    )
    parser.add_argument(
        "--think-seconds", type=_number(0, 600), default=0.5, help="At most, before a buyer pays."
    )
    parser.add_argument(
        "--list-size",
        type=_number(1, LIST_SIZE_MAX, whole=True),
        default=100,
        help="Orders of one list.",
    )
    parser.add_argument(
        "--order-prefix", default="", help="Begins every order's id; drawn when not given."
    )
    _add_addresses(parser)


def _add_addresses(parser: LocustArgumentParser) -> None:
    parser.add_argument(
        "--admin-url", default="", help="The operator's listener, which makes purchase tokens."
    )
    parser.add_argument(
        "--admin-secret",
        env_var="SECKILL_AUTH__ADMIN_SECRET",
        is_secret=True,
        default="seckill-local",
    )
    parser.add_argument(
        "--shop-secret",
        env_var="SECKILL_AUTH__SHOP_SECRET",
        is_secret=True,
        default="",
    )
    parser.add_argument(
        "--books",
        default="",
        include_in_web_ui=False,
        help="Write the counts and histograms of the whole run to this file at the end.",
    )
    parser.add_argument(
        "--progress",
        action="store_true",
        include_in_web_ui=False,
        help="Print a line of JSON a second.",
    )


def sale_of(options: Namespace) -> Sale:
    """The orders that the flags ask for."""
    return Sale(
        seed=options.seed,
        buyers=options.buyers,
        skus=options.skus,
        quantity=options.quantity,
        popularity=options.popularity,
        pay_rate=options.pay_rate,
    )


def _number(least: float, most: float, *, whole: bool = False) -> Callable[[str], float]:
    kind: Callable[[str], float] = int if whole else float

    def read(text: str) -> float:
        try:
            value = kind(text)
        except ValueError:
            value = math.nan
        if not least <= value <= most:
            what = "a whole number" if whole else "a number"
            raise ArgumentTypeError(f"must be {what} from {least:,} to {most:,}, got {text!r}")
        return value

    return read


def _quantity(text: str) -> str:
    try:
        parse_quantities(text, QUANTITY_MAX)
    except ValueError as error:
        raise ArgumentTypeError(str(error)) from None
    return text


def _mix_text(text: str) -> str:
    try:
        if text:
            parse_mix(text)
    except ValueError as error:
        raise ArgumentTypeError(str(error)) from None
    return text


def weights_of(options: Namespace) -> Mapping[str, int]:
    """What --mix says, empty without it."""
    return parse_mix(options.mix) if options.mix else {}
