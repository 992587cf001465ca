"""What became of orders, and how long it took."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import settings as profile
from hypothesis import strategies as st

from loadtest.swarm.books import (
    HIGHEST_US,
    ORDER,
    SAMPLES_MAX,
    SECONDS_OPEN,
    Books,
    Page,
    decode_histogram,
    new_histogram,
    percentiles_ms,
)

Entry = Callable[[Books], None]

times = st.floats(0, 5)
counts = st.integers(0, 3)


def _answer(at: float, lasted: float, accepted: int, refused: dict[str, int]) -> Entry:
    return lambda books: books.answer(at, at - lasted, accepted, 2 * accepted, refused)


def _count(name: str, more: int) -> Entry:
    def write(books: Books) -> None:
        setattr(books.outcomes, name, getattr(books.outcomes, name) + more)

    return write


entries: Any = st.lists(
    st.one_of(
        st.builds(lambda at, n: lambda books: books.sent(at, n), times, counts),
        st.builds(
            _answer,
            *(times, st.floats(0, 100), st.integers(1, 3)),
            st.dictionaries(st.sampled_from(["sold_out", "over_limit"]), st.integers(1, 3)),
        ),
        st.builds(lambda at: lambda books: books.repeated(at, at - 0.01), times),
        st.builds(lambda n: lambda books: books.fail("broken", n), counts),
        st.builds(lambda s: lambda books: books.record("pay", s), times),
        st.builds(
            _count, st.sampled_from(["unknown", "paid", "left", "unsent", "retried"]), counts
        ),
    ),
    max_size=12,
)


def figures(books: Books) -> Any:
    """Everything in the books as plain values; equal histograms may be encoded differently."""
    page = books.page()

    def counted(encoded: str) -> Counter[int]:
        counts = decode_histogram(encoded).encoder.histogram.counts
        return Counter({place: count for place, count in enumerate(counts) if count})

    return (
        msgspec.to_builtins(page.outcomes),
        {name: counted(each) for name, each in page.histograms.items()},
        {
            second: (book.decided, book.accepted, book.units, counted(book.latency))
            for second, book in page.seconds.items()
        },
        page.first_at,
        page.last_at,
        page.samples,
    )


@profile(max_examples=40)
@given(entries, st.lists(st.booleans(), min_size=12, max_size=12))
def test_what_is_taken_in_parts_adds_up_to_the_whole(
    written: list[Entry], pauses: list[bool]
) -> None:
    whole, part, master = Books(), Books(), Books()

    def hand_over() -> None:
        sent = msgspec.json.encode(part.take())
        assert part.page() == Books().page()
        master.add(msgspec.json.decode(sent, type=Page))

    for entry, pause in zip(written, pauses, strict=False):
        entry(whole)
        entry(part)
        if pause:
            hand_over()
    hand_over()
    assert figures(master) == figures(whole)


def test_the_record_of_outcomes_is_another_one_after_it_was_taken() -> None:
    books = Books()
    kept = books.outcomes
    books.take()
    kept.paid += 1
    assert books.outcomes.paid == 0


def test_percentiles_are_right_to_three_digits() -> None:
    histogram = new_histogram()
    for micros in range(1, 100_001):
        histogram.record_value(micros)
    known = [50.0, 95.0, 99.0, 99.9, 100.0]
    assert list(percentiles_ms(histogram)) == pytest.approx(known, rel=1e-3)


def test_percentiles_of_nothing_are_zero() -> None:
    assert list(percentiles_ms(new_histogram())) == [0.0] * 5


def test_orders_are_in_the_second_of_their_answer_with_the_latency_since_they_were_due() -> None:
    books = Books()
    books.sent(0.5, 3)
    books.answer(0.9, 0.4, 1, 2, {})
    books.answer(3.25, 0.25, 0, 0, {"sold_out": 2})
    page = books.page()
    assert list(page.seconds) == [0, 3]
    first, last = page.seconds[0], page.seconds[3]
    assert (first.decided, first.accepted, first.units) == (1, 1, 2)
    assert (last.decided, last.accepted, last.units) == (2, 0, 0)
    assert next(percentiles_ms(decode_histogram(first.latency))) == pytest.approx(500, rel=1e-3)
    assert next(percentiles_ms(decode_histogram(last.latency))) == pytest.approx(3_000, rel=1e-3)
    assert (page.first_at, page.last_at) == (0.5, 3.25)
    assert decode_histogram(page.histograms[ORDER]).get_total_count() == 3
    assert books.answered == page.outcomes.decided == 3


def test_a_latency_outside_the_scale_is_at_its_end() -> None:
    books = Books()
    books.record("early", -1.0)
    books.record("late", 1e9)
    found = books.page().histograms
    assert decode_histogram(found["early"]).get_max_value() <= 1
    late = decode_histogram(found["late"]).get_max_value()
    assert late == pytest.approx(HIGHEST_US, rel=1e-3)


def test_only_the_first_failures_are_kept_in_words() -> None:
    books = Books()
    for number in range(SAMPLES_MAX + 3):
        books.fail(f"{number} " + "x" * 1_000)
    found = books.page()
    assert found.outcomes.failed == SAMPLES_MAX + 3
    assert [each[0] for each in found.samples] == [str(n) for n in range(SAMPLES_MAX)]
    assert max(map(len, found.samples)) == 300


@pytest.mark.parametrize("text", ["", "no base64!", "aGVsbG8=", "HISTF" * 10])
def test_what_is_no_histogram_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not an HDR histogram"):
        decode_histogram(text)


def test_a_second_that_is_over_takes_no_memory_and_still_takes_what_is_late() -> None:
    books = Books()
    for second in [*range(30), 2]:
        books.answer(second + 0.5, second + 0.4, 1, 2, {})
    page = books.page()
    assert [book.accepted for book in page.seconds.values()] == [1, 1, 2, *[1] * 27]
    assert decode_histogram(page.seconds[2].latency).total_count == 2
    open_ = [each for each in books._seconds.values() if each._histogram is not None]
    # The late one is open again until the next second begins.
    assert len(open_) <= SECONDS_OPEN + 2
