"""What is named on the command line is found, or the answer says what could have been named."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from engine.errors import ConfigError
from loadtest.comparison.arguments import read_entries
from loadtest.results import AuditResult, write_run
from loadtest.wrong import NotProven
from tests.loadtest.published import cell, strategies, tuned, write_simulated

THREE = [1.0, 2.0, 3.0]


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b", "c"):
        write_simulated(tmp_path / name, THREE)
    write_run(tmp_path / "tune", tuned({cell(10): THREE, cell(10, 5): THREE}))
    write_run(tmp_path / "one-cell", tuned({cell(10): THREE}))
    rates = strategies({("group-commit", 0): THREE, ("row-lock", 4): THREE})
    write_run(tmp_path / "strategies", rates)
    return tmp_path


def names(*arguments: str) -> list[str]:
    return [each.name for each in read_entries(arguments)]


@pytest.mark.usefixtures("runs")
@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        (["a", "b"], ["a", "b"]),
        (["b/run.json", "a"], ["b", "a"]),
        (["tune:10/5ms", "tune/run.json:10"], ["tune:10/5ms", "tune:10"]),
        (["a", "strategies:row-lock", "one-cell"], ["a", "strategies:row-lock", "one-cell:10"]),
        (["a,b", "c"], ["a +1", "c"]),
        (["a,tune:10", "b,c"], ["a +1", "b +1"]),
        (["tune"], ["10", "10/5ms"]),
        (["strategies/run.json"], ["group-commit", "row-lock"]),
    ],
)
def test_an_argument_names_an_entry(arguments: list[str], found: list[str]) -> None:
    assert names(*arguments) == found


def test_a_folder_whose_name_looks_like_several_is_one(runs: Path) -> None:
    write_simulated(runs / "x,y:z", THREE)
    assert names("x,y:z", "a") == ["x,y:z", "a"]


def test_folders_of_one_name_are_called_as_they_were_typed(runs: Path) -> None:
    write_simulated(runs / "old" / "a", THREE)
    assert names("old/a", "a", "b") == ["old/a", "a", "b"]
    (first, _) = read_entries(["b,old/a", "a"])
    assert [each.name for each in first.origins] == ["b", "old/a"]


def test_a_folder_by_another_way_is_the_same_folder(runs: Path) -> None:
    (runs / "link").symlink_to(runs / "a")
    for other in (str(runs / "a"), "b/../a", "link"):
        with pytest.raises(ConfigError, match="is named twice; counted twice"):
            read_entries(["a", other])


def test_many_folders_may_be_joined(runs: Path) -> None:
    folders = [f"a-folder-with-a-long-name-{number}" for number in range(30)]
    for folder in folders:
        write_simulated(runs / folder, [1.0])
    first, _ = read_entries([",".join(folders), "a"])
    assert len(first.samples) == 30


@pytest.mark.usefixtures("runs")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "a comparison takes two results or more"),
        (["a"], "a comparison takes two results or more, or one folder .*; a is one"),
        (["tune:10"], "tune:10 is one"),
        (["one-cell"], "one-cell:10 is one"),
        (["a", "missing"], "cannot read missing: No such file"),
        (["missing"], "cannot read missing: No such file"),
        (["a", "missing:10"], "cannot read missing: No such file"),
        (["a", "."], "cannot read run.json: No such file"),
        (["a", "tune"], "tune holds several entries; take one as tune:NAME, of 10, 10/5ms"),
        (["a", "tune:5"], "tune has no entry '5'; it has 10, 10/5ms"),
        (["a", "tune:"], "take one as tune:NAME, of 10"),
        (["a", "strategies:rowlock"], "no entry 'rowlock'; it has group-commit, row-lock"),
        (["a:10", "b"], "a holds one run, which has no name: leave :10 out"),
        (["a,,b", "c"], "the name of a result is missing"),
        (["a", ""], "the name of a result is missing"),
        (["a", "a"], "a is named twice; counted twice it would look surer"),
        (["a,b,a", "c"], "a is named twice"),
        (["a,b", "b/run.json"], "b/run.json is named twice"),
        (["tune:10", "./tune:10"], "./tune:10 is named twice"),
        (["a" * 300, "b"], "File name too long"),
    ],
)
def test_what_cannot_be_compared_is_named(arguments: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_entries(arguments)


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"\xff", b'"\xff"', b'{"schema": 1, "kind": "\xff"}']
)
def test_what_is_no_result_is_named(runs: Path, content: bytes) -> None:
    (runs / "a" / "run.json").write_bytes(content)
    with pytest.raises(ConfigError, match=re.escape("a/run.json is not a result of a run")):
        read_entries(["a", "b"])


def test_a_folder_that_holds_no_runs_is_named(runs: Path) -> None:
    write_run(runs / "empty", tuned({cell(10): THREE, cell(20): THREE}))
    content = (runs / "empty" / "run.json").read_text()
    start = content.index('"cells"')
    (runs / "empty" / "run.json").write_text(content[:start] + '"cells": []}')
    with pytest.raises(ConfigError, match="empty holds no runs"):
        read_entries(["empty", "a"])


def test_a_run_whose_audit_failed_is_refused(runs: Path) -> None:
    bad = AuditResult(False, 1, 0, 0, 0, 5, ("SKU-1 oversold by 1",))
    write_simulated(runs / "bad", THREE, audit=bad)
    for arguments in (["bad", "a"], ["a", "b", "bad"], ["a", "b,bad"]):
        with pytest.raises(NotProven, match=r"figures mean nothing: .*SKU-1 oversold by 1"):
            read_entries(arguments)


def test_a_repeat_that_sold_nothing_has_no_throughput(runs: Path) -> None:
    write_simulated(runs / "nothing", [1.0, 0.0, 2.0])
    with pytest.raises(ConfigError, match="nothing has a repeat without any durable order"):
        read_entries(["a", "nothing"])
