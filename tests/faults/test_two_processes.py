"""Two processes on one partition: the first is paused, the second takes over, the first goes on.

Whoever was told "sold" by either must be in the store once, and the second must not be disturbed by
the first when that wakes up and finds its connection gone.
"""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from engine.clock import SystemClock
from engine.config import load_settings
from engine.engine import Engine
from engine.inventory.audit import audit
from engine.inventory.history import HistoryWriter, read_history
from engine.runtime import initialise_store, open_engine
from engine.testing.mariadb_server import mariadb_server
from loadtest.settings import WorkloadSettings
from loadtest.simulation.carts import Notebook
from loadtest.simulation.crowd import Crowd, Tally
from loadtest.workload import generate
from tests.architecture.source_tree import ROOT
from tests.faults.storm import until
from tests.servers import need

STOCK = 1_000_000
ENDS_SECONDS_MAX = 60


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    need("mariadbd", "mysqld")
    with mariadb_server(tmp_path / "server") as server:
        server.execute("CREATE DATABASE seckill")
        yield server.url()


@contextmanager
def seller(url: str, history: Path, step: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "tests.faults.seller", url, str(history), step]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize(
    "step",
    [
        pytest.param("none", id="paused anywhere"),
        pytest.param("insert", id="paused in its transaction"),
        pytest.param("before-commit", id="paused before COMMIT"),
        pytest.param("after-commit", id="paused after COMMIT"),
    ],
)
async def test_the_second_engine_sells_undisturbed_and_the_first_one_knows_it_lost(
    url: str, tmp_path: Path, step: str
) -> None:
    settings = load_settings(None, {"store.url": url}, {})
    await initialise_store(settings)
    async with open_engine(settings) as engine:
        await engine.open_sale("SKU-1", stock=STOCK, command_id="open")
    first_history = tmp_path / "first.jsonl"
    with seller(url, first_history, step) as first:
        await until(lambda: _sold(first_history) > 0)
        if step == "none":
            first.send_signal(signal.SIGSTOP)
        await until(lambda: _is_stopped(first.pid))
        sold_before = _sold(first_history)
        async with open_engine(settings) as engine:
            tally = await _sell(engine, tmp_path / "second.jsonl", "a")
            first.send_signal(signal.SIGCONT)
            out, _ = await asyncio.to_thread(first.communicate, None, ENDS_SECONDS_MAX)
            # The first has gone through everything it tries, and the second goes on selling.
            more = await _sell(engine, tmp_path / "second.jsonl", "b")
            histories = b"".join(
                path.read_bytes() if n == 0 else path.read_bytes().partition(b"\n")[2]
                for n, path in enumerate((first_history, tmp_path / "second.jsonl"))
            )
            (tmp_path / "both.jsonl").write_bytes(histories)
            report = await audit(engine.reader, read_history(tmp_path / "both.jsonl"))
    told = json.loads(out)
    assert first.returncode == 0
    assert told["PartitionLost"] > 0
    assert told["sold"] >= sold_before > 0
    assert (tally.accepted, more.accepted) == (2_000, 2_000)
    assert report.ok, [finding for check in report.checks for finding in check.findings]
    # Its last batch was durable if COMMIT had gone out, and not otherwise; both are told apart.
    assert told.get("OutcomeUnknown", 0) == 0
    assert report.checked_events == told["sold"] + 4_000 + 1


async def _sell(engine: Engine, history: Path, prefix: str) -> Tally:
    workload = generate(WorkloadSettings(seed=ord(prefix), buyers=2_000, stock=STOCK))
    writer = HistoryWriter(history)
    crowd = Crowd(workload, engine.execute, SystemClock(), 100, Notebook(writer))
    await crowd.run()
    writer.close()
    return crowd.tally


def _sold(history: Path) -> int:
    return history.read_bytes().count(b'"op":"ok"') if history.exists() else 0


def _is_stopped(pid: int) -> bool:
    state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    assert state != "Z", "the first engine ended too early"
    return state == "T"
