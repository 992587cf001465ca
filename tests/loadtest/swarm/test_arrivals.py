"""When orders are due."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtest.swarm.arrivals import timetable
from loadtest.swarm.shapes import SHAPES, WAVE_LOW, Shape

shapes: Any = st.sampled_from(SHAPES)

# The integral of `share` over the whole run.
MEAN_SHARE: dict[Shape, float] = {
    "flash": 1.0,
    "ramp": 0.5,
    "wave": WAVE_LOW + (1 - WAVE_LOW) / 2,
    "soak": 0.95,
}


@given(shape=shapes, rate=st.floats(0.1, 2_000), seconds=st.floats(0.01, 5), seed=st.integers(0, 9))
def test_times_rise_within_the_run_and_are_the_same_for_the_same_seed(
    shape: Shape, rate: float, seconds: float, seed: int
) -> None:
    found = list(timetable(shape, rate, seconds, seed))
    assert all(before < after for before, after in pairwise(found))
    assert all(0 <= each < seconds for each in found)
    assert found == list(timetable(shape, rate, seconds, seed))


@given(shape=shapes, of=st.integers(1, 7), seed=st.integers(0, 2**63 - 1))
def test_several_processes_share_the_timetable_of_one(shape: Shape, of: int, seed: int) -> None:
    shares = [list(timetable(shape, 300, 2, seed, place, of)) for place in range(of)]
    assert sorted(at for times in shares for at in times) == list(timetable(shape, 300, 2, seed))
    counts = [len(each) for each in shares]
    assert max(counts) - min(counts) <= 1


@pytest.mark.parametrize("shape", get_args(Shape))
def test_as_many_are_due_as_the_shape_is_large(shape: Shape) -> None:
    found = list(timetable(shape, 10_000, 10, seed=7))
    # Of a Poisson process: 1 % is more than twice its standard deviation.
    assert len(found) == pytest.approx(100_000 * MEAN_SHARE[shape], rel=0.01)


def test_the_rate_follows_the_shape_over_the_run() -> None:
    found = list(timetable("ramp", 10_000, 10, seed=7))
    first_half = [each for each in found if each < 5]
    assert len(first_half) / len(found) == pytest.approx(0.25, abs=0.01)


def test_other_seeds_give_other_times() -> None:
    assert list(timetable("flash", 100, 1, 1)) != list(timetable("flash", 100, 1, 2))


def test_nothing_is_due_in_a_run_without_time() -> None:
    assert list(timetable("ramp", 100, 0.0, 1)) == []
