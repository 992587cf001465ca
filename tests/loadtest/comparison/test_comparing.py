"""A difference is told only when it is shown, and the words say which it is."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path

import msgspec
import pytest

from loadtest.comparison.comparing import Comparison, apart, compare, numbers, sentence
from loadtest.comparison.entries import Entry, Origin, Sample
from loadtest.intervals import Interval, paired_ratio_of, ratio_of
from tests.loadtest.published import MACHINE

SLOW, SAME, FAST = [80.0, 81.0, 79.0], [101.0, 98.0, 100.0], [150.0, 151.0, 149.0]
BASE = [100.0, 99.0, 102.0]


def entry(name: str, rates: Sequence[float], *, turns: Sequence[int] = (), file: str = "") -> Entry:
    origin = Origin(
        file=Path(file or name) / "run.json",
        key=name if file else "",
        kind="tune" if file else "simulate",
        strategy="group-commit",
        started_at="2026-04-01T20:00:00+00:00",
        commit="0123456789abcdef",
        machine=MACHINE,
        workload={},
        settings={},
    )
    samples = [Sample(rate, 1.0, 2.0, turn=turn) for rate, turn in zip_longest(rates, turns)]
    return Entry(name=name, samples=tuple(samples), origins=(origin,))


def compared(*rates: Sequence[float]) -> Comparison:
    return compare([entry(chr(ord("A") + n), each) for n, each in enumerate(rates)])


@pytest.mark.parametrize(
    ("rates", "verdict", "says"),
    [
        (FAST, "faster", "1.50 times the throughput of A (1.30 to 1.71)"),
        (SLOW, "slower", "0.80 times the throughput of A (0.70 to 0.91)"),
        (SAME, "no difference shown", "no difference shown, 1.00 times the throughput of A ("),
        (
            FAST[:2],
            "too few repeats",
            "no difference shown: 1.50 times A, but that was not tested: it takes 3 repeats of each",
        ),
    ],
)
def test_a_verdict_is_told_in_words(rates: Sequence[float], verdict: str, says: str) -> None:
    base, other = compared(BASE, rates).entries
    assert (base.verdict, base.ratio, sentence(base, base)) == ("base", None, "the base")
    assert other.verdict == verdict
    assert sentence(base, other).startswith(says)
    assert "throughput of X" in sentence(base, other, "X") or other.ratio is None


def test_a_base_of_few_repeats_shows_nothing() -> None:
    found = compared(BASE[:2], FAST, SLOW)
    assert [each.name for each in found.too_few] == ["B", "C"]
    assert sentence(found.entries[0], found.entries[1]).endswith("this has 3 and A 2")
    assert found.below(1) == []


def test_everything_is_compared_with_the_first() -> None:
    found = compared(FAST, BASE, FAST)
    assert found.base == "A"
    assert [each.verdict for each in found.entries] == ["base", "slower", "no difference shown"]
    assert found.entries[1].ratio == apart(ratio_of(FAST, BASE))


@pytest.mark.parametrize("limit", [0.95, 0.9, 0.81])
def test_below_is_what_is_shown_slower_and_is_below_the_limit(limit: float) -> None:
    found = compared(BASE, SLOW, SAME, FAST)
    assert [each.name for each in found.below(limit)] == ["B"]


def test_what_is_slower_but_not_below_the_limit_is_not_below() -> None:
    assert compared(BASE, SLOW).below(0.79) == []


def test_what_is_below_the_limit_but_not_shown_slower_is_not_below() -> None:
    found = compared(BASE, [110.0, 60.0, 80.0])
    assert found.entries[1].ratio is not None
    assert found.entries[1].ratio.median < 0.9
    assert found.below(0.9) == []


TURNS = [1, 2, 3, 4]
BY_TURN = [100.0, 40.0, 250.0, 70.0]


def test_repeats_of_one_experiment_are_compared_turn_by_turn() -> None:
    other = [each * 1.1 for each in BY_TURN]
    base = entry("10", BY_TURN, turns=TURNS, file="tune")
    (_, found) = compare([base, entry("20", other, turns=TURNS, file="tune")]).entries
    assert (found.verdict, found.paired, found.ratio) == (
        "faster",
        True,
        paired_ratio_of(BY_TURN, other),
    )


def test_turns_are_told_by_their_numbers() -> None:
    """An experiment that was gone on with may hold them in another order, and not all of them."""
    other = [each * 1.1 for each in BY_TURN][::-1][:3]
    base = entry("10", BY_TURN, turns=TURNS, file="tune")
    (_, found) = compare([base, entry("20", other, turns=TURNS[::-1][:3], file="tune")]).entries
    assert found.paired
    assert found.ratio is not None
    assert found.ratio.low == pytest.approx(1.1)


@pytest.mark.parametrize(
    ("turns", "file"), [(TURNS, "other"), ([5, 6, 7, 8], "tune"), ((), "tune")]
)
def test_repeats_that_were_not_made_together_are_independent(
    turns: Sequence[int], file: str
) -> None:
    other = [each * 1.1 for each in BY_TURN]
    base = entry("10", BY_TURN, turns=TURNS, file="tune")
    (_, found) = compare([base, entry("20", other, turns=turns, file=file)]).entries
    assert (found.verdict, found.paired) == ("no difference shown", False)
    assert found.ratio == apart(ratio_of(BY_TURN, other))


def test_repeats_without_a_turn_are_no_pairs() -> None:
    """Settings of one experiment that were joined are in one file all the same."""
    other = [each * 1.1 for each in BY_TURN]
    (_, found) = compare(
        [entry("10", BY_TURN, file="tune"), entry("20", other, file="tune")]
    ).entries
    assert (found.paired, found.ratio) == (False, apart(ratio_of(BY_TURN, other)))


@pytest.mark.parametrize(
    ("ratio", "shown"),
    [
        (Interval(1.434, 1.38, 1.5), ("1.43", "(1.38 to 1.50)")),
        (Interval(0.951, 0.9, 1.0), ("0.95", "(0.90 to 1.00)")),
        (Interval(0.0178, 0.0157, 0.02), ("0.0178", "(0.0157 to 0.0200)")),
        (Interval(56.25, 51.16, 63.9), ("56.2", "(51.2 to 63.9)")),
        (Interval(8_190, 8_000, 9_000), ("8,190", "(8,000 to 9,000)")),
    ],
)
def test_a_ratio_is_shown_with_three_digits(ratio: Interval, shown: tuple[str, str]) -> None:
    assert numbers(ratio) == shown


def test_a_comparison_is_read_back_from_its_json() -> None:
    found = compared(BASE, FAST, SLOW[:1])
    assert msgspec.json.decode(msgspec.json.encode(found), type=Comparison) == found


def test_the_same_settings_at_two_times_are_not_told_apart_by_a_drift_of_the_machine() -> None:
    # Three repeats each, an hour apart, on a machine that was a tenth slower then.
    base, other = compared([85.0, 84.0, 88.0], [76.1, 75.0, 79.0]).entries
    assert other.ratio is not None
    assert other.ratio.high > 1
    assert sentence(base, other).startswith("no difference shown")
