"""The last books of a worker arrive, however fast its process ends."""

from __future__ import annotations

import os
import subprocess
import sys

import msgspec
import zmq

from tests.architecture.source_tree import ROOT

ARRIVES_MS_MAX = 60_000

WORKER = """
import os
import sys
from types import SimpleNamespace

from locust.rpc import Message, zmqrpc
from locust.runners import WorkerRunner

from loadtest.swarm.reporting import Reporter

runner = WorkerRunner.__new__(WorkerRunner)
runner.client = zmqrpc.Client("127.0.0.1", int(sys.argv[1]), "worker")
runner.client.send(Message("stats", {"orders": 1}, "worker"))
print("sent", flush=True)
Reporter(SimpleNamespace(runner=runner)).say_goodbye()
# What Python would still tidy up at its end depends on who holds what.
os._exit(0)
"""


def test_a_worker_ends_once_its_master_has_its_books(held_port: int) -> None:
    """The master comes only when the worker has sent everything, and has no more to do."""
    with subprocess.Popen(
        [sys.executable, "-c", WORKER, str(held_port)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
    ) as worker:
        assert worker.stdout is not None
        assert worker.stdout.readline() == b"sent\n"
        with zmq.Context() as context, context.socket(zmq.ROUTER) as master:
            master.bind(f"tcp://127.0.0.1:{held_port}")
            assert master.poll(ARRIVES_MS_MAX), "nothing came"
            sender, data = master.recv_multipart()
            assert worker.wait() == 0
    assert sender == b"worker"
    assert msgspec.msgpack.decode(data) == ["stats", {"orders": 1}, "worker"]
