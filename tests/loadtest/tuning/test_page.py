"""What an experiment writes says what was seen, and its recommendation can be used as it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from xml.etree import ElementTree

import msgspec
import pytest

from engine.config import load_settings
from loadtest.reading import read_result
from loadtest.reports.tune import report_tune
from loadtest.tuning.experiment import Cell, CellRun
from loadtest.tuning.page import table_of, tabulate, write
from loadtest.tuning.recommend import confirmed, recommend, standings
from loadtest.tuning.report import TuneRun, summarise
from loadtest.tuning.search import Dropped
from loadtest.tuning.words import recommended_toml, sentences
from tests.loadtest.tuning.tunings import MACHINE, cell, run_of, runs_of

SVG = "{http://www.w3.org/2000/svg}"
CONFIG = {
    "concurrency": 50,
    "workload": {"skus": 1},
    "repeats": 2,
    "seconds_max": 2.0,
    "confirm": 3,
    "queue": {"depth_max": 200_000, "deadline_ms": 20_000},
}


def tune_run(
    cells: Sequence[Cell],
    runs: Sequence[CellRun],
    p99_ms_max: float | None = None,
    default: str = "",
) -> TuneRun:
    return TuneRun(
        started_at="2026-04-01T20:00:00+00:00",
        commit="0123456789abcdef+dirty",
        seed=1,
        machine=MACHINE,
        config=CONFIG,
        checked_events=10,
        cells=summarise(cells, runs),
        recommendation=recommend(standings(cells, runs), p99_ms_max, default=default),
    )


def test_the_report_shows_every_run_and_every_name(tmp_path: Path) -> None:
    cells = [cell(1), cell(10), cell(1_000), cell(50, named="article", delay_ms=50.0)]
    runs = [run_of(each, n, 100.0 * n) for each in cells for n in (1, 2)]
    run = tune_run(cells, runs)
    assert write(run, tmp_path / "out") == ["throughput-2000.svg", "latency-2000.svg"]
    page = (tmp_path / "out" / "README.md").read_text()
    assert "commit 0123456789ab+dirty" in page
    assert "| article (50 / 50 ms) | 150 | - |" in page, "two runs tell no interval"
    assert "](throughput-2000.svg)" in page
    assert "](latency-2000.svg)" in page
    assert "every setting 2 times, for 2 s, in a new random order" in page
    assert read_result(tmp_path / "out") == run
    assert table_of(run).row_count == 4
    plot = (tmp_path / "out" / "throughput-2000.svg").read_bytes()
    texts = {"".join(each.itertext()) for each in ElementTree.fromstring(plot).iter(f"{SVG}text")}
    assert {"1", "10", "1,000", "no delay", "article (50 / 50 ms)"} <= texts
    write(run, tmp_path / "again")
    assert (tmp_path / "again" / "throughput-2000.svg").read_bytes() == plot


def test_settings_with_a_delay_alone_are_drawn_too(tmp_path: Path) -> None:
    cells = [cell(1, delay_ms=5), cell(10, delay_ms=5)]
    written = write(tune_run(cells, [run_of(each) for each in cells]), tmp_path)
    assert written == ["throughput-2000.svg", "latency-2000.svg"]


def test_every_concurrency_has_its_rows_and_its_plot(tmp_path: Path) -> None:
    cells = [cell(size, at) for at in (50, 2_000) for size in (1, 10)]
    run = tune_run(cells, [run_of(each) for each in cells])
    assert [each for each in write(run, tmp_path) if each.startswith("throughput")] == [
        "throughput-50.svg",
        "throughput-2000.svg",
    ]
    page = (tmp_path / "README.md").read_text()
    assert "| batch size | in flight | durable/s |" in page
    assert "| 1 * | 2,000 | 100 |" in page
    assert "| 10 | 2,000 | 100 |" in page
    assert " * is recommended." in page
    assert "(geometric mean over 50, 2,000 in flight)" in page


def test_a_search_says_how_many_runs_each_had_and_what_was_dropped(tmp_path: Path) -> None:
    cells = [cell(1), cell(10)]
    run = tune_run(cells, runs_of({cells[0]: [1], cells[1]: [2, 2, 2]}))
    write(msgspec.structs.replace(run, dropped=[Dropped("1", 1, "too slow")]), tmp_path)
    page = (tmp_path / "README.md").read_text()
    assert "| commits/s | runs |" in page
    assert "- 1, after 1 repeat: too slow" in page


def test_the_words_say_what_is_not_known() -> None:
    cells = [cell(1), cell(10)]
    few = tune_run(cells, runs_of({cells[0]: [1, 1], cells[1]: [2, 2]}))
    assert "With fewer than 3 repeats no setting can be told" in sentences(few)[1]
    alike = tune_run(cells, runs_of({cells[0]: [1, 2, 3], cells[1]: [3, 2, 1.5]}))
    assert sentences(alike)[1].startswith("It cannot be told from: ")
    runs = [*runs_of({cells[0]: [1] * 3}), *runs_of({cells[1]: [2] * 3}, 9.0)]
    assert sentences(tune_run(cells, runs, 5.0))[1] == "No other setting holds the condition."
    (nothing,) = sentences(tune_run(cells, runs, 1.0))
    assert nothing.startswith("No setting keeps p99 within 1 ms, so none is recommended. Nearest")


def again(run: TuneRun, fresh: Mapping[Cell, Sequence[float]], p99_ms: float = 2.0) -> TuneRun:
    """The experiment after fresh runs of what it recommends."""
    assert run.recommendation is not None
    found = standings(
        [each.cell for each in run.cells], [one for each in run.cells for one in each.repeats]
    )
    runs = runs_of(fresh, p99_ms)
    return msgspec.structs.replace(
        run,
        recommendation=confirmed(run.recommendation, found, standings(list(fresh), runs)),
        confirmed=summarise(list(fresh), runs),
    )


def test_the_words_say_how_many_times_the_first_figure_fresh_runs_had() -> None:
    run = tune_run([cell(9)], runs_of({cell(9): [99, 100, 101]}))
    assert sentences(again(run, {cell(9): [98, 99.5, 150]}))[-1].startswith(
        "It held: 3 fresh runs had 0.99 times the first figure, 100 ("
    )
    lucky = sentences(again(run, {cell(9): [50, 74, 150]}))[-1]
    assert lucky.startswith("It did not hold: 3 fresh runs had 0.74 times the first figure, 74 (")
    assert lucky.endswith(
        "That lies below the first interval: the best of many is partly luck, and the machine may "
        "have been slower."
    )
    few = tune_run([cell(9)], runs_of({cell(9): [100]}))
    assert "100 (of 1 run) durable orders/s" in sentences(few)[0]
    assert sentences(again(few, {cell(9): [98, 99, 97]}))[-1].startswith(
        "The first runs were too few to say whether it held: 3 fresh runs had 0.98 times"
    )
    aimed = tune_run([cell(9)], runs_of({cell(9): [99, 100, 101]}), 5.0)
    assert sentences(again(aimed, {cell(9): [99, 100, 101]}, 6.0))[-1].startswith(
        "It did not hold, p99 was above the 5 ms asked for: 3 fresh runs had 1.00 times"
    )


def test_headline_table_and_file_take_the_default_that_cannot_be_told_from_the_fastest(
    tmp_path: Path,
) -> None:
    default = cell(10, named="default")
    cells = [cell(1), default, cell(500)]
    rates = {cells[0]: [50, 51, 52], default: [99, 98, 103], cells[2]: [100, 101, 102]}
    run = tune_run(cells, runs_of(rates), default=default.label)
    first, second = sentences(run)
    assert first.startswith("Batch size default (10): 99 (")
    assert second.startswith("500 was ahead with 101 (")
    assert second.endswith(
        "but the default cannot be told from it: nothing here is a reason to leave the default."
    )
    headline = report_tune(run).headline
    assert headline.startswith("Batch size default (10) is recommended: 99 (")
    assert "500 was ahead, and is not told apart from it." in headline
    path = tmp_path / "recommended.toml"
    path.write_text(recommended_toml(run))
    assert load_settings(path, {}, {}).batch == default.batch
    _, rows = tabulate(run, run.cells)
    assert [row[0] for row in rows] == ["1", "default (10) *", "500"]
    assert table_of(run).title == "Batch sizes, * is recommended"
    few = tune_run(
        cells, runs_of({each: [1, n] for n, each in enumerate(cells)}), default="default (10)"
    )
    assert sentences(few)[1].startswith(
        "With fewer than 3 repeats no setting can be told from another, so the default stays: "
        "500 was ahead with 2 (of 2 runs: 1 to 2) durable orders/s"
    )


def test_the_words_say_that_fresh_runs_brought_the_default_back() -> None:
    default = cell(10, named="default")
    first = {default: [90, 91, 92], cell(500): [100, 101, 102]}
    run = tune_run(list(first), runs_of(first), default=default.label)
    assert sentences(run)[0].startswith("Batch size 500: ")
    found = sentences(again(run, {default: [90, 91, 89], cell(500): [91, 89, 93]}))
    assert found[0].startswith("Batch size default (10): ")
    assert "fresh runs in turns do not show it faster: it had 1.01 times" in found[1]
    assert found[2].startswith("It held: 3 fresh runs had 0.99 times")


def test_sizes_that_no_batch_can_reach_are_named() -> None:
    tried = [
        cell(1_999),
        cell(2_000),
        cell(5_000),
        cell(2_000, delay_ms=1),
        cell(8_000, delay_ms=1),
    ]
    found = sentences(tune_run(tried, [run_of(each) for each in tried]))
    assert found[-1] == "With at most 2,000 orders in flight these cannot differ: 2,000; 5,000."
    small = tried[:2]
    assert "cannot differ" not in sentences(tune_run(small, [run_of(each) for each in small]))[-1]


@pytest.mark.parametrize(("size", "delay_ms"), [(500, 2.5), (100_000, 0), (50, 15_000 - 5_001)])
def test_a_recommendation_is_a_config_file_as_it_is(
    tmp_path: Path, size: int, delay_ms: float
) -> None:
    cells = [cell(size, delay_ms=delay_ms, named="a\nb")]
    text = recommended_toml(tune_run(cells, runs_of({cells[0]: [1, 2, 3]})))
    path = tmp_path / "recommended.toml"
    path.write_text(text)
    assert load_settings(path, {}, {}).batch == cells[0].batch
    assert "2026-04-01" in text
    assert MACHINE.cpu in text
    assert ("[queue]" in text) == (size == 100_000)
