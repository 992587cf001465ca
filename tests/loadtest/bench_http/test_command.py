"""The benchmark over HTTP writes what it measured, and refuses a store that says otherwise."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from loadtest import http_processes
from loadtest.bench.runs import Audited
from loadtest.bench_http import runs
from loadtest.bench_http.command import app
from loadtest.bench_http.overload import Plan
from loadtest.bench_http.runs import DEFAULTS, EMPTY, OFF
from loadtest.bench_http.steps import Sizes
from loadtest.wrong import WrongAnswer

TINY = Sizes(1, 0.2, (4,), (100,), 3_200, 3, Plan(0.6, 1.1, 1.1, 1.6))


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("loadtest.bench_http.command.Sizes", lambda: TINY)
    monkeypatch.setattr(
        "loadtest.bench_http.command.generator_name", lambda: "loadtest.http_client"
    )
    # It would change the collector of the whole test process.
    monkeypatch.setattr("loadtest.bench.program.tune_garbage_collector", lambda: None)


def bench(out: Path, *only: str) -> Result:
    options = [word for name in only for word in ("--only", name)]
    return CliRunner().invoke(app, ["--out", str(out), *options])


def test_every_benchmark_over_http_runs_and_is_written(tmp_path: Path) -> None:
    done = bench(tmp_path / "out")
    assert done.exit_code == 0, done.output
    written = json.loads((tmp_path / "out" / "run.json").read_text())
    assert (written["kind"], written["audit"]["ok"]) == ("bench-http", True)
    names = [each["name"] for each in written["figures"]]
    assert [name for name in names if name.startswith("single orders, 4 connections, ")] == [
        f"single orders, 4 connections, {kind}{what}"
        for kind in (DEFAULTS, OFF)
        for what in (f" / {EMPTY}", "", ", p99")
    ]
    assert sum(name.startswith("lists of 100 orders, ") for name in names) == 2
    readme = (tmp_path / "out" / "README.md").read_text()
    assert all(f"| {each['name']}, {each['unit']} |" in readme for each in written["figures"])
    for each in written["overloads"]:
        assert each["peak_per_s"] > 0
        phases = {window["phase"] for window in each["windows"]}
        assert phases == {"peak", "normal", "overload", "after"}
    plots = sorted(path.name for path in (tmp_path / "out").glob("*.svg"))
    assert plots == ["overload-lists.svg", "overload-single-orders.svg"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"], "the stores were left behind"


@pytest.mark.parametrize("name", ["singles", "lists"])
def test_a_store_that_holds_other_orders_than_were_answered_fails_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    real = http_processes.check_store

    async def one_more(store_url: str, sold_min: int, sold_max: int | None = None) -> int:
        wanted = (sold_max or sold_min) + 1
        return await real(store_url, wanted)

    monkeypatch.setattr(runs, "check_store", one_more)
    done = bench(tmp_path / "out", name)
    assert done.exit_code == 1
    assert "wrong answer, nothing is written" in done.output
    assert list(tmp_path.iterdir()) == []


async def test_a_refused_order_is_a_wrong_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_processes, "STOCK", 50)
    with pytest.raises(WrongAnswer, match="not every order of a list was accepted"):
        await runs.lists(tmp_path, OFF, 100, 3_200, Audited())


async def test_a_server_that_does_not_start_is_told_with_its_log(tmp_path: Path) -> None:
    with pytest.raises(WrongAnswer, match="SERVICE__CONNECTIONS_MAX"):
        async with http_processes.order_server(tmp_path, {"service.connections_max": 0}):
            pass


def test_an_unknown_benchmark_over_http_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    done = bench(tmp_path / "out", "speed")
    assert done.exit_code == 2
    assert "'speed' is not one of" in done.output
    assert list(tmp_path.iterdir()) == []
