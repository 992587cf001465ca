"""Which users come, by weight."""

from __future__ import annotations

import pytest

from loadtest.swarm.mix import parse_mix


@pytest.mark.parametrize(
    ("text", "mix"),
    [
        ("buyer:8,reader:1", {"buyer": 8, "reader": 1}),
        ("list", {"list": 1}),
        (" buyer:2 , impatient:0 ", {"buyer": 2}),
    ],
)
def test_weights_are_read_and_nobody_of_weight_zero_comes(text: str, mix: dict[str, int]) -> None:
    assert parse_mix(text) == mix


@pytest.mark.parametrize(
    "text",
    ["", "seller:1", "buyer:1,buyer:2", "buyer:-1", "buyer:1.5", "buyer:x", "buyer:0", "buyer:²"],
)
def test_a_bad_mix_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="got"):
        parse_mix(text)
