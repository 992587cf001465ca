"""What the users of a process share keeps them out of each other's way."""

from __future__ import annotations

from pathlib import Path

from loadtest.swarm.arrivals import timetable
from tests.loadtest.swarm.locusts import run
from tests.loadtest.swarm.scripted_shop import Answer, Asked, scripted_shop, sold


def test_buyers_who_think_do_not_make_others_late(tmp_path: Path) -> None:
    def script(asked: Asked) -> Answer:
        if asked.path.endswith("/confirm"):
            return Answer(200, {"id": "SKU-1:x", "state": "paid"})
        return sold(asked, held=True)

    flags = ("--rate=20", "--pay-rate=1", "--think-seconds=600")
    with scripted_shop(script) as shop:
        found = run(tmp_path, shop.url, "buyer:1", *flags, users=2).outcomes
    due = len(list(timetable("flash", 20, 1, seed=1)))
    assert found.accepted >= due - 4 > 2
    assert found.unsent <= 1
    # Whoever still thinks when the run ends pays then.
    assert found.paid == found.accepted
