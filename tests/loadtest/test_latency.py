"""Percentiles agree with numpy's to within the stated error, in a few kilobytes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtest.latency import RELATIVE_ERROR_MAX, LatencyRecorder, Percentiles

PERCENTS = (50.0, 95.0, 99.0, 99.9)

# Values are cut to whole nanoseconds before they are counted.
NANOSECOND_MS = 1e-6


def recorded(seconds: list[float]) -> LatencyRecorder:
    recorder = LatencyRecorder()
    for value in seconds:
        recorder.record(value)
    return recorder


def assert_like_numpy(seconds: list[float]) -> None:
    """numpy rounds 99.9 % of a round count up to the next rank; counts here are not round."""
    exact = np.percentile(np.array(seconds) * 1e3, PERCENTS, method="inverted_cdf")
    found = recorded(seconds).percentiles_ms(PERCENTS)
    for mine, true in zip(found, exact.tolist(), strict=True):
        assert abs(mine - true) <= true * RELATIVE_ERROR_MAX + NANOSECOND_MS


@given(st.lists(st.floats(0, 60_000), min_size=1, max_size=200))
def test_any_latencies_have_numpys_percentiles(seconds: list[float]) -> None:
    assert_like_numpy(seconds)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_many_latencies_of_a_long_tail_have_numpys_percentiles(seed: int) -> None:
    rng = np.random.default_rng(seed)
    assert_like_numpy(rng.lognormal(-7, 2, 30_001).tolist())


@given(st.lists(st.floats(0, 60_000), min_size=1, max_size=50))
def test_percentiles_rise_and_end_at_the_exact_maximum(seconds: list[float]) -> None:
    found = recorded(seconds).percentiles()
    values = (found.p50, found.p95, found.p99, found.p999, found.max)
    assert list(values) == sorted(values)
    assert found.max == pytest.approx(max(seconds) * 1e3, abs=NANOSECOND_MS)


def test_nothing_recorded_is_zero() -> None:
    assert LatencyRecorder().percentiles() == Percentiles(0, 0, 0, 0, 0)


def test_values_beyond_the_range_count_as_its_ends() -> None:
    recorder = recorded([-1.0, 1e9])
    assert recorder.count == 2
    low, high = recorder.percentiles_ms((50, 100))
    assert low == 0
    assert high == pytest.approx(70_368_744, rel=RELATIVE_ERROR_MAX)
