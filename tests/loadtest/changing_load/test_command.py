"""Settings are compared under the same changing load, and a run that is not proven ends the study."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import msgspec
import numpy as np
import pytest
from typer.testing import CliRunner, Result

from engine.config import COMMAND_SIDE_KEYS, Settings, load_settings
from engine.engine import Engine
from engine.event_loop import run_async
from loadtest.changing_load.command import SETTINGS, app
from loadtest.changing_load.report import ChangingLoadRun, SettingSummary, reading, summarise
from loadtest.changing_load.runs import (
    LoadRun,
    Phase,
    PhaseFigures,
    draw_due,
    phases,
    run_load,
    spans,
)
from loadtest.wrong import NotProven

SHORT = (Phase("idle", 0.05, 200), Phase("flash", 0.3, 4_000))


@pytest.fixture(autouse=True)
def _collector_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    # It would change the collector of the whole test process.
    monkeypatch.setattr("loadtest.changing_load.command.tune_garbage_collector", lambda: None)


def settings(**overrides: object) -> Settings:
    dotted = {key.replace("__", "."): value for key, value in overrides.items()}
    return load_settings(None, {**COMMAND_SIDE_KEYS, "store.url": "memory:", **dotted}, {})


def study(out: Path, *options: str) -> Result:
    arguments = ["--scale", "0.06", "--capacity", "5000", "--repeats", "1", "--out", str(out)]
    return CliRunner().invoke(app, [*arguments, *options])


def a_run(label: str, repeat: int, p99_ms: float | None) -> LoadRun:
    figures = PhaseFigures(
        decided_per_s=1.0,
        p50_ms=p99_ms,
        p99_ms=p99_ms,
        transactions_per_s=1.0,
        size_mean=1.0,
        refused=0 if p99_ms else 3,
    )
    return LoadRun(
        label=label,
        batch=SETTINGS["1,000"],
        repeat=repeat,
        accepted=1,
        refused=0,
        checked_events=1,
        figures={"flash": figures},
        windows=[],
    )


def summaries(**p99_ms: list[float | None]) -> list[SettingSummary]:
    runs = [
        a_run(label, repeat, each)
        for label, found in p99_ms.items()
        for repeat, each in enumerate(found, 1)
    ]
    return summarise(dict.fromkeys(p99_ms, SETTINGS["1,000"]), runs)


def test_the_burst_is_more_and_the_flash_less_than_what_the_machine_takes() -> None:
    load = {each.name: each for each in phases(10_000)}
    assert list(load) == ["idle", "burst", "flash", "tail"]
    assert load["flash"].per_second < 10_000 < load["burst"].per_second
    # What the burst leaves waiting fits into the queue of a machine that takes 200,000 a second.
    excess = load["burst"].seconds * 200_000
    assert excess < Settings().queue.depth_max


def test_orders_are_due_in_their_phase_and_the_same_for_the_same_seed() -> None:
    due = draw_due(SHORT, 1)
    assert np.all(np.diff(due) >= 0)
    assert spans(SHORT) == {"idle": (0.0, 0.05), "flash": (0.05, 0.35)}
    assert (due < 0.05).sum() == 10
    assert len(due) == 1_210
    assert np.array_equal(due, draw_due(SHORT, 1))
    assert not np.array_equal(due, draw_due(SHORT, 2))


@pytest.mark.parametrize("mode", ["fixed", "adaptive"])
def test_every_order_of_a_run_is_counted_once(mode: str) -> None:
    run, machine = run_async(run_load(settings(batch__mode=mode), "x", 1, SHORT, 1))
    assert machine.store == "memory"
    assert (run.accepted, run.refused) == (1_210, 0)
    assert run.checked_events == 1_211
    assert [each.at_seconds for each in run.windows] == [0.0]
    assert all((each.p99_ms or 0) >= (each.p50_ms or 0) > 0 for each in run.figures.values())


def test_who_meets_a_full_queue_is_refused_and_counted() -> None:
    tight = settings(queue__depth_max=1, batch__size_max=1)
    run, _ = run_async(run_load(tight, "x", 1, (Phase("burst", 0.01, 100_000),), 1))
    assert run.refused > 0
    assert run.accepted + run.refused == 1_000
    assert run.figures["burst"].refused == run.refused


def test_a_run_whose_store_says_otherwise_is_not_proven(monkeypatch: pytest.MonkeyPatch) -> None:
    async def wrong(engine: Engine, sku: str) -> None:
        return None

    monkeypatch.setattr(Engine, "stock", wrong)
    with pytest.raises(NotProven, match=r"x: 1,210 orders were accepted and -1 units sold"):
        run_async(run_load(settings(), "x", 1, SHORT, 1))


def test_a_study_ends_with_a_table_a_plot_and_every_run(tmp_path: Path) -> None:
    done = study(tmp_path / "out")
    assert done.exit_code == 0, done.output
    names = sorted(each.name for each in (tmp_path / "out").iterdir())
    assert names == ["README.md", "over-time.svg", "run.json"]
    written = msgspec.json.decode(
        (tmp_path / "out" / "run.json").read_bytes(), type=ChangingLoadRun
    )
    assert (written.kind, written.machine.store) == ("changing-load", "sqlite")
    assert [each.label for each in written.settings] == list(SETTINGS)
    orders = sum(round(each.seconds * each.per_second) for each in written.phases)
    for each in written.settings:
        assert [run.accepted + run.refused for run in each.repeats] == [orders]
    assert written.checked_events == sum(
        run.accepted + 1 for each in written.settings for run in each.repeats
    )
    page = (tmp_path / "out" / "README.md").read_text()
    rows = [f"| {each.name} | {label} | " for each in written.phases for label in SETTINGS]
    assert all(page.count(f"\n{row}") == 1 for row in rows)
    svg = (tmp_path / "out" / "over-time.svg").read_text()
    assert ElementTree.fromstring(svg).tag.endswith("svg")
    assert all(label in svg for label in SETTINGS)
    assert str(tmp_path) not in json.dumps(msgspec.to_builtins(written)) + page + svg


def test_a_capacity_that_is_not_given_is_measured(tmp_path: Path) -> None:
    done = study(tmp_path / "out", "--capacity", "0")
    assert done.exit_code == 0, done.output
    written = json.loads((tmp_path / "out" / "run.json").read_text())
    assert written["capacity_was_measured"]
    assert written["capacity_per_s"] > 0


def test_a_finished_folder_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("{}")
    done = study(tmp_path)
    assert done.exit_code == 2
    assert "already holds a finished run" in done.output
    assert [each.name for each in tmp_path.iterdir()] == ["run.json"]


def test_settings_are_compared_within_a_repeat() -> None:
    base, fast, mixed, none = summaries(
        base=[1.0, 10.0, 100.0], fast=[0.5, 5.0, 50.0], mixed=[0.5, 10.0, 200.0], none=[None] * 3
    )
    assert base.phases["flash"].p99_ratio is None
    ratio = fast.phases["flash"].p99_ratio
    assert ratio is not None
    assert (ratio.median, ratio.low, ratio.high) == (0.5, 0.5, 0.5)
    told = mixed.phases["flash"].p99_ratio
    assert told is not None
    assert told.low <= 1 <= told.high
    assert none.phases["flash"].p99_ms is None
    assert none.phases["flash"].refused == 9


def test_the_reading_claims_no_difference_that_was_not_shown() -> None:
    found = summaries(base=[1.0] * 3, fast=[0.5] * 3, slow=[3.0] * 3, mixed=[0.5, 1.0, 2.0])
    (line,) = reading(_run(found))
    assert "lower: fast (0.50); higher: slow (3.00); no difference shown: mixed." in line


def test_too_few_repeats_tell_nothing() -> None:
    (line,) = reading(_run(summaries(base=[1.0] * 2, fast=[0.5] * 2)))
    assert line == "Fewer than 3 repeats tell no setting from another."


def _run(found: list[SettingSummary]) -> ChangingLoadRun:
    _, machine = run_async(run_load(settings(), "x", 1, SHORT[:1], 1))
    return ChangingLoadRun(
        started_at="2026-04-01T20:00:00+00:00",
        commit="0123",
        seed=1,
        machine=machine,
        config={"repeats": 3},
        capacity_per_s=1.0,
        capacity_was_measured=False,
        phases=[Phase("flash", 1.0, 1.0)],
        checked_events=1,
        settings=found,
    )
