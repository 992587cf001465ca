"""How much of a crowd is there over the time of a run."""

from __future__ import annotations

from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtest.swarm.shapes import SHAPES, Shape, share

shapes: Any = st.sampled_from(SHAPES)


@given(shape=shapes, progress=st.floats(-0.5, 1.5))
def test_a_share_is_from_nobody_to_everybody(shape: Shape, progress: float) -> None:
    assert 0 <= share(shape, progress) <= 1


@pytest.mark.parametrize("shape", get_args(Shape))
def test_every_shape_has_everybody_there_once(shape: Shape) -> None:
    assert max(share(shape, n / 600) for n in range(601)) == pytest.approx(1)


@given(first=st.floats(0, 1), second=st.floats(0, 1))
def test_a_ramp_and_a_soak_never_fall(first: float, second: float) -> None:
    low, high = sorted((first, second))
    assert share("ramp", low) <= share("ramp", high)
    assert share("soak", low) <= share("soak", high)


def test_a_wave_has_three_crests_and_a_tenth_is_always_there() -> None:
    heights = [share("wave", n / 600) for n in range(601)]
    crests = [
        n for n in range(1, 600) if heights[n - 1] < heights[n] and heights[n] >= heights[n + 1]
    ]
    assert len(crests) == 3
    assert min(heights) == pytest.approx(0.1)
    assert heights[0] == pytest.approx(0.1)
