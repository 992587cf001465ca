"""Every setting is tried as often, in an empty store, and what is written says what was seen."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.config import load_settings
from engine.cqrs.event_store import StoreInfo
from engine.errors import ConfigError
from loadtest.machine import describe_machine
from loadtest.settings import WorkloadSettings
from loadtest.simulate import Outcome, Plan, run_sale
from loadtest.tune import Cell, CellRun, Experiment, NotProven, grid, parse_numbers, run_experiment
from loadtest.tune_report import TuneRun, summarise, table_of, write
from loadtest.workload import generate

SETTINGS = load_settings(None, {"store.url": "memory:", "batch.aggregates_max": 7}, {})
SVG = "{http://www.w3.org/2000/svg}"


def experiment(tmp_path: Path, cells: Sequence[Cell], **changes: object) -> Experiment:
    workload = WorkloadSettings(buyers=2_000, stock=2_000)
    plain = Experiment(generate(workload), SETTINGS, tuple(cells), tmp_path, 50, 2, 60.0, 1)
    return msgspec.structs.replace(plain, **changes)


def run_of(cell: Cell, repeat: int = 1, rate: float = 100.0) -> CellRun:
    return CellRun(
        cell=cell,
        repeat=repeat,
        orders=1,
        seconds=1.0,
        durable_per_s=rate,
        transactions_per_s=1.0,
        size_mean=1.0,
        p50_ms=1.0,
        p99_ms=2.0,
        checked_events=5,
    )


def tune_run(cells: Sequence[Cell], runs: Sequence[CellRun]) -> TuneRun:
    return TuneRun(
        started_at="2026-04-01T20:00:00+00:00",
        commit="0123456789abcdef+dirty",
        seed=1,
        machine=describe_machine(StoreInfo("memory", "1", "none", "none")),
        config={"concurrency": 50, "workload": {"skus": 1}, "repeats": 2, "seconds_max": 2.0},
        checked_events=10,
        cells=summarise(cells, runs),
    )


def test_a_grid_is_every_size_with_every_delay_and_the_settings_otherwise() -> None:
    cells = grid(SETTINGS, [1, 10, 10], [0, 5])
    assert [(each.batch.size_max, each.batch.delay_ms_max) for each in cells] == [
        (1, 0),
        (10, 0),
        (1, 5),
        (10, 5),
    ]
    assert {each.batch.aggregates_max for each in cells} == {7}


@pytest.mark.parametrize(
    ("sizes", "delays", "what"),
    [
        ([0], [0], "--batch-size must be from 1 to 100,000, got 0"),
        ([100_001], [0], "--batch-size must be from 1 to 100,000"),
        ([1], [-1], "--batch-delay-ms must be from 0 to 10,000"),
        ([1], [float("nan")], "--batch-delay-ms must be from 0 to 10,000"),
        (range(1, 202), [0], "201 settings to try; at most 200"),
    ],
)
def test_what_cannot_be_tried_is_refused(
    sizes: Sequence[int], delays: Sequence[float], what: str
) -> None:
    with pytest.raises(ConfigError, match=what):
        grid(SETTINGS, sizes, delays)


def test_numbers_are_read_or_refused() -> None:
    assert parse_numbers("batch_size", "1, 10,50") == [1, 10, 50]
    with pytest.raises(ConfigError, match=r"--batch-size takes numbers .*; got '1,,2'"):
        parse_numbers("batch_size", "1,,2")


def test_every_setting_is_tried_as_often_and_in_turns_of_its_own(tmp_path: Path) -> None:
    cells = grid(SETTINGS, [1, 10, 50, 100], [0])
    seen: list[CellRun] = []
    runs, machine = run_experiment(experiment(tmp_path, cells, repeats=3), seen.append)
    assert seen == runs
    assert machine.store == "memory"
    turns = [[each.cell for each in runs if each.repeat == n] for n in (1, 2, 3)]
    assert all(sorted(turn, key=cells.index) == cells for turn in turns)
    assert turns != [cells] * 3
    # Each sold everything, so each had a store of its own.
    assert [each.orders for each in runs] == [2_000] * 12
    assert all(each.size_mean <= each.cell.batch.size_max for each in runs)
    again, _ = run_experiment(experiment(tmp_path, cells, repeats=3))
    assert [each.cell for each in again] == [each.cell for each in runs]


def test_a_run_ends_when_its_time_is_up(tmp_path: Path) -> None:
    # 2,000 orders one at a time, each with an fsync, take far longer.
    settings = load_settings(None, {"store.url": "sqlite:unused"}, {})
    short = experiment(
        tmp_path,
        grid(settings, [1], [0]),
        settings=settings,
        seconds_max=0.02,
        concurrency=1,
        repeats=1,
    )
    (run,), machine = run_experiment(short)
    assert 0 < run.orders < 2_000
    assert machine.store == "sqlite"
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_is_not_proven_ends_the_experiment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forged(plan: Plan) -> Outcome:
        outcome = run_sale(plan)
        found = msgspec.structs.replace(outcome.run.audit, ok=False, findings=("1 oversold",))
        run = msgspec.structs.replace(outcome.run, audit=found)
        return msgspec.structs.replace(outcome, run=run)

    monkeypatch.setattr("loadtest.tune.run_sale", forged)
    with pytest.raises(NotProven, match="batch size 10: 1 oversold"):
        run_experiment(experiment(tmp_path, grid(SETTINGS, [10], [0])))


@given(rates=st.lists(st.floats(1, 1e6), min_size=2, max_size=9))
def test_repeats_are_put_together(rates: list[float]) -> None:
    cells = grid(SETTINGS, [1, 10], [0])
    runs = [run_of(cell, n, rate) for n, rate in enumerate(rates) for cell in cells]
    for each in summarise(cells, runs):
        assert each.durable_per_s.low <= each.durable_per_s.median <= each.durable_per_s.high
        assert [run.durable_per_s for run in each.repeats] == rates


def test_the_report_shows_every_run_and_every_name(tmp_path: Path) -> None:
    named = Cell(msgspec.structs.replace(SETTINGS.batch, size_max=50, delay_ms_max=50.0), "article")
    cells = [*grid(SETTINGS, [1, 10, 1_000], [0]), named]
    runs = [run_of(cell, n, 100.0 * n) for cell in cells for n in (1, 2)]
    run = tune_run(cells, runs)
    write(run, tmp_path / "out")
    page = (tmp_path / "out" / "README.md").read_text()
    assert "commit 0123456789ab+dirty" in page
    assert "| article (50 / 50 ms) | 150 | 100 to 200 |" in page
    assert "![Throughput and latency by batch size](batch-size.svg)" in page
    written = msgspec.json.decode((tmp_path / "out" / "run.json").read_bytes(), type=TuneRun)
    assert written == run
    assert table_of(run).row_count == 4
    plot = (tmp_path / "out" / "batch-size.svg").read_bytes()
    texts = {"".join(each.itertext()) for each in ElementTree.fromstring(plot).iter(f"{SVG}text")}
    assert {"1", "10", "1,000", "median", "one run", "article (50 / 50 ms)"} <= texts
    write(run, tmp_path / "again")
    assert (tmp_path / "again" / "batch-size.svg").read_bytes() == plot


def test_settings_with_a_delay_alone_are_drawn_too(tmp_path: Path) -> None:
    cells = grid(SETTINGS, [1, 10], [5])
    write(tune_run(cells, [run_of(cell) for cell in cells]), tmp_path)
    assert (tmp_path / "batch-size.svg").exists()
