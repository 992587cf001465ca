"""The recommendation is the fastest setting that holds the condition, and says how sure that is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtest.tuning.experiment import Cell
from loadtest.tuning.recommend import Standing, confirmed, recommend, standings
from tests.loadtest.tuning.tunings import cell, run_of, runs_of

SLOW, FAST, NEAR = cell(1), cell(100), cell(500)
NOISE = (0.99, 1.0, 1.01, 0.995, 1.005)


def judged(rates: Mapping[Cell, Sequence[float]], p99_ms: float = 2.0) -> list[Standing]:
    return standings(list(rates), runs_of(rates, p99_ms))


def around(rate: float) -> list[float]:
    return [rate * each for each in NOISE]


def test_the_fastest_is_recommended_and_slower_ones_are_told_from_it() -> None:
    found = recommend(judged({SLOW: around(50), FAST: around(100)}), None)
    assert (found.label, found.holds, found.not_told_from) == ("100", True, [])
    assert found.durable_per_s.median == 100


def test_one_whose_ratio_spans_one_cannot_be_told_from_it() -> None:
    beside = [99.5, 98, 103, 98.5, 101]
    found = recommend(judged({SLOW: around(50), FAST: around(100), NEAR: beside}), None)
    assert (found.label, found.not_told_from) == ("100", ["500"])


def test_repeats_are_compared_in_pairs_so_that_a_slow_turn_hides_no_difference() -> None:
    turns = [100.0, 50.0, 150.0, 80.0, 120.0]
    rates = {FAST: turns, NEAR: [each * 0.9 for each in turns]}
    assert recommend(judged(rates), None).not_told_from == []
    # The same figures in other turns show nothing.
    mixed = {FAST: turns, NEAR: [45.0, 135.0, 72.0, 108.0, 90.0]}
    assert recommend(judged(mixed), None).not_told_from == ["500"]


@pytest.mark.parametrize("repeats", [1, 2])
def test_of_too_few_repeats_nothing_is_told_apart(repeats: int) -> None:
    rates = {SLOW: [1.0] * repeats, FAST: [100.0] * repeats}
    assert recommend(judged(rates), None).not_told_from == ["1"]


def test_of_equals_the_first_one_is_recommended() -> None:
    assert recommend(judged({NEAR: around(100), FAST: around(100)}), None).label == "500"
    assert recommend(judged({FAST: around(100), NEAR: around(100)}), None).label == "100"


def test_a_faster_setting_that_breaks_the_condition_is_passed_over() -> None:
    slower, faster = runs_of({SLOW: around(50)}, 20.0), runs_of({FAST: around(100)}, 20.1)
    found = recommend(standings([SLOW, FAST], [*slower, *faster]), 20.0)
    assert (found.label, found.holds, found.p99_ms) == ("1", True, 20.0)
    assert found.not_told_from == [], "who breaks the condition is no alternative"


def test_when_nothing_holds_the_condition_the_nearest_is_named_and_not_recommended() -> None:
    near, far = runs_of({SLOW: around(50)}, 30.0), runs_of({FAST: around(100)}, 90.0)
    found = recommend(standings([FAST, SLOW], [*far, *near]), 20.0)
    assert (found.label, found.holds, found.not_told_from) == ("1", False, [])


def test_the_condition_must_hold_at_every_concurrency() -> None:
    few, many = cell(100, 50), cell(100, 2_000)
    runs = [*runs_of({few: around(100)}, 5.0), *runs_of({many: around(100)}, 25.0)]
    (found,) = standings([few, many], runs)
    assert (found.p99_ms, found.p99_at) == (25.0, 2_000)
    assert found.holds(25.0)
    assert not found.holds(20.0)


def test_several_concurrencies_count_alike_by_the_geometric_mean() -> None:
    # The sum of 100 + 1,000 is more than 300 + 500; twice as fast and half as fast weigh the same.
    a = {cell(1, 50): [100.0] * 3, cell(1, 2_000): [1_000.0] * 3}
    b = {cell(9, 50): [300.0] * 3, cell(9, 2_000): [500.0] * 3}
    found = recommend(judged(a | b), None)
    assert found.label == "9"
    assert found.durable_per_s.median == pytest.approx((300 * 500) ** 0.5)


def test_repeats_that_were_not_made_at_every_concurrency_do_not_count() -> None:
    few, many = cell(1, 50), cell(1, 2_000)
    (found,) = standings([few, many], runs_of({few: [1, 1, 1], many: [1, 1]}))
    assert list(found.rates) == [1, 2]
    assert standings([few, many], runs_of({few: [1]})) == []


@given(st.lists(st.floats(1, 1e6), min_size=2, max_size=8), st.integers(1, 4))
def test_nothing_that_holds_is_faster_than_what_is_recommended(
    rates: list[float], repeats: int
) -> None:
    found = judged({cell(n): [rate] * repeats for n, rate in enumerate(rates, 1)})
    assert recommend(found, None).durable_per_s.median == max(each.durable_per_s for each in found)


def test_the_default_stays_when_it_cannot_be_told_from_the_fastest() -> None:
    beside = [99.5, 98, 103, 98.5, 101]
    found = recommend(
        judged({SLOW: around(50), FAST: around(100), NEAR: beside}), None, default="500"
    )
    assert (found.label, found.batch, found.fastest) == ("500", NEAR.batch, "100")
    assert found.not_told_from == ["100"]
    assert found.fastest_per_s is not None
    assert (found.durable_per_s.median, found.fastest_per_s.median) == (99.5, 100)


def test_a_default_that_is_shown_to_be_slower_is_left() -> None:
    found = recommend(judged({SLOW: around(50), FAST: around(100)}), None, default="1")
    assert (found.label, found.fastest, found.default) == ("100", None, "1")


@pytest.mark.parametrize("repeats", [1, 2])
def test_too_few_repeats_are_no_reason_to_leave_the_default(repeats: int) -> None:
    rates = {SLOW: [1.0] * repeats, FAST: [100.0] * repeats}
    found = recommend(judged(rates), None, default="1")
    assert (found.label, found.fastest) == ("1", "100")


def test_a_default_that_breaks_the_condition_does_not_stay() -> None:
    fast, default = runs_of({FAST: around(100)}, 5.0), runs_of({NEAR: around(100)}, 20.1)
    found = recommend(standings([FAST, NEAR], [*fast, *default]), 20.0, default="500")
    assert (found.label, found.holds, found.fastest) == ("100", True, None)
    nothing = recommend(standings([FAST, NEAR], [*fast, *default]), 1.0, default="500")
    assert (nothing.label, nothing.holds, nothing.fastest) == ("100", False, None)


def test_a_choice_that_comes_up_to_itself_again_has_held() -> None:
    first = judged({SLOW: around(50), FAST: around(100)})
    rates = {FAST: [99.5, 100.0, 101.0], SLOW: [50.0, 49.0, 51.0]}
    found = confirmed(recommend(first, None, default="1"), first, judged(rates))
    assert (found.label, found.held) == ("100", True)
    assert found.measured_again is not None
    assert found.measured_again.median == 100
    assert found.ratio_to_default is not None
    assert found.ratio_to_default.median == pytest.approx(2.0, rel=0.05)


@pytest.mark.parametrize("again", [[90, 91, 92], [50, 74, 150]], ids=["sure", "noisy"])
def test_a_choice_that_was_lucky_has_not_held_and_noise_does_not_help(again: list[float]) -> None:
    first = judged({FAST: around(100)})
    found = confirmed(recommend(first, None), first, judged({FAST: again}))
    assert found.measured_again is not None
    assert (found.held, found.measured_again.median) == (False, again[1])


@pytest.mark.parametrize("repeats", [1, 2])
def test_whether_a_choice_of_too_few_runs_held_is_not_known(repeats: int) -> None:
    first = judged({FAST: [100.0] * repeats})
    assert confirmed(recommend(first, None), first, judged({FAST: [99, 98, 97]})).held is None


def test_a_choice_that_breaks_the_condition_when_measured_again_has_not_held() -> None:
    first = judged({FAST: around(100)})
    again = standings([FAST], [run_of(FAST, n, 100.0, 21.0) for n in (1, 2, 3)])
    found = confirmed(recommend(first, 20.0, default="100"), first, again)
    assert (found.held, found.p99_ms_again, found.ratio_to_default) == (False, 21.0, None)


def test_fresh_runs_that_do_not_show_it_faster_bring_the_default_back() -> None:
    first = judged({SLOW: around(90), FAST: around(100)})
    chosen = recommend(first, None, default="1")
    assert chosen.label == "100"
    found = confirmed(chosen, first, judged({FAST: [91, 89, 93], SLOW: [90, 91, 89]}))
    assert (found.label, found.batch, found.fastest) == ("1", SLOW.batch, "100")
    assert found.ratio_to_default is not None
    assert found.ratio_to_default.low < 1
    assert found.measured_again is not None
    assert (found.measured_again.median, found.held) == (90, True)


def test_a_default_that_broke_the_condition_does_not_come_back() -> None:
    first = judged({SLOW: around(90), FAST: around(100)})
    chosen = recommend(first, 20.0, default="1")
    late = [run_of(SLOW, n, 90.0, 21.0) for n in (1, 2, 3)]
    fresh = standings([FAST, SLOW], [*runs_of({FAST: [90.0, 91, 89]}), *late])
    assert confirmed(chosen, first, fresh).label == "100"
