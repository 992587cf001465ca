"""Every worker gets its share of a run, also one that could not hear yet when it was given."""

from __future__ import annotations

import os
import subprocess
import sys

from tests.architecture.source_tree import ROOT

PROGRAM = """
from types import SimpleNamespace

from locust.runners import STATE_RUNNING, STATE_STOPPED, MasterRunner

from loadtest.swarm import crowd
from loadtest.swarm.reporting import Reporter


class Master(MasterRunner):
    def __init__(self, *workers):
        self.sent = []
        self.state = STATE_RUNNING
        found = [SimpleNamespace(id=each) for each in workers]
        self.clients = SimpleNamespace(ready=found, running=[])

    def send_message(self, kind, data=None, client_id=None):
        self.sent.append((client_id, data))


def wanted(client):
    master.share_wanted(SimpleNamespace(node_id=client))
    return runner.sent[-1]


def take(worker, data):
    worker.receive_plan(SimpleNamespace(data=data))


runner = Master("a", "b")
master = Reporter(SimpleNamespace(runner=runner))
master._plan = lambda: crowd.closed_crowd().plan
master.begin()
given = dict(runner.sent)
assert [given[each]["place"] for each in "ab"] == [0, 1]

# Whoever asks gets the same once more, and takes it once.
assert wanted("b") == ("b", given["b"])
worker = Reporter(SimpleNamespace(runner=None))
take(worker, given["b"])
crowd_of_worker = worker.crowd
take(worker, given["b"])
assert worker.crowd is crowd_of_worker is not None

# One that comes late has orders of its own, and no part of the timetable.
client, late = wanted("late-worker")
assert client == "late-worker"
assert (late["place"], late["of"], late["plan"]["seconds"]) == (0, 1, 0.0)
assert late["plan"]["prefix"] != given["a"]["plan"]["prefix"]

# The next run is another one; after it nobody gets a share.
master.begin()
again = dict(runner.sent)["b"]
take(worker, again)
assert worker.crowd is not crowd_of_worker
master.end()
runner.state = STATE_STOPPED
before = len(runner.sent)
master.share_wanted(SimpleNamespace(node_id="b"))
assert len(runner.sent) == before
"""


def test_a_worker_that_asks_has_its_share_once() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        encoding="utf-8",
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
