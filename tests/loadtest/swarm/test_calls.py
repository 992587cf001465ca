"""What a reply means that is not the service's own."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from tests.loadtest.swarm.locusts import run
from tests.loadtest.swarm.scripted_shop import Answer, Asked, scripted_shop, sold


@pytest.mark.parametrize(
    "foreign", [Answer(201, {}), Answer(200, ["no"]), Answer(409, "<html>"), Answer(302, {})]
)
def test_what_something_in_between_answers_is_neither_sold_nor_refused(
    tmp_path: Path, foreign: Answer
) -> None:
    def script(asked: Asked) -> Answer:
        return foreign if asked.times == 1 else sold(asked)

    with scripted_shop(script) as shop:
        found = run(tmp_path, shop.url, "buyer:1").outcomes
        keys = Counter(each.key for each in shop.asked)
    if foreign.status == 302:
        # It is not followed, and no answer to an order.
        assert found.failed == found.sent == len(keys)
        return
    assert found.accepted == found.sent == len(keys) > 0
    assert set(keys.values()) == {2}
    assert (found.refused, found.failed, found.unknown) == ({}, 0, 0)
