"""The demo of a cluster: its own proof, its exit codes, and that it leaves nothing behind."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from typer.testing import CliRunner

from engine.cqrs.partitioning import partition_of
from engine.inventory.audit_report import AuditReport
from loadtest.cluster.demo import SCARCE, Demo, Outcome, app, skus_for
from loadtest.cluster.figures import ClusterRun
from loadtest.reconcile import Check
from loadtest.serve_process import NotStarted
from tests.architecture.source_tree import ROOT
from tests.loadtest.cluster.test_figures import a_run, figures, sale
from tests.servers import need, need_nats

REPORT = AuditReport(
    ok=True,
    oversold=0,
    lost=0,
    phantom=0,
    duplicated=0,
    over_limit=0,
    checked_events=1,
    checked_commits=1,
    streams=1,
    checks=(),
)


@pytest.fixture(autouse=True)
def _collector_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    # It would change the collector of the whole test process.
    monkeypatch.setattr("loadtest.cluster.demo.tune_garbage_collector", lambda: None)


def test_every_partition_has_a_sku_of_its_own_beside_the_scarce_one() -> None:
    found = skus_for(8)
    assert len(found) == 9
    assert set(found.values()) == set(range(8))
    assert all(partition_of(sku, 8) == place for sku, place in found.items())
    assert SCARCE in found


@pytest.mark.parametrize(
    ("until", "lost", "code"), [(14.0, 0, 0), (21.0, 0, 1), (None, 0, 1), (14.0, 1, 1)]
)
def test_the_exit_code_says_whether_all_was_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, until: float | None, lost: int, code: int
) -> None:
    sales = [sale("B", 12, 14)] + ([sale("A", 12, until)] if until else [])
    run = a_run(figures(tmp_path, *sales), {})
    audit = msgspec.structs.replace(run.audit, lost=lost)
    run = msgspec.structs.replace(run, audit=audit)
    outcome = Outcome(run, REPORT, Check("books", "orders", True, 1, ""), ())
    monkeypatch.setattr("loadtest.cluster.demo._run_and_show", lambda *_: outcome)
    done = CliRunner().invoke(app, ["--out", str(tmp_path / "out")])
    assert done.exit_code == code, done.output
    assert (tmp_path / "out" / "run.json").exists()


def test_what_does_not_start_is_told_and_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_demo: Demo, _errors: object) -> Outcome:
        raise NotStarted("engine-1 ended with 2")

    monkeypatch.setattr("loadtest.cluster.demo._run_and_show", fail)
    done = CliRunner().invoke(app, ["--out", str(tmp_path / "out")])
    assert done.exit_code == 2
    assert "error: engine-1 ended with 2" in done.stderr
    assert not (tmp_path / "out").exists()


STOP_SECONDS_MAX = 120


def start(folder: Path, *options: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "loadtest.cluster.demo", "--out", str(folder), *options],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def processes_of(folder: Path) -> list[str]:
    """Command lines that name the folder, other than that of the demo itself."""
    found = []
    for each in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = each.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue  # It has ended.
        if str(folder / "processes") in line:
            found.append(line)
    return found


def test_a_real_cluster_loses_an_engine_and_sells_on(tmp_path: Path) -> None:
    need("mariadbd", "mysqld")
    need_nats()
    folder = tmp_path / "out"
    done = start(folder, "--seconds", "2", "--buyers", "36", "--per-second", "200")
    printed, errors = done.communicate()
    assert done.returncode in (0, 1), printed + errors
    run = msgspec.json.decode((folder / "run.json").read_bytes(), type=ClusterRun)
    over = run.take_over
    # Whether it was in time is the machine's affair; that it came about, and all the rest, is not.
    assert done.returncode == (0 if over.in_time else 1), printed + errors
    assert over.resumed_seconds is not None
    unhurried = msgspec.structs.replace(over, limit_seconds=over.resumed_seconds)
    assert msgspec.structs.replace(run, take_over=unhurried).ok, printed + errors
    # The fault was met: somebody waited for the dead engine longer than for anybody before.
    dead = [each for each in over.partitions if each.killed]
    assert dead
    assert over.killed in {each.owner for each in dead}
    assert all(each.until_sale_seconds for each in dead)
    assert run.retried > 0
    # And what was sold before is known to who sells now.
    assert run.orders.duplicate > 0
    assert {each.partition for each in over.partitions} == set(range(8))
    assert run.audit.ok
    assert run.audit.checked_events >= run.orders.accepted > 100
    assert [each.name for each in run.gateways] == ["gateway-1", "gateway-2"]
    assert all(each.offered for each in run.gateways)
    assert "every acknowledged order is stored" in printed
    config = json.loads((folder / "run.json").read_text())["config"]
    assert config["cluster"]["servers"] == 3
    assert "127.0.0.1:" not in json.dumps(config)
    assert list(folder.glob("processes/*.log"))
    assert not list(folder.rglob("data"))
    assert processes_of(folder) == []


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_demo_that_is_told_to_stop_leaves_no_process(
    tmp_path: Path, number: signal.Signals, code: int
) -> None:
    need("mariadbd", "mysqld")
    need_nats()
    folder = tmp_path / "out"
    demo = start(folder, "--seconds", "600")
    assert demo.stderr is not None
    said = []
    for line in demo.stderr:
        said.append(line)
        if "selling" in line:
            break
    assert processes_of(folder), said
    demo.send_signal(number)
    try:
        _, errors = demo.communicate(timeout=STOP_SECONDS_MAX)
    finally:
        demo.terminate()
    assert demo.returncode == code, (said, errors)
    assert "Traceback" not in errors
    assert processes_of(folder) == []
    assert not (folder / "run.json").exists()
