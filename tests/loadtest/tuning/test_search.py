"""A search spends its runs on the better half, and loses the best setting to nothing but noise."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from loadtest.tuning.recommend import standings
from loadtest.tuning.search import FEW, Round, halve, rounds, runs_in
from tests.loadtest.tuning.tunings import cell, runs_of


def test_each_round_has_half_as_many_settings_and_twice_the_repeats() -> None:
    assert rounds(16, 5) == [Round(16, 1), Round(8, 2), Round(4, 4), Round(2, 5)]
    assert runs_in(rounds(16, 5)) == 16 + 8 + 4 * 2 + 2


def test_few_settings_get_all_their_repeats_at_once() -> None:
    assert rounds(FEW, 5) == [Round(FEW, 5)]


def test_a_search_ends_when_those_left_have_all_repeats() -> None:
    assert rounds(100, 3) == [Round(100, 1), Round(50, 2), Round(25, 3)]


@given(st.integers(1, 200), st.integers(2, 100))
def test_whoever_is_left_has_all_repeats_and_no_search_costs_more_than_the_grid(
    settings: int, repeats: int
) -> None:
    found = rounds(settings, repeats)
    assert found[0].settings == settings
    assert found[-1].repeats == repeats
    assert found[-1].settings >= min(settings, FEW) // 2
    assert all(a.settings > b.settings and a.repeats < b.repeats for a, b in pairwise(found))
    assert runs_in(found) <= settings * repeats


def test_the_slower_half_is_dropped_and_told_why() -> None:
    cells = [cell(size) for size in (1, 10, 50, 100)]
    found = standings(cells, runs_of(dict(zip(cells, ([10], [40], [20], [30]), strict=True))))
    kept, dropped = halve(found, 2, None)
    assert kept == ["10", "100"]
    assert [(each.label, each.repeats) for each in dropped] == [("50", 1), ("1", 1)]
    assert dropped[0].why == "20 durable orders/s, and the slowest that goes on has 30"


def test_the_default_goes_on_in_the_last_place_while_it_holds_the_condition() -> None:
    cells = [cell(size) for size in (1, 10, 50, 100)]
    found = standings(cells, runs_of(dict(zip(cells, ([10], [40], [20], [30]), strict=True))))
    kept, dropped = halve(found, 2, None, "1")
    assert kept == ["1", "10"]
    assert [each.label for each in dropped] == ["100", "50"]
    assert dropped[0].why == (
        "30 durable orders/s, and the slowest that goes on beside the default has 40"
    )
    assert halve(found, 2, None, "100")[0] == ["10", "100"]
    assert halve(found, 2, 1.0, "50")[0] == ["1", "10"], "nothing holds: the nearest go on"


def test_who_breaks_the_condition_is_dropped_before_who_is_slow() -> None:
    slow, fast = cell(1), cell(100)
    runs = [*runs_of({slow: [10]}, 5.0), *runs_of({fast: [90]}, 40.0)]
    kept, dropped = halve(standings([slow, fast], runs), 1, 20.0)
    assert kept == ["1"]
    assert dropped[0].why == "p99 40.0 ms at 2,000 in flight is above 20"


def test_when_nobody_holds_the_condition_the_nearest_go_on() -> None:
    near, far = cell(1), cell(100)
    runs = [*runs_of({near: [10]}, 25.0), *runs_of({far: [90]}, 40.0)]
    kept, dropped = halve(standings([near, far], runs), 1, 20.0)
    assert kept == ["1"]
    assert "and the worst that goes on has 25.0" in dropped[0].why


def test_a_setting_is_judged_over_all_concurrencies() -> None:
    runs = runs_of({cell(1, 50): [100], cell(1, 500): [10], cell(9, 50): [50], cell(9, 500): [50]})
    cells = [cell(size, at) for size in (1, 9) for at in (50, 500)]
    assert halve(standings(cells, runs), 1, None)[0] == ["9"]
