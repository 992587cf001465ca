"""Results of every kind are brought into one form, old files as well."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
import pytest

from loadtest.comparison.entries import Entry, entries_of, joined
from loadtest.reading import TYPES, read_result
from loadtest.results import AuditResult, Strategy
from tests.architecture.source_tree import ROOT
from tests.loadtest.published import cell, strategies, tuned, write_simulated
from tests.loadtest.test_results import RUN

RESULTS = ROOT / "results"
PUBLISHED = [
    path
    for path in sorted(RESULTS.glob("*/run.json"))
    if msgspec.json.decode(path.read_bytes())["kind"] in TYPES
]
FILE = Path("runs/one/run.json")


def simulated(folder: Path, rates: Sequence[float], **changes: object) -> Entry:
    write_simulated(folder, rates, **changes)
    (entry,) = entries_of(read_result(folder), folder / "run.json").values()
    return entry


@pytest.mark.parametrize("file", PUBLISHED, ids=lambda path: path.parent.name)
def test_every_published_result_has_entries_with_figures(file: Path) -> None:
    found = entries_of(read_result(file), file)
    assert found
    for key, each in found.items():
        assert each.name == (f"{file.parent.name}:{key}" if key else file.parent.name)
        assert each.samples
        assert 0 < each.p50_ms <= each.p99_ms
        assert each.durable_per_s > 0
        assert not each.wrong


def test_what_a_published_table_says_is_what_its_entries_say() -> None:
    """Medians of the entries are those that the experiment itself worked out."""
    for file in PUBLISHED:
        content = msgspec.json.decode(file.read_bytes())
        summaries = content.get("cells") or content.get("strategies") or []
        found = list(entries_of(read_result(file), file).values())
        for summary, entry in zip(summaries, found, strict=bool(summaries)):
            assert entry.durable_per_s == summary["durable_per_s"]["median"]
            assert entry.p99_ms == summary["p99_ms"]


def test_a_single_run_is_its_own_repeat(tmp_path: Path) -> None:
    entry = simulated(tmp_path, [7.0])
    assert (entry.rates, entry.durable_per_s, entry.samples[0].turn) == ([7.0], 7.0, None)
    assert (entry.p50_ms, entry.p99_ms, entry.p999_ms) == (1, 3, 4)
    assert (entry.size_mean, entry.closed_by) == (5.0, {"idle": 2})


def test_every_repeat_of_a_run_is_a_sample(tmp_path: Path) -> None:
    assert simulated(tmp_path, [7.0, 9.0, 8.0]).rates == [7.0, 9.0, 8.0]


def test_a_run_without_batches_has_no_shape_of_them(tmp_path: Path) -> None:
    empty = msgspec.structs.replace(RUN.batches, count=0, size_mean=0.0, closed_by={})
    entry = simulated(tmp_path, [7.0], batches=empty)
    assert (entry.size_mean, entry.closed_by) == (None, None)


def test_an_audit_that_found_something_makes_the_entry_wrong(tmp_path: Path) -> None:
    bad = AuditResult(False, 1, 0, 0, 0, 5, ("SKU-1 oversold by 1",))
    assert simulated(tmp_path, [7.0], audit=bad).wrong == "its audit failed: SKU-1 oversold by 1"


def test_one_wrong_repeat_makes_the_entry_wrong(tmp_path: Path) -> None:
    write_simulated(tmp_path, [7.0, 8.0, 9.0])
    content = (tmp_path / "run.json").read_text()
    head, tail = content.rsplit('"ok": true', 1)
    (tmp_path / "run.json").write_text(f'{head}"ok": false{tail}')
    (entry,) = entries_of(read_result(tmp_path), FILE).values()
    assert entry.wrong == "its audit failed"


def test_settings_are_named_so_that_they_can_be_typed() -> None:
    cells = [cell(1_000), cell(1_000, 5), cell(50, 0.5), cell(50, 50, "my,article")]
    found = entries_of(tuned({each: [1.0, 2.0, 3.0] for each in cells}), FILE)
    assert list(found) == ["1000", "1000/5ms", "50/0.5ms", "my_article"]
    assert found["1000/5ms"].name == "one:1000/5ms"
    assert found["1000"].size_mean == 4.0
    assert [each.turn for each in found["1000"].samples] == [1, 2, 3]


def test_settings_that_differ_in_concurrency_are_named_by_it() -> None:
    cells = [cell(10, concurrency=50), cell(10, concurrency=200), cell(10, 0, "10", 50)]
    cells.append(cell(10, 1, "10", 50))
    found = entries_of(tuned({each: [1.0] for each in cells}), FILE)
    assert list(found) == ["10@50", "10@200", "10@50#2", "10@50#3"]
    assert [each.origins[0].settings["concurrency"] for each in found.values()] == [
        *(50, 200, 50, 50)
    ]


def test_a_cell_of_an_older_file_has_the_concurrency_of_its_experiment() -> None:
    (entry,) = entries_of(tuned({cell(10): [1.0]}), FILE).values()
    assert entry.origins[0].settings["concurrency"] == 50
    assert entry.origins[0].settings["batch"]["size_max"] == 10


def test_a_setting_that_was_never_run_is_no_entry() -> None:
    run = tuned({cell(10): [1.0], cell(20): [2.0]})
    unrun = msgspec.structs.replace(run.cells[1], repeats=[])
    assert list(entries_of(msgspec.structs.replace(run, cells=[run.cells[0], unrun]), FILE)) == [
        "10"
    ]


RATES: Mapping[tuple[Strategy, int], Sequence[float]] = {
    ("group-commit", 0): [100.0, 110.0, 120.0],
    ("row-lock", 4): [5.0, 5.0, 5.0],
    ("row-lock", 8): [10.0, 11.0, 12.0],
}


def test_a_strategy_is_compared_at_its_best_pool_size() -> None:
    found = entries_of(strategies(RATES), FILE)
    assert list(found) == ["group-commit", "row-lock"]
    assert found["row-lock"].rates == [10.0, 11.0, 12.0]
    assert [each.turn for each in found["row-lock"].samples] == [1, 2, 3]
    assert found["row-lock"].origins[0].settings["connections"] == 8
    assert "batch" not in found["row-lock"].origins[0].settings
    assert "batch" in found["group-commit"].origins[0].settings


@pytest.mark.parametrize("what", ["oversold", "lost", "failed"])
def test_a_strategy_must_be_right_with_every_pool_size(what: str) -> None:
    slow_is_last: dict[tuple[Strategy, int], Sequence[float]] = {**RATES, ("row-lock", 16): [1.0]}
    found = entries_of(strategies(slow_is_last, **{what: 3}), FILE)
    assert found["row-lock"].wrong.startswith("3 ")
    assert what in found["row-lock"].wrong
    assert not found["group-commit"].wrong


def test_joined_entries_are_repeats_of_one(tmp_path: Path) -> None:
    entries = [simulated(tmp_path / f"a{n}", [float(n)]) for n in (1, 2, 3)]
    one = joined(entries)
    assert (one.name, one.rates, one.strategy) == ("a1 +2", [1.0, 2.0, 3.0], "group-commit")
    assert [each.name for each in one.origins] == ["a1", "a2", "a3"]
    assert (one.size_mean, one.closed_by, one.p999_ms) == (5.0, {"idle": 6}, 4)
    assert joined(entries[:1]) is entries[0]


def test_joined_with_one_that_noted_less_they_know_less(tmp_path: Path) -> None:
    (cell_,) = entries_of(tuned({cell(10): [5.0, 6.0]}), FILE).values()
    one = joined([simulated(tmp_path, [7.0]), cell_])
    assert (one.closed_by, one.p999_ms, one.size_mean) == (None, None, 4.5)
    assert [each.turn for each in one.samples] == [None] * 3


def test_joined_with_a_wrong_one_they_are_wrong(tmp_path: Path) -> None:
    bad = AuditResult(False, 1, 0, 0, 0, 5)
    wrong = simulated(tmp_path / "a1", [7.0], audit=bad)
    assert joined([simulated(tmp_path / "a2", [7.0]), wrong]).wrong == "its audit failed"
