"""A point of a chart is the difference of two snapshots of the statistics."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.cqrs.command_side.statistics import Counters
from engine.service.figures import is_quiet, make_point, quantile


@given(st.lists(st.integers(0, 50), min_size=1), st.sampled_from([0.5, 0.9, 0.99, 1.0]))
def test_a_quantile_is_the_value_that_such_a_part_does_not_exceed(
    values: list[int], q: float
) -> None:
    counts = {value: values.count(value) for value in values}
    found = quantile(counts, q)
    assert found in values
    assert sum(value <= found for value in values) >= q * len(values)
    below = [value for value in values if value < found]
    assert len(below) < q * len(values)


@pytest.mark.parametrize("q", [0.5, 0.99])
def test_the_quantile_of_nothing_is_nothing(q: float) -> None:
    assert quantile({}, q) == 0


@pytest.mark.parametrize("told", ["overloaded", "expired", "unserved", "unknown"])
def test_an_interval_in_which_somebody_was_only_sent_away_is_not_quiet(told: str) -> None:
    counters = Counters()
    before = counters.snapshot(0, 0, 0)
    assert is_quiet(make_point(1, 0, 250, before, before, 0, []))
    setattr(counters, told, 3)
    point = make_point(1, 0, 250, before, counters.snapshot(0, 0, 0), 0, [])
    assert getattr(point, told) == 3
    assert not is_quiet(point)
