"""The benchmark writes what it measured and fails on a wrong answer."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from loadtest import bench_runs
from loadtest.bench import Bench, BenchRun, Figure, collect, figure, write
from loadtest.machine import describe_machine


def test_a_figure_is_the_median_with_an_interval_around_it() -> None:
    each = figure("orders", "orders/s", [3.0, 1.0, 2.0, 5.0, 4.0], 2.5)
    assert (each.median, each.met) == (3.0, True)
    assert 1.0 <= each.low <= 3.0 <= each.high <= 5.0
    assert not figure("ratio", "x", [2.0], 1.5, at_least=False).met


def test_every_benchmark_runs_and_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("loadtest.bench.LONELY_ORDERS", 5)
    bench = Bench(tmp_path, repeats=1, scale=0.001, history_events=8_190)
    figures: list[Figure] = []
    for _, step in bench.steps():
        figures += asyncio.run(collect(step))
    assert len(figures) == 9
    assert all(each.median > 0 for each in figures)
    info = asyncio.run(bench_runs.store_info(tmp_path / "info.db"))
    run = BenchRun(
        started_at="2026-01-01",
        commit="0" * 40,
        machine=describe_machine(info),
        config=bench.config(),
        figures=figures,
    )
    write(run, tmp_path / "out")
    written = json.loads((tmp_path / "out" / "run.json").read_text())
    assert written["kind"] == "bench"
    assert len(written["figures"]) == 9
    assert "| orders in lists of 8,190, orders/s |" in (tmp_path / "out/README.md").read_text()


async def test_a_wrong_answer_fails_the_benchmark(tmp_path: Path) -> None:
    await bench_runs.lists(tmp_path / "sale.db", 16_380, 2)
    with pytest.raises(bench_runs.WrongAnswer, match="9,999 events were replayed"):
        await bench_runs.replay(tmp_path / "sale.db", 9_999)
