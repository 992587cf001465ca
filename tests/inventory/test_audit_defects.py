"""Each defect of the books turns its own check red, and only that."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest

from engine.inventory.events import (
    Reserved,
    Restocked,
    SaleClosed,
    SaleOpened,
    SalePaused,
    SaleResumed,
    Withdrawn,
)
from tests.inventory.proving import CHECKS, findings, honest, prove, red
from tests.inventory.sales import Books


def drop_a_commit(books: Books) -> None:
    del books.commits[0][3]


def lose_the_last_commit(books: Books) -> None:
    del books.commits[0][-1]


def skip_a_position(books: Books) -> None:
    books.falsify(-1, position=8)


def repeat_a_position(books: Books) -> None:
    books.falsify(-1, position=5)


def answer_for_another_partition(books: Books) -> None:
    stored = books.commits[0]
    stored[-1] = msgspec.structs.replace(stored[-1], partition=1)


def change_the_checksum(books: Books) -> None:
    books.falsify(1, checksum=books.commits[0][1].checksum ^ 1)


def flip_a_letter(books: Books) -> None:
    commit = books.commits[0][1]
    books.falsify(1, events=commit.events.replace(b"bob", b"bub"), checksum=commit.checksum)


def tear_the_json(books: Books) -> None:
    books.falsify(1, events=books.commits[0][1].events[:-3])


def tear_the_text(books: Books) -> None:
    books.falsify(1, events=books.commits[0][1].events.replace(b"bob", b"\xff\xfe\xfd"))


def nest_without_end(books: Books) -> None:
    books.falsify(1, events=b"[" * 100_000)


def store_no_list(books: Books) -> None:
    books.falsify(1, events=b'{"type":"reserved.1"}')


def store_an_unknown_type(books: Books) -> None:
    books.falsify(1, events=books.commits[0][1].events.replace(b"reserved.1", b"reserved.9", 1))


def forget_the_buyer(books: Books) -> None:
    books.falsify(1, events=books.commits[0][1].events.replace(b'"buyer":"bob",', b""))


def sell_nothing(books: Books) -> None:
    books.falsify(1, events=books.commits[0][1].events.replace(b'"quantity":1', b'"quantity":0'))


def sell_less_than_nothing(books: Books) -> None:
    books.falsify(1, events=books.commits[0][1].events.replace(b'"quantity":1', b'"quantity":-1'))


def skip_a_version(books: Books) -> None:
    books.falsify(5, first_version=10, last_version=10)
    books.rows["SHOE"]["version"] = 10


def repeat_a_version(books: Books) -> None:
    books.falsify(5, first_version=8, last_version=8)


def end_before_the_begin(books: Books) -> None:
    books.falsify(5, last_version=8)


def claim_an_event_too_many(books: Books) -> None:
    books.falsify(5, last_version=10)


def claim_an_event_too_few(books: Books) -> None:
    books.falsify(4, last_version=7)


def store_an_empty_commit(books: Books) -> None:
    books.write_raw("stock", "SOCK", b"[]", 0)


def repeat_a_command(books: Books) -> None:
    books.write("SOCK", Restocked("k9", 1), Restocked("k9", 1))


def repeat_a_command_in_another_commit(books: Books) -> None:
    books.write("SOCK", Restocked("k9", 5))
    books.write("SOCK", Reserved("k9", "bob", 1))


def repeat_a_command_of_another_type(books: Books) -> None:
    event = b'[{"type":"paid.1","command_id":"c1"}]'
    books.write_raw("account", "a", event, 1)
    books.write_raw("account", "a", event, 1)


def oversell(books: Books) -> None:
    books.write("SOCK", Reserved("k9", "bob", 2), row=False)
    books.rows["SOCK"] |= {"available": -2, "reserved": 5, "version": 3}


def oversell_for_a_moment(books: Books) -> None:
    books.write("SOCK", Reserved("k8", "bob", 2), Restocked("k9", 5))


def withdraw_what_is_sold(books: Books) -> None:
    books.write("SOCK", Withdrawn("k8", 1), Restocked("k9", 1))


def sell_while_paused(books: Books) -> None:
    books.write("HAT", SaleOpened("h1", 5, 0), SalePaused("h2"), Reserved("h3", "bob", 1))


def sell_after_the_close(books: Books) -> None:
    books.write("SHOE", Reserved("s99", "dan", 1))


def sell_before_the_opening(books: Books) -> None:
    books.write("HAT", Reserved("h0", "bob", 1), SaleOpened("h1", 5, 0), row=False)
    books.rows["HAT"] = {
        **books.rows["SHOE"],
        "sku": "HAT",
        "available": 4,
        "reserved": 1,
        "paid": 0,
        "limit_per_buyer": 0,
        "hold_seconds": 0,
        "version": 2,
        "phase": "open",
    }


def restock_after_the_close(books: Books) -> None:
    books.write("SHOE", Restocked("s99", 1))


def close_twice(books: Books) -> None:
    books.write("SHOE", SaleClosed("s99"))


def pause_twice(books: Books) -> None:
    books.write("SOCK", SalePaused("k8"), SalePaused("k9"))


def resume_what_is_open(books: Books) -> None:
    books.write("SOCK", SaleResumed("k9"))


def open_twice(books: Books) -> None:
    books.write("SOCK", SaleOpened("k9", 0, 0), row=False)
    books.rows["SOCK"]["version"] = 3


def exceed_the_limit_at_once(books: Books) -> None:
    books.write("HAT", SaleOpened("h1", 5, 2), Reserved("h2", "bob", 3))


def exceed_the_limit_over_several_commits(books: Books) -> None:
    books.write("HAT", SaleOpened("h1", 5, 2), Reserved("h2", "bob", 1), Reserved("h3", "al", 2))
    books.write("HAT", Reserved("h4", "bob", 2))


def change_an_order(books: Books) -> None:
    data = books.commits[0][1].events
    books.falsify(1, events=data.replace(b'"bob","quantity":1', b'"bob","quantity":2'))


def forge_an_order_away(books: Books) -> None:
    events = msgspec.json.decode(books.commits[0][1].events)
    books.falsify(1, events=msgspec.json.encode(events[:1]))
    books.renumber()


def change_the_row(column: str, value: int | str) -> Callable[[Books], None]:
    def defect(books: Books) -> None:
        assert books.rows["SHOE"][column] != value
        books.rows["SHOE"][column] = value

    defect.__name__ = f"change_{column}_of_the_row"
    return defect


def forget_a_row(books: Books) -> None:
    del books.rows["SHOE"]


def invent_a_row(books: Books) -> None:
    books.rows["GHOST"] = {**books.rows["SHOE"], "sku": "GHOST"}


def keep_an_old_row(books: Books) -> None:
    books.write("SOCK", Restocked("k9", 1), row=False)


def forget_the_table(books: Books) -> None:
    books.has_stock_table = False


DEFECTS: list[tuple[Callable[[Books], None], set[str]]] = [
    (drop_a_commit, {"positions", "versions"}),
    (lose_the_last_commit, {"table"}),
    (skip_a_position, {"positions"}),
    (repeat_a_position, {"positions"}),
    (answer_for_another_partition, {"positions"}),
    (change_the_checksum, {"checksums"}),
    (flip_a_letter, {"checksums"}),
    (tear_the_json, {"readable"}),
    (tear_the_text, {"readable"}),
    (nest_without_end, {"readable"}),
    (store_no_list, {"readable"}),
    (store_an_unknown_type, {"readable"}),
    (forget_the_buyer, {"readable"}),
    (sell_nothing, {"readable"}),
    (sell_less_than_nothing, {"readable"}),
    (skip_a_version, {"versions"}),
    (repeat_a_version, {"versions"}),
    (end_before_the_begin, {"versions"}),
    (claim_an_event_too_many, {"versions"}),
    (claim_an_event_too_few, {"versions"}),
    (store_an_empty_commit, {"versions"}),
    (repeat_a_command, {"once"}),
    (repeat_a_command_in_another_commit, {"once"}),
    (repeat_a_command_of_another_type, {"once"}),
    (oversell, {"stock"}),
    (oversell_for_a_moment, {"stock"}),
    (withdraw_what_is_sold, {"stock"}),
    (sell_while_paused, {"phases"}),
    (sell_after_the_close, {"phases"}),
    (sell_before_the_opening, {"phases", "stock"}),
    (restock_after_the_close, {"phases"}),
    (close_twice, {"phases"}),
    (pause_twice, {"phases"}),
    (resume_what_is_open, {"phases"}),
    (open_twice, {"phases"}),
    (exceed_the_limit_at_once, {"limits"}),
    (exceed_the_limit_over_several_commits, {"limits"}),
    (change_an_order, {"table", "units"}),
    (forge_an_order_away, {"table"}),
    (change_the_row("available", 0), {"table", "units"}),
    (change_the_row("reserved", 3), {"table"}),
    (change_the_row("limit_per_buyer", 0), {"table"}),
    (change_the_row("version", 8), {"table"}),
    (change_the_row("version", 10), {"table"}),
    (change_the_row("version", "9"), {"table"}),
    (change_the_row("phase", "open"), {"table"}),
    (forget_a_row, {"table"}),
    (invent_a_row, {"table"}),
    (keep_an_old_row, {"table"}),
    (forget_the_table, {"table"}),
]


@pytest.mark.parametrize(
    ("defect", "expected"), DEFECTS, ids=lambda each: getattr(each, "__name__", "")
)
def test_a_defect_turns_its_own_check_red(
    defect: Callable[[Books], None], expected: set[str]
) -> None:
    books = honest()
    defect(books)
    report = prove(books)
    assert red(report) == expected, findings(report)


def test_every_check_of_the_store_has_a_defect_that_turns_it_red() -> None:
    assert set.union(*(expected for _, expected in DEFECTS)) == set(CHECKS[:12]) - {
        "holds",
        "carts",
    }
