"""The benchmark writes what it measured and fails on a wrong answer."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from engine.cqrs.codec import Codec, checksum
from engine.cqrs.event_store import NewCommit
from engine.inventory.events import SaleOpened
from engine.inventory.stock import STOCK
from engine.testing.bare_store import open_bare_store
from loadtest.bench import ceilings as bench_ceilings
from loadtest.bench import runs as bench_runs
from loadtest.bench.command import app
from loadtest.bench.report import figure
from loadtest.bench.runs import Audited
from loadtest.bench.steps import Bench
from loadtest.wrong import WrongAnswer


def bench(out: Path, *options: str) -> Result:
    arguments = ["--scale", "0.001", "--repeats", "1", "--out", str(out), *options]
    return CliRunner().invoke(app, arguments)


def test_a_figure_is_the_median_with_an_interval_around_it() -> None:
    each = figure("orders", "orders/s", [3.0, 1.0, 2.0, 5.0, 4.0], 2.5, checked="audit")
    assert (each.median, each.met) == (3.0, True)
    assert 0 < each.low <= 1.0 < 3.0 < 5.0 <= each.high < 8.0


@pytest.mark.parametrize(
    ("budget", "at_least", "met"),
    [(2.0, True, True), (2.1, True, False), (2.0, False, True), (1.9, False, False)],
)
def test_a_budget_is_met_at_its_bound(budget: float, at_least: bool, met: bool) -> None:
    assert figure("x", "x", [2.0], budget, at_least=at_least, checked="audit").met is met


def test_every_benchmark_runs_and_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("loadtest.bench.steps.LONELY_ORDERS", 5)
    # It would change the collector of the whole test process.
    monkeypatch.setattr("loadtest.bench.program.tune_garbage_collector", lambda: None)
    done = bench(tmp_path / "out", "--history-events", "8190")
    assert done.exit_code == 0, done.output
    written = json.loads((tmp_path / "out" / "run.json").read_text())
    assert (written["schema"], written["kind"], written["audit"]["ok"]) == (1, "bench", True)
    assert written["config"]["history_events"] == 8_190
    assert written["machine"]["store"] == "sqlite"
    # Two kinds of individual orders and of lists, lonely orders, two stores to replay.
    assert written["audit"]["checked_events"] == 4 * (1 + 16_380) + (1 + 5) + 2 * (1 + 24_570)
    figures = written["figures"]
    assert len(figures) == 29
    assert all(each["median"] > 0 and len(each["repeats"]) == 1 for each in figures)
    assert all(ceiling["median"] > 0 for each in figures for ceiling in each["ceilings"])
    assert [each["met"] for each in figures].count(None) == 15
    readme = (tmp_path / "out" / "README.md").read_text()
    assert all(f"| {each['name']}, {each['unit']} |" in readme for each in figures)
    assert [path.name for path in tmp_path.iterdir()] == ["out"], "the stores were left behind"


@pytest.mark.parametrize("name", ["individual", "lists", "lonely", "history"])
def test_a_wrong_answer_fails_the_run_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr("loadtest.bench.steps.LONELY_ORDERS", 8)
    monkeypatch.setattr("loadtest.bench.program.tune_garbage_collector", lambda: None)
    monkeypatch.setattr(bench_runs, "STOCK", 7)
    done = bench(tmp_path / "out", "--only", name)
    assert done.exit_code == 1
    assert "wrong answer, nothing is written" in done.output
    assert list(tmp_path.iterdir()) == []


def test_only_runs_what_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("loadtest.bench.steps.LONELY_ORDERS", 5)
    monkeypatch.setattr("loadtest.bench.program.tune_garbage_collector", lambda: None)
    assert bench(tmp_path / "out", "--only", "lonely").exit_code == 0
    written = json.loads((tmp_path / "out" / "run.json").read_text())
    assert [each["name"].split(" /")[0] for each in written["figures"]] == ["one lonely order"] * 2
    # The opening of the sale and five orders.
    assert written["audit"]["checked_events"] == 6


def test_an_unknown_benchmark_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    done = bench(tmp_path / "out", "--only", "speed")
    assert done.exit_code == 2
    assert "'speed' is not one of" in done.output
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = bench(tmp_path / "file" / "below" / "out", "--only", "lonely")
    assert done.exit_code == 2
    assert "cannot write to" in done.output


async def test_a_failed_audit_is_a_wrong_answer(tmp_path: Path) -> None:
    path = tmp_path / "sale.db"
    store = await open_bare_store(path)
    lease = await store.acquire(0)
    events = Codec(STOCK.events).encode((SaleOpened("other", 5, 0),))
    # Nothing is made of these events in the stock table.
    await store.append(lease, [NewCommit("stock", "OTHER", 1, 1, events, checksum(events))])
    await store.close()
    audited = Audited()
    with pytest.raises(WrongAnswer, match="the audit failed"):
        await bench_runs.lists(path, 8_190, 0, audited)
    assert audited.events == 0


async def test_a_replay_of_fewer_events_is_a_wrong_answer(tmp_path: Path) -> None:
    await bench_runs.lists(tmp_path / "sale.db", 16_380, 2)
    with pytest.raises(WrongAnswer, match="9,999 events were replayed"):
        await bench_runs.replay(tmp_path / "sale.db", 9_999)


async def test_a_failing_memory_process_fails_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = Bench(tmp_path, repeats=1, scale=0.001)
    monkeypatch.setattr(runs, "_new", lambda: tmp_path / "missing" / "sale.db")
    with pytest.raises(WrongAnswer, match="the process that measures memory failed"):
        await runs.memory()


async def test_the_bare_read_counts_every_event(tmp_path: Path) -> None:
    await bench_runs.lists(tmp_path / "sale.db", 16_380, 2)
    assert await bench_ceilings.bare_read(tmp_path / "sale.db") > 0
