"""What a client was told, held against what is stored."""

from __future__ import annotations

import pytest

from engine.inventory.events import Reserved, SaleOpened
from engine.inventory.history import History, HistoryOrder, OrderAnswer
from tests.inventory.proving import findings, honest, orders_of_honest, prove, red
from tests.inventory.sales import Books


def test_a_lost_order_is_found_even_when_the_books_agree() -> None:
    books = Books()
    books.write("SOCK", SaleOpened("k1", 3, 0))
    report = prove(books, History({"k2": HistoryOrder("SOCK", "alice", 3, "ok")}))
    assert (red(report), report.lost) == ({"acknowledged"}, 1)
    assert findings(report) == (
        "order 'k2' (3 of 'SOCK' for 'alice') was acknowledged and is not stored"
    )


@pytest.mark.parametrize(
    "asked",
    [
        HistoryOrder("SOCK", "alice", 2, "ok"),
        HistoryOrder("SOCK", "bob", 3, "ok"),
        HistoryOrder("SHOE", "alice", 3, "ok"),
    ],
)
def test_an_order_stored_otherwise_than_asked_is_lost(asked: HistoryOrder) -> None:
    report = prove(honest(), History({"k2": asked}))
    assert (red(report), report.lost) == ({"acknowledged"}, 1)
    assert "acknowledged and is stored as 3 of 'SOCK' for 'alice'" in findings(report)


def test_an_order_stored_under_a_second_sku_is_duplicated() -> None:
    books = honest()
    books.write("HAT", SaleOpened("h1", 5, 0), Reserved("k2", "alice", 3))
    report = prove(books, History(orders_of_honest()))
    assert (red(report), report.duplicated, report.lost) == ({"acknowledged"}, 1, 0)


def test_a_history_of_another_store_is_suspected() -> None:
    report = prove(honest(), History({"other": HistoryOrder("SOCK", "bob", 1, "ok")}))
    assert (red(report), report.lost) == ({"acknowledged"}, 1)
    assert any("is it the history of another one?" in note for note in report.notes)
    both = orders_of_honest() | {"other": HistoryOrder("SOCK", "bob", 1, "ok")}
    report = prove(honest(), History(both))
    assert report.lost == 1
    assert not any("another one" in note for note in report.notes)


@pytest.mark.parametrize(("answer", "check"), [("rejected", "refused"), ("failed", "failed")])
def test_a_refused_or_failed_order_that_is_stored_is_a_phantom(
    answer: OrderAnswer, check: str
) -> None:
    orders = orders_of_honest()
    orders["s3"].answer = answer
    report = prove(honest(), History(orders))
    assert (red(report), report.phantom) == ({check}, 1)


def test_a_refused_order_stored_with_other_contents_is_a_phantom_too() -> None:
    refused = HistoryOrder("SOCK", "alice", 9, "rejected", "sold_out")
    report = prove(honest(), History({"k2": refused}))
    assert (red(report), report.phantom) == ({"refused"}, 1)


def test_an_order_in_doubt_may_be_stored_or_not() -> None:
    orders = orders_of_honest()
    orders["s3"].answer = "unknown"
    report = prove(honest(), History(orders))
    assert red(report) == set()
    assert report.notes == (
        "2 orders of the history have no definite answer; 1 of them were executed",
    )


def test_an_order_in_doubt_is_stored_as_it_was_asked_if_at_all() -> None:
    orders = {"k2": HistoryOrder("SOCK", "alice", 1, "unknown")}
    assert red(prove(honest(), History(orders))) == {"doubtful"}


def test_answers_that_exclude_each_other_are_found() -> None:
    orders = orders_of_honest()
    orders["s3"].contradiction = "was acknowledged and then refused (sold_out)"
    report = prove(honest(), History(orders))
    assert red(report) == {"agree"}
    assert findings(report) == "order 's3' was acknowledged and then refused (sold_out)"


@pytest.mark.parametrize("others", [(), (("SOCK", "alice", 3),)])
def test_the_id_of_somebody_elses_order_is_there_rightly(
    others: tuple[tuple[str, str, int], ...],
) -> None:
    order = HistoryOrder("SOCK", "zoe", 1, "failed", others=others, id_was_taken=True)
    assert red(prove(honest(), History({"k2": order}))) == set()


def test_one_id_asked_for_two_things_may_be_stored_as_either() -> None:
    order = HistoryOrder("SOCK", "zoe", 1, "ok", others=(("SOCK", "alice", 3),), id_was_taken=True)
    assert red(prove(honest(), History({"k2": order}))) == set()


def test_what_is_no_fault_is_noted() -> None:
    orders = orders_of_honest()
    del orders["s2"], orders["k5"]
    orders["k3"].reasons_differ = True
    report = prove(honest(), History(orders, torn=True))
    assert red(report) == set()
    assert report.notes == (
        "1 orders were refused first and answered otherwise when repeated",
        "1 stored orders are not in this history",
        "the history ends in half a line, which was left out",
    )
