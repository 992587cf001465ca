"""What an experiment writes says what was seen, and its recommendation can be used as it is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

import msgspec
import pytest

from engine.config import load_settings
from loadtest.reading import read_result
from loadtest.tuning.experiment import Cell, CellRun
from loadtest.tuning.page import table_of, write
from loadtest.tuning.recommend import recommend, standings
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
    cells: Sequence[Cell], runs: Sequence[CellRun], p99_ms_max: float | None = None
) -> TuneRun:
    return TuneRun(
        started_at="2026-04-01T20:00:00+00:00",
        commit="0123456789abcdef+dirty",
        seed=1,
        machine=MACHINE,
        config=CONFIG,
        checked_events=10,
        cells=summarise(cells, runs),
        recommendation=recommend(standings(cells, runs), p99_ms_max),
    )


def test_the_report_shows_every_run_and_every_name(tmp_path: Path) -> None:
    cells = [cell(1), cell(10), cell(1_000), cell(50, named="article", delay_ms=50.0)]
    runs = [run_of(each, n, 100.0 * n) for each in cells for n in (1, 2)]
    run = tune_run(cells, runs)
    assert write(run, tmp_path / "out") == ["throughput-2000.svg", "latency-2000.svg"]
    page = (tmp_path / "out" / "README.md").read_text()
    assert "commit 0123456789ab+dirty" in page
    assert "| article (50 / 50 ms) | 150 | 100 to 200 |" in page
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
    assert "| 10 | 2,000 | 100 |" in page
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
