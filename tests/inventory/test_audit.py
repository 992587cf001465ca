"""The audit clears honest books, beside a writer too, and says what it found in figures and words.

Each single defect is in `test_audit_defects.py`, the client's side in `test_audit_history.py`.
"""

from __future__ import annotations

import ast
from pathlib import Path

import msgspec
import pytest

import engine.inventory
from engine.errors import StoreUnavailable
from engine.inventory.audit import PAGE_COMMITS, AuditReport
from engine.inventory.events import Reserved, Restocked, SaleOpened, SalePaused, Withdrawn
from engine.inventory.history import History
from tests.inventory.proving import CHECKS, findings, honest, orders_of_honest, prove, red
from tests.inventory.sales import Books

# -- honest books


def test_an_honest_sale_is_cleared_and_counted() -> None:
    report = prove(honest(), History(orders_of_honest()))
    assert red(report) == set()
    assert (report.checked_events, report.checked_commits, report.streams) == (11, 6, 2)
    assert (report.oversold, report.lost, report.phantom) == (0, 0, 0)
    assert (report.duplicated, report.over_limit) == (0, 0)
    looked_at = dict(zip(CHECKS, (check.checked for check in report.checks), strict=True))
    assert looked_at == {
        "positions": 6,
        "checksums": 6,
        "readable": 11,
        "versions": 6,
        "once": 11,
        "stock": 5,
        "phases": 11,
        "limits": 3,
        "holds": 0,
        "table": 2,
        "units": 28,
        "carts": 0,
        "acknowledged": 4,
        "refused": 1,
        "failed": 1,
        "doubtful": 1,
        "agree": 7,
    }
    assert report.notes == (
        "1 orders of the history have no definite answer; 0 of them were executed",
    )


def test_an_empty_store_is_cleared() -> None:
    report = prove(Books(partitions=3))
    assert (red(report), report.checked_events) == (set(), 0)


def test_a_store_of_other_aggregates_needs_no_stock_table() -> None:
    books = Books()
    books.has_stock_table = False
    books.write_raw("account", "a", b'[{"type":"paid.1","command_id":"c1"}]', 1)
    assert red(prove(books)) == set()


def test_the_report_is_json() -> None:
    report = prove(honest(), History(orders_of_honest()))
    stored = msgspec.json.decode(msgspec.json.encode(report), type=AuditReport)
    assert stored == report


def test_pages_and_partitions_are_read_to_their_ends() -> None:
    books = Books(partitions=3)
    for partition, sku in enumerate(["A", "B", "C"]):
        books.write(sku, SaleOpened(f"{sku}-open", 1_000, 0), partition=partition)
        for number in range(PAGE_COMMITS * partition):
            books.write(sku, Reserved(f"{sku}-{number}", "b", 1), partition=partition)
    report = prove(books)
    assert red(report) == set()
    assert report.checked_commits == 3 + 3 * PAGE_COMMITS
    books.falsify(-1, partition=2, checksum=1)
    assert red(prove(books)) == {"checksums"}


def test_a_long_stream_without_a_row_is_read_to_its_end() -> None:
    books = Books()
    for number in range(2 * PAGE_COMMITS + 1):
        event = {"type": "paid.1", "command_id": f"c{number}"}
        books.write_raw("account", "a", msgspec.json.encode([event]), 1)
    assert prove(books).checked_commits == 2 * PAGE_COMMITS + 1


# -- figures and words


def test_oversold_counts_the_units_that_were_not_there() -> None:
    books = Books()
    books.write("A", SaleOpened("1", 5, 0), row=False)
    for number in range(3):
        books.write("A", Reserved(f"r{number}", "b", 3), row=False)
    report = prove(books)
    assert report.oversold == 4
    assert "stock 'A' version 3: 3 sold where 2 were left" in findings(report)
    assert "stock 'A' version 4: 3 sold where 0 were left" in findings(report)


def test_withdrawing_too_much_is_no_oversale() -> None:
    books = honest()
    books.write("SOCK", Withdrawn("k8", 1), row=False)
    report = prove(books)
    assert (report.oversold, report.ok) == (0, False)


def test_every_order_above_the_limit_is_counted() -> None:
    books = Books()
    orders = [Reserved(f"r{number}", "bob", 1) for number in range(5)]
    books.write("A", SaleOpened("1", 9, 2), *orders)
    report = prove(books)
    assert report.over_limit == 3
    assert "stock 'A' version 4: 'bob' holds 3 where 2 are allowed" in findings(report)


def test_every_repeated_event_is_counted() -> None:
    books = Books()
    books.write("A", SaleOpened("1", 9, 0), *[Reserved("r", "bob", 1)] * 3)
    assert prove(books).duplicated == 2


def test_a_command_of_another_type_may_have_several_events_in_one_commit() -> None:
    books = Books()
    books.write_raw("account", "a", b'[{"type":"paid.1","command_id":"c1"}]', 1)
    twice = b'[{"type":"paid.1","command_id":"c2"},{"type":"thanked.1","command_id":"c2"}]'
    books.write_raw("account", "a", twice, 2)
    assert red(prove(books)) == set()


def test_a_finding_names_the_commit_the_column_and_both_values() -> None:
    books = honest()
    books.falsify(1, checksum=1)
    books.rows["SOCK"]["available"] = 7
    commit, row, units = findings(prove(books)).splitlines()
    assert commit == (
        "commit at position 2 of partition 0 (stock 'SHOE', versions 2..3): "
        "its events are not the ones that were written"
    )
    assert row == "'SOCK': available is 7 and should be 0"
    assert units == (
        "stock 'SOCK': 3 units came in and 10 are there: "
        "3 sold for good, 0 paid, 0 held, 0 withdrawn, 7 left"
    )


def test_findings_are_all_counted_and_the_first_ones_kept() -> None:
    books = Books()
    books.write("A", SaleOpened("1", 100, 0), *[Reserved("r", "bob", 1)] * 51)
    once = prove(books).checks[4]
    assert (once.found, len(once.findings)) == (50, 20)


# -- one defect hides no other


def test_an_unreadable_commit_hides_neither_its_neighbours_nor_other_skus() -> None:
    books = honest()
    books.falsify(1, events=books.commits[0][1].events[:-3])
    books.write("HAT", SaleOpened("h1", 5, 0), SalePaused("h2"), Reserved("h3", "bob", 1))
    report = prove(books, History(orders_of_honest()))
    assert red(report) == {"readable", "phases", "acknowledged"}
    assert report.lost == 2
    assert "stock 'SHOE': its rules and its row cannot be checked from version 2 on" in report.notes


def test_an_unreadable_event_loses_no_other_order_of_its_commit() -> None:
    books = honest()
    data = books.commits[0][1].events
    books.falsify(1, events=data.replace(b"reserved.1", b"reserved.9", 1))
    report = prove(books, History(orders_of_honest()))
    assert red(report) == {"readable", "acknowledged"}
    assert report.lost == 1
    assert "version 2: Invalid value 'reserved.9'" in findings(report)


def test_what_follows_a_gap_is_not_called_oversold() -> None:
    books = Books()
    books.write("A", SaleOpened("1", 1, 0))
    books.write("A", Restocked("2", 5))
    books.write("A", Reserved("3", "bob", 6))
    del books.commits[0][1]
    assert red(prove(books)) == {"positions", "versions"}


# -- beside a writing engine


def test_rows_ahead_of_the_events_are_met_by_reading_on() -> None:
    books = honest()

    def sell_on(method: str) -> None:
        if method == "read_rows":
            books.write("SOCK", Restocked("k8", 4))
            books.write("SOCK", Reserved("k9", "bob", 1))
            books.write("HAT", SaleOpened("h1", 5, 0))

    books.on_read = sell_on
    report = prove(books)
    assert red(report) == set()
    assert report.checks[CHECKS.index("table")].checked == 3


def test_a_writer_that_never_rests_is_audited_up_to_its_rows() -> None:
    books = honest()
    numbers = iter(range(1_000_000))

    def sell_on(_: str) -> None:
        books.write("SOCK", *[Restocked(f"more-{next(numbers)}", 1) for _ in range(3)])

    books.on_read = sell_on
    assert red(prove(books)) == set()


def test_a_wrong_row_is_found_beside_a_writer_too() -> None:
    books = honest()
    numbers = iter(range(1_000_000))
    books.rows["SOCK"]["available"] = 7

    def sell_on(_: str) -> None:
        books.write("SOCK", Restocked(f"more-{next(numbers)}", 1))

    books.on_read = sell_on
    assert red(prove(books)) == {"table", "units"}


def test_a_sku_opened_after_the_rows_were_read_needs_no_row_yet() -> None:
    books = honest()
    rows = {sku: dict(row) for sku, row in books.rows.items()}
    books.write("SOCK", Restocked("k9", 1), row=False)
    late = books.commits[0].pop()
    rows["SOCK"] |= {"available": 1, "version": 3}
    books.rows = rows

    def open_one(method: str) -> None:
        if method == "read_rows":
            books.commits[0].append(late)
            books.on_read = open_another

    def open_another(_: str) -> None:
        books.write("HAT", SaleOpened("h1", 5, 0), row=False)
        books.on_read = lambda _: None

    books.on_read = open_one
    assert red(prove(books)) == set()


def test_a_store_that_cannot_be_read_is_an_error_and_no_verdict() -> None:
    books = honest()

    def fail(_: str) -> None:
        raise StoreUnavailable("the disk is gone")

    books.on_read = fail
    with pytest.raises(StoreUnavailable, match="the disk is gone"):
        prove(books)


# -- independence


def test_the_audit_loads_none_of_the_code_it_audits() -> None:
    """Followed through every module of ours that it imports when it runs."""
    forbidden = {f"engine.inventory.{name}" for name in ("stock", "events", "stock_table")}
    forbidden |= {"engine.cqrs.codec", "engine.runtime"}
    root = Path(engine.inventory.__file__ or "").parents[2]
    seen: set[str] = set()
    waiting = ["engine.inventory.audit"]
    while waiting:
        name = waiting.pop()
        if name not in seen:
            seen.add(name)
            path = root / (name.replace(".", "/") + ".py")
            waiting += _imports(path) if path.exists() else []
    assert "engine.inventory.audit_sale" in seen
    assert seen & forbidden == set()


def _imports(path: Path) -> list[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for_types = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    return [
        node.module
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        and node.module
        and node.module.startswith("engine.")
        and id(node) not in for_types
    ]
