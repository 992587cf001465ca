"""From the books of a crowd to the figures of a run."""

from __future__ import annotations

import pytest

from loadtest.over_http.run import timeline_of
from loadtest.swarm.books import Books


def test_the_timeline_begins_with_the_first_order_and_ends_with_the_last_answer() -> None:
    books = Books()
    books.sent(0.75, 3)
    books.answer(1.5, 1.25, 1, 2, {})
    books.answer(3.25, 3.0, 1, 1, {"sold_out": 1})
    found = timeline_of(books.page())
    assert [(each.at_seconds, each.seconds) for each in found] == [
        (0.0, 0.25), (0.25, 1.0), (1.25, 1.0), (2.25, 0.25),
    ]  # fmt: skip
    assert [(each.decided, each.accepted, each.units) for each in found] == [
        (0, 0, 0), (1, 1, 2), (0, 0, 0), (2, 1, 1),
    ]  # fmt: skip
    assert found[0].p50_ms is found[0].p99_ms is found[2].p99_ms is None
    assert found[1].p50_ms == pytest.approx(250, rel=1e-3)
    assert sum(each.seconds for each in found) == pytest.approx(3.25 - 0.75)


def test_an_answer_at_the_very_begin_of_a_second_is_in_that_second() -> None:
    books = Books()
    books.sent(0.0)
    books.answer(2.0, 0.0, 1, 1, {})
    found = timeline_of(books.page())
    assert [each.decided for each in found] == [0, 0, 1]
    assert found[-1].seconds > 0


def test_a_run_without_an_answer_has_no_timeline_of_anything() -> None:
    assert all(each.decided == 0 for each in timeline_of(Books().page()))
