"""Orders over several SKUs that are not all or nothing are found, those under way are not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import msgspec
import pytest

from engine.cqrs.messages import Event
from engine.inventory.audit import Units
from engine.inventory.events import (
    Confirmed,
    LineReserved,
    Released,
    Reserved,
    Restocked,
    SaleOpened,
    Withdrawn,
)
from engine.inventory.order_messages import (
    Line,
    OrderCancelled,
    OrderFinished,
    OrderPaid,
    OrderPaidTooLate,
    OrderPlaced,
    OrderRefused,
    OrderReserved,
)
from engine.inventory.stock import SECOND_US
from tests.inventory.proving import findings, prove, red
from tests.inventory.sales import Books, time_of

LINES = (Line("BAG", 2), Line("HAT", 1))


def until(seconds: int) -> int:
    return seconds * SECOND_US


def order(books: Books, name: str, *events: Event) -> None:
    """Append to an order's stream, which is in the last partition."""
    at_us = max(time_of(each.command_id) for each in events)
    data = msgspec.json.encode(events)
    books.write_raw("order", name, data, len(events), books.partitions - 1, at_us)


def lines(books: Books, name: str, second: int = 11, buyer: str = "ann") -> None:
    """Reserve both lines of an order."""
    for sku, quantity in (("BAG", 2), ("HAT", 1)):
        held = LineReserved(
            f"c{second}",
            buyer,
            quantity,
            until(second + 60),
            order_id=name,
        )
        books.write(sku, msgspec.structs.replace(held, command_id=f"{name}/{sku}"))
        books.falsify(-1, committed_at_us=until(second))


def opened() -> Books:
    books = Books(partitions=2)
    books.write("BAG", SaleOpened("c1", 10, 0, 60))
    books.write("HAT", SaleOpened("c1", 10, 0, 60))
    return books


def awaiting(books: Books, name: str = "o") -> None:
    order(books, name, OrderPlaced("c10", "ann", LINES))
    lines(books, name)
    order(books, name, OrderReserved("c12", until(71)))


def end_lines(books: Books, name: str, how: str, second: int = 15) -> None:
    for number, (sku, quantity) in enumerate((("BAG", 2), ("HAT", 1))):
        command, line = f"c{second + number}", f"{name}/{sku}"
        paid = Confirmed(command, line, quantity)
        back = Released(command, line, quantity, expired=False)
        books.write(sku, paid if how == "paid" else back)


def confirmed(books: Books, name: str = "o") -> None:
    awaiting(books, name)
    order(books, name, OrderPaid("c14", LINES))
    end_lines(books, name, "paid")
    order(books, name, OrderFinished("c19"))


def released(books: Books, name: str = "o", *, expired: bool = False, second: int = 14) -> None:
    awaiting(books, name)
    order(books, name, OrderCancelled(f"c{second}", expired, LINES))
    end_lines(books, name, "released", second + 1)
    order(books, name, OrderFinished(f"c{second + 5}"), OrderPaidTooLate(f"c{second + 6}"))


def honest() -> Books:
    """An order at every step."""
    books = opened()
    confirmed(books, "paid")
    released(books, "off", second=24)
    order(books, "new", OrderPlaced("c10", "ann", LINES))
    order(books, "refused", OrderPlaced("c10", "ann", LINES), OrderRefused("c13", "HAT", "closed"))
    order(books, "refused", OrderFinished("c14"))
    return books


def test_orders_at_every_step_are_cleared() -> None:
    report = prove(honest())
    assert red(report) == set(), findings(report)
    assert next(each.checked for each in report.checks if "order over" in each.name) == 4
    assert report.units == Units(added=20, paid=3, left=17, given_back=3)


@pytest.mark.parametrize("step", [awaiting, confirmed, released])
def test_an_order_may_be_seen_half_way(step: Any) -> None:
    """Cut off after each commit, in the order of time, every order is merely under way."""
    whole = opened()
    log: list[int] = []
    append = whole.write_raw

    def noting(*args: Any, **named: Any) -> Any:
        commit = append(*args, **named)
        log.append(commit.partition)
        return commit

    whole.write_raw = noting  # type: ignore[method-assign]
    step(whole)
    for count in range(len(log) + 1):
        part = opened()
        part.has_stock_table = False
        for partition in log[:count]:
            part.commits[partition].append(whole.commits[partition][len(part.commits[partition])])
        assert red(prove(part)) <= {"table"}, findings(prove(part))


Spoil: TypeAlias = Callable[[Books], None]
DEFECTS: dict[str, tuple[Spoil, str]] = {}


def defect(words: str) -> Callable[[Spoil], Spoil]:
    def keep(function: Spoil) -> Spoil:
        DEFECTS[function.__name__] = (function, words)
        return function

    return keep


@defect("the line of 'HAT' is not paid and the order is confirmed")
def a_line_is_not_paid(books: Books) -> None:
    awaiting(books)
    order(books, "o", OrderPaid("c14", LINES))
    books.write("BAG", Confirmed("c15", "o/BAG", 2))
    order(books, "o", OrderFinished("c19"))


@defect("the line of 'BAG' was never reserved")
def nothing_was_reserved(books: Books) -> None:
    order(books, "o", OrderPlaced("c10", "ann", LINES), OrderReserved("c12", until(71)))


@defect("the line of 'HAT' is still held and the order is released")
def a_line_is_not_given_back(books: Books) -> None:
    awaiting(books)
    order(books, "o", OrderCancelled("c14", False, LINES))
    books.write("BAG", Released("c15", "o/BAG", 2, expired=False))
    order(books, "o", OrderFinished("c19"))


@defect("the line of 'BAG' was paid and the order was not")
def lines_of_an_unpaid_order_are_paid(books: Books) -> None:
    awaiting(books)
    end_lines(books, "o", "paid")


@defect("the line of 'BAG' was paid and the order was not")
def lines_of_a_cancelled_order_are_paid(books: Books) -> None:
    awaiting(books)
    order(books, "o", OrderCancelled("c14", False, LINES))
    end_lines(books, "o", "paid")


@defect("the line of 'BAG' was given back and the order had not ended")
def lines_are_given_back_before_the_end(books: Books) -> None:
    awaiting(books)
    end_lines(books, "o", "released")


@defect("was given back and the order had not ended")
def lines_of_a_paid_order_are_given_back(books: Books) -> None:
    awaiting(books)
    order(books, "o", OrderPaid("c14", LINES))
    end_lines(books, "o", "released")


@defect("lines of ['BAG', 'HAT'] were reserved and the order was never placed")
def lines_without_an_order(books: Books) -> None:
    lines(books, "o")


@defect("asked as 0 for 'ann'")
def a_line_that_was_not_asked(books: Books) -> None:
    order(books, "o", OrderPlaced("c10", "ann", LINES[1:]))
    lines(books, "o")


@defect("reserved as 2 for 'bob'")
def a_line_for_somebody_else(books: Books) -> None:
    order(books, "o", OrderPlaced("c10", "ann", LINES))
    lines(books, "o", buyer="bob")


@defect("the line of 'BAG' was reserved twice")
def a_line_is_reserved_twice(books: Books) -> None:
    awaiting(books)
    books.write("BAG", LineReserved("c13", "ann", 2, until(73), order_id="o"))


@defect("is held for a shorter time than the order")
def a_line_is_held_too_short(books: Books) -> None:
    order(books, "o", OrderPlaced("c10", "ann", LINES))
    lines(books, "o")
    order(books, "o", OrderReserved("c12", until(72)))


@defect("cancelled by time, and its time was up 1.000 s later")
def an_order_ends_early(books: Books) -> None:
    released(books, expired=True, second=70)


@defect("cartpaid with other lines than it was placed with")
def other_lines_are_paid(books: Books) -> None:
    awaiting(books)
    order(books, "o", OrderPaid("c14", LINES[:1]))


@defect("cancelled with other lines than it was placed with")
def a_line_is_cancelled_twice(books: Books) -> None:
    awaiting(books)
    order(books, "o", OrderCancelled("c14", False, (*LINES, LINES[0])))


@defect("refused for 'SOCK', which is none of its lines")
def refused_for_a_strange_line(books: Books) -> None:
    order(books, "o", OrderPlaced("c10", "ann", LINES), OrderRefused("c12", "SOCK", "sold_out"))


@defect("two lines of one SKU")
def one_sku_twice(books: Books) -> None:
    order(books, "o", OrderPlaced("c10", "ann", (LINES[0], LINES[0])))


@pytest.mark.parametrize(("spoil", "words"), DEFECTS.values(), ids=list(DEFECTS))
def test_an_order_that_is_not_all_or_nothing_is_named(spoil: Spoil, words: str) -> None:
    books = opened()
    spoil(books)
    report = prove(books)
    assert red(report) == {"carts"}, findings(report)
    assert words in findings(report)


PLACED = OrderPlaced("c10", "ann", LINES)
OUT_OF_TURN: dict[str, tuple[Event, ...]] = {
    "orderreserved": (OrderReserved("c9", 1),),
    "placed while it was reserving": (PLACED, OrderPlaced("c11", "ann", LINES)),
    "cartpaid while it was reserving": (PLACED, OrderPaid("c11", LINES)),
    "cartpaidtoolate while it was reserving": (PLACED, OrderPaidTooLate("c11")),
    "finished while it was reserving": (PLACED, OrderFinished("c11")),
    "cancelled while it was releasing": (
        PLACED,
        OrderRefused("c11", "BAG", "closed"),
        OrderCancelled("c12", False, LINES),
    ),
    "cartpaid while it was releasing": (
        PLACED,
        OrderCancelled("c11", False, LINES),
        OrderPaid("c12", LINES),
    ),
    "finished while it was released": (
        PLACED,
        OrderCancelled("c11", False, LINES),
        OrderFinished("c12"),
        OrderFinished("c13"),
    ),
}


@pytest.mark.parametrize(("words", "events"), OUT_OF_TURN.items(), ids=list(OUT_OF_TURN))
def test_a_step_out_of_turn_is_named(words: str, events: tuple[Event, ...]) -> None:
    books = opened()
    order(books, "o", *events)
    report = prove(books)
    assert red(report) == {"carts"}
    assert words.replace("orderreserved", "linesreserved while it was new") in findings(report)


def test_paid_or_cancelled_is_decided_once() -> None:
    books = opened()
    confirmed(books)
    order(books, "o", OrderCancelled("c30", False, LINES))
    assert "cancelled while it was confirmed" in findings(prove(books))


def test_an_order_cancelled_by_time_at_its_time_is_cleared() -> None:
    books = opened()
    released(books, expired=True, second=71)
    assert red(prove(books)) == set()


def test_a_line_reserved_after_the_end_is_noted() -> None:
    books = opened()
    order(books, "o", PLACED, OrderCancelled("c11", False, LINES), OrderFinished("c12"))
    lines(books, "o", second=20)
    report = prove(books)
    assert red(report) == set(), findings(report)
    assert report.notes == ("2 lines were reserved after their order had ended",)


def test_what_one_partition_shows_later_is_waited_for() -> None:
    """Stocks are read first: their reservations seem to be missing, until they are read again."""
    books = opened()
    # Rows that are ahead would be a reason of their own to read on.
    books.has_stock_table = False
    reads = 0

    def sell_on(method: str) -> None:
        nonlocal reads
        reads += method == "read_partition"
        if reads == 2:
            reads += 1
            confirmed(books)

    books.on_read = sell_on
    assert red(prove(books)) == {"table"}


def test_an_order_with_an_unreadable_event_is_left_out_and_noted() -> None:
    books = opened()
    awaiting(books)
    broken = books.commits[1][-1].events.replace(b"order-reserved.1", b"order-reserved.9")
    books.falsify(-1, partition=1, events=broken)
    end_lines(books, "o", "paid")
    report = prove(books)
    assert red(report) == {"readable"}
    assert "1 orders could not be followed to their end" in report.notes


@pytest.mark.parametrize(
    ("step", "lost"), [(awaiting, 0), (confirmed, 0), (confirmed, 1), (released, 0), (released, 1)]
)
def test_lines_of_a_sku_that_could_not_be_followed_are_not_missed(step: Any, lost: int) -> None:
    """Its reservation (0) or the end of it (1) cannot be read."""
    books = opened()
    step(books)
    found = [n for n, each in enumerate(books.commits[0]) if b"o/HAT" in each.events]
    books.falsify(found[lost], events=b"[7]")
    assert red(prove(books)) == {"readable"}


# -- units


def test_units_are_counted_reservation_by_reservation() -> None:
    books = opened()
    books.write("SOCK", SaleOpened("c1", 5, 0), Reserved("c2", "ann", 2), Withdrawn("c3", 1))
    books.write("BAG", Restocked("c5", 5), Reserved("c6", "ann", 4, until(66)))
    books.write("HAT", Reserved("c6", "ann", 3, until(66)), Confirmed("c7", "c6", 3))
    units = prove(books).units
    assert units == Units(added=30, final=2, paid=3, held=4, withdrawn=1, left=20)


def test_units_paid_in_part_do_not_add_up() -> None:
    books = opened()
    books.write("BAG", Reserved("c5", "bob", 1, until(65)), Reserved("c6", "ann", 4, until(66)))
    books.write("BAG", Released("c7", "c6", 5, expired=False))
    report = prove(books)
    assert red(report) == {"holds", "units"}
    assert "stock 'BAG': 10 units came in and 11 are there" in findings(report)
