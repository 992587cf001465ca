"""Every setting is tried as often, in turns; what was run before is not run again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from engine.errors import ConfigError
from loadtest.tuning.experiment import (
    Cell,
    CellRun,
    Experiment,
    at_every,
    grid,
    parse_numbers,
)
from loadtest.tuning.journal import open_journal
from loadtest.tuning.report import summarise
from loadtest.tuning.runs import Findings, run_experiment, runs_planned
from loadtest.tuning.search import Dropped
from loadtest.wrong import NotProven
from tests.loadtest.tuning.tunings import SETTINGS, Scripted, cell, experiment, run_of


def run(
    trial: Experiment,
    driver: Scripted,
    seen: list[tuple[CellRun, bool]] | None = None,
    told: list[Dropped] | None = None,
) -> Findings:
    seen, told = [] if seen is None else seen, [] if told is None else told
    with open_journal(trial.directory, {}, "now") as journal:
        return run_experiment(
            trial, driver, journal, lambda one, kept: seen.append((one, kept)), told.extend
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


def test_every_setting_is_a_cell_at_every_concurrency() -> None:
    cells = grid(SETTINGS, [1, 10], [0], [50, 500, 50])
    assert [(each.label, each.concurrency) for each in cells] == [
        ("1", 50),
        ("10", 50),
        ("1", 500),
        ("10", 500),
    ]


@pytest.mark.parametrize(
    ("sizes", "delays", "what"),
    [
        ([0], [0], "--batch-size must be from 1 to 100,000, got 0"),
        ([100_001], [0], "--batch-size must be from 1 to 100,000"),
        ([1], [-1], "--batch-delay-ms must be from 0 to 10,000"),
        ([1], [float("nan")], "--batch-delay-ms must be from 0 to 10,000"),
        (range(1, 202), [0], "201 settings to try.*at most 200"),
    ],
)
def test_what_cannot_be_tried_is_refused(
    sizes: Sequence[int], delays: Sequence[float], what: str
) -> None:
    with pytest.raises(ConfigError, match=what):
        grid(SETTINGS, sizes, delays)


def test_the_cap_counts_a_setting_at_each_concurrency() -> None:
    with pytest.raises(ConfigError, match="202 settings to try, counted at each concurrency"):
        at_every([50, 500], [cell(size) for size in range(1, 102)])


def test_numbers_are_read_or_refused() -> None:
    assert parse_numbers("batch_size", "1, 10,50") == [1, 10, 50]
    with pytest.raises(ConfigError, match=r"--batch-size takes numbers .*; got '1,,2'"):
        parse_numbers("batch_size", "1,,2")


CELLS: list[Cell] = [cell(size) for size in (1, 10, 50, 100)]
RATES = {1: 10.0, 10: 40.0, 50: 20.0, 100: 30.0}


def test_every_setting_is_tried_as_often_and_in_turns_of_its_own(tmp_path: Path) -> None:
    driver, seen = Scripted(RATES), list[tuple[CellRun, bool]]()
    found = run(experiment(tmp_path, CELLS, repeats=3), driver, seen)
    assert [one for one, _ in seen] == found.runs
    turns = [[each.cell for each in found.runs if each.repeat == n] for n in (1, 2, 3)]
    assert all(sorted(turn, key=CELLS.index) == CELLS for turn in turns)
    assert turns != [CELLS] * 3
    (tmp_path / "again").mkdir()
    again = run(experiment(tmp_path / "again", CELLS, repeats=3), Scripted(RATES))
    assert [each.cell for each in again.runs] == [each.cell for each in found.runs]


def test_an_experiment_that_was_stopped_runs_only_what_is_missing(tmp_path: Path) -> None:
    trial = experiment(tmp_path, CELLS, repeats=3, confirm=2)
    whole = Scripted(RATES)
    (tmp_path / "whole").mkdir()
    expected = run(experiment(tmp_path / "whole", CELLS, repeats=3, confirm=2), whole)
    stopped, seen = Scripted(RATES), list[tuple[CellRun, bool]]()
    # 3 x 4 runs, then 2 x 2 of the choice and the default: also stopped among those.
    for stopped.runs_max in (5, 14, 15):
        with pytest.raises(NotProven, match="stopped by the test"):
            run(trial, stopped)
    stopped.runs_max = None
    found = run(trial, stopped, seen)
    assert stopped.ran == whole.ran, "each run was made once, in the same order"
    assert [kept for _, kept in seen] == [True] * 15 + [False]
    assert found == expected


def test_the_chosen_setting_is_measured_again_beside_the_default(tmp_path: Path) -> None:
    driver = Scripted(RATES)
    found = run(experiment(tmp_path, CELLS, repeats=3, confirm=3), driver)
    assert found.recommendation.label == "10"
    assert found.recommendation.held is True
    fresh = driver.ran[-6:]
    assert sorted(fresh) == [(label, 2_000, n) for label in ("10", "100") for n in (1, 2, 3)]
    assert [repeat for *_, repeat in fresh] == [1, 1, 2, 2, 3, 3], "in turns"
    assert len(found.fresh) == 6


def test_when_nothing_holds_the_condition_there_is_nothing_to_measure_again(
    tmp_path: Path,
) -> None:
    driver = Scripted(RATES, dict.fromkeys(RATES, 30.0))
    found = run(experiment(tmp_path, CELLS, confirm=3, p99_ms_max=20.0), driver)
    assert (found.recommendation.holds, found.fresh) == (False, [])
    assert len(driver.ran) == 8


def test_a_search_gives_the_better_half_more_repeats(tmp_path: Path) -> None:
    sizes = list(range(1, 9))
    driver, told = Scripted({size: 10.0 * size for size in sizes}), list[Dropped]()
    trial = experiment(tmp_path, [cell(size) for size in sizes], repeats=5, search=True)
    found = run(trial, driver, told=told)
    repeats = {size: sum(label == f"{size}" for label, *_ in driver.ran) for size in sizes}
    assert repeats == {1: 1, 2: 1, 3: 1, 4: 1, 5: 2, 6: 2, 7: 5, 8: 5}
    assert [each.label for each in found.dropped] == ["4", "3", "2", "1", "6", "5"]
    assert told == found.dropped
    assert found.recommendation.label == "8"
    assert len(driver.ran) == runs_planned(trial)


def test_a_search_that_was_stopped_drops_the_same_and_goes_on(tmp_path: Path) -> None:
    cells = [cell(size, at) for size in range(1, 9) for at in (50, 500)]
    driver = Scripted({size: 10.0 * size for size in range(1, 9)})
    trial = experiment(tmp_path, cells, repeats=5, search=True)
    driver.runs_max = 20
    with pytest.raises(NotProven):
        run(trial, driver)
    driver.runs_max = None
    found = run(trial, driver)
    assert len(driver.ran) == len(set(driver.ran)) == runs_planned(trial)
    assert [each.label for each in found.dropped] == ["4", "3", "2", "1", "6", "5"]


def test_repeats_are_put_together() -> None:
    cells = grid(SETTINGS, [1, 10], [0])
    rates = [3.0, 1.0, 2.0]
    runs = [run_of(each, n, rate) for n, rate in enumerate(rates) for each in cells]
    for each in summarise(cells, runs):
        assert each.durable_per_s.low <= each.durable_per_s.median <= each.durable_per_s.high
        assert [run.durable_per_s for run in each.repeats] == rates
