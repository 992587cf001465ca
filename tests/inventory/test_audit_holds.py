"""A hold that ended wrongly is found, and told from one that did not."""

from __future__ import annotations

import pytest

from engine.cqrs.messages import Event
from engine.inventory.events import (
    Confirmed,
    HoldExpired,
    HoldExtended,
    Released,
    Reserved,
    SaleOpened,
)
from engine.inventory.stock import SECOND_US
from tests.inventory.proving import findings, prove, red
from tests.inventory.sales import Books


def until(seconds: int) -> int:
    return seconds * SECOND_US


def honest() -> Books:
    """Held for a minute: bought, extended, given back, run out, paid too late, still held.

    The number in a command id is the second at which it was decided.
    """
    books = Books()
    books.write("BAG", SaleOpened("c1", 10, 3, 60))
    books.write("BAG", Reserved("c2", "alice", 2, until(62)), Reserved("c3", "bob", 1, until(63)))
    books.write("BAG", Reserved("c4", "carol", 1, until(64)), Reserved("c5", "dan", 2, until(65)))
    books.write("BAG", HoldExtended("c10", "c3", until(70)), Confirmed("c11", "c2", 2))
    books.write("BAG", Released("c12", "c4", 1, expired=False), HoldExpired("c13", "c4"))
    books.write("BAG", Released("c70", "c3", 1, expired=True))
    books.write("HAT", SaleOpened("c1", 5, 0), Reserved("c2", "alice", 1))
    return books


def test_an_honest_sale_with_holds_is_cleared() -> None:
    report = prove(honest())
    assert red(report) == set()
    (holds,) = (check for check in report.checks if "hold" in check.name)
    assert holds.checked == 5


DEFECTS: dict[str, tuple[str, Event, str]] = {
    "early": ("BAG", Released("c64", "c5", 2, expired=True), "its time was up 1.000 s later"),
    "early after being extended": (
        "BAG",
        Released("c69", "c3", 1, expired=True),
        "released, but it was released before",
    ),
    "paid twice": ("BAG", Confirmed("c71", "c2", 1), "paid, but it was paid before"),
    "paid after release": ("BAG", Confirmed("c71", "c4", 1), "paid, but it was released before"),
    "paid in part": ("BAG", Confirmed("c71", "c5", 1), "paid with 1 units of 2"),
    "paid without reservation": ("BAG", Confirmed("c71", "c9", 1), "paid, but it never was"),
    "released when paid": (
        "BAG",
        Released("c71", "c2", 1, expired=False),
        "released, but it was paid before",
    ),
    "released twice": (
        "BAG",
        Released("c71", "c4", 1, expired=False),
        "released, but it was released before",
    ),
    "extended twice": (
        "BAG",
        HoldExtended("c71", "c3", until(131)),
        "extended, but it was released before",
    ),
    "cut": ("BAG", HoldExtended("c20", "c5", until(64)), "its time was cut"),
    "refunded while held": ("BAG", HoldExpired("c71", "c5"), "refunded, but it is held"),
    "refunded when paid": ("BAG", HoldExpired("c71", "c2"), "refunded, but it was paid before"),
    "no deadline": ("BAG", Reserved("c71", "eve", 1), "a reservation without a deadline"),
    "too long": ("BAG", Reserved("c71", "eve", 1, until(132)), "longer than the sale allows"),
    "a deadline for good": ("HAT", Reserved("c71", "eve", 1, until(72)), "nobody asked for"),
}


@pytest.mark.parametrize(("sku", "event", "words"), DEFECTS.values(), ids=list(DEFECTS))
def test_a_hold_that_ended_wrongly_is_named(sku: str, event: Event, words: str) -> None:
    books = honest()
    books.write(sku, event)
    report = prove(books)
    # Units that were given back twice are missing, too.
    assert red(report) - {"units"} == {"holds"}, findings(report)
    assert words in str(findings(report))


def test_a_second_extension_is_found() -> None:
    books = honest()
    books.write("BAG", HoldExtended("c20", "c5", until(80)), HoldExtended("c21", "c5", until(81)))
    assert "extended a second time" in str(findings(prove(books)))


def test_what_was_given_back_counts_no_longer_against_the_limit() -> None:
    books = honest()
    books.write("BAG", Reserved("c71", "carol", 3, until(131)))
    assert red(prove(books)) == set()
    books.write("BAG", Reserved("c72", "carol", 1, until(132)))
    assert red(prove(books)) == {"limits"}
