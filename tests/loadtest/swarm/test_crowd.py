"""What the users of a process share keeps them out of each other's way."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from loadtest.swarm.arrivals import timetable
from tests.loadtest.swarm.locusts import run
from tests.loadtest.swarm.scripted_shop import Answer, Asked, scripted_shop, sold

# Greenlets that are due in one round of gevent's loop run in the order of their times, so the third
# pauses when the run has been stopped and before the first, whose time is up, is told so.
PAUSED_AS_ANOTHERS_PAUSE_ENDS = """
import time
import gevent
from loadtest.swarm.crowd import closed_crowd, Crowd

crowd = Crowd(closed_crowd().plan, 0, 1)

def pause_briefly():
    crowd.pause(0.01)

def stop():
    gevent.sleep(0.005)
    crowd.stop()

def pause_for_long():
    gevent.sleep(0.005)
    crowd.pause(600)

all_of_them = [gevent.spawn(each) for each in (pause_briefly, stop, pause_for_long)]
gevent.sleep(0)
time.sleep(0.05)
assert len(gevent.joinall(all_of_them, timeout=5)) == 3, all_of_them
"""


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


def test_nobody_pauses_once_a_run_is_stopped() -> None:
    program = [sys.executable, "-c", PAUSED_AS_ANOTHERS_PAUSE_ENDS]
    ended = subprocess.run(program, check=False, capture_output=True, timeout=60)
    assert ended.returncode == 0, ended.stderr.decode()
