"""`seckill compare` as a user meets it: a table, a sentence each, warnings, an exit code."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from loadtest.comparison.comparing import Comparison
from loadtest.results import AuditResult, write_run
from tests.architecture.source_tree import ROOT
from tests.loadtest.published import cell, strategies, tuned, write_simulated
from tests.loadtest.test_results import RUN
from tests.shell import Shell

RESULTS = ROOT / "results"
STRICT = RESULTS / "strategies-2026-11-23-c9e53728-strict"
TUNED = RESULTS / "tune-2026-11-23-c32affa9-mariadb"

BASE, SAME = [100.0, 99.0, 102.0], [101.0, 98.0, 100.0]
SLOW, FAST = [80.0, 81.0, 79.0], [150.0, 151.0, 149.0]


@pytest.fixture
def lab(shell: Shell) -> Shell:
    for name, rates in (("base", BASE), ("same", SAME), ("slow", SLOW), ("fast", FAST)):
        write_simulated(shell.folder / name, rates)
    for number, rate in enumerate(FAST, 1):
        write_simulated(shell.folder / f"once{number}", [rate])
    return shell


def test_a_table_and_a_sentence_for_each(lab: Shell) -> None:
    assert lab.run("compare", "base", "fast", "same", "slow") == 0
    assert lab.err == ""
    lines = [" ".join(line.split()) for line in lab.out.splitlines()]
    assert lines[1:4] == [
        "entry durable/s x base p50 ms p99 ms p99.9 ms mean batch closed by repeats",
        "base 100 base 1.0 3.0 4.0 5.0 idle 100 % 3",
        "fast 150 1.50 (1.30 to 1.71) 1.0 3.0 4.0 5.0 idle 100 % 3",
    ]
    assert "fast: 1.50 times the throughput of base (1.30 to 1.71)" in lines
    assert "same: no difference shown, 1.00 times the throughput of base (0.87 to 1.14)" in lines
    assert "slow: 0.80 times the throughput of base (0.70 to 0.91)" in lines
    assert any(each.startswith("Medians of the repeats; ratios with") for each in lines)


def test_too_few_repeats_show_no_difference_and_the_way_to_more(lab: Shell) -> None:
    assert lab.run("compare", "base", "once1") == 0
    assert "it takes 3 repeats of each, and this has 1 and base 3" in " ".join(lab.out.split())
    assert "--repeats, or from folders joined by commas: a1,a2,a3" in " ".join(lab.out.split())


def test_joined_folders_are_repeats_of_one(lab: Shell) -> None:
    assert lab.run("compare", "base", "once1,once2,once3") == 0
    assert "once1 +2: 1.50 times the throughput of base" in lab.out


@pytest.mark.parametrize("columns", [80, 120])
@pytest.mark.parametrize("folder", [STRICT, TUNED], ids=lambda path: path.name)
def test_a_published_experiment_is_a_table_that_fits(
    shell: Shell, folder: Path, columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    assert shell.run("compare", str(folder)) == 0
    assert max(map(len, shell.out.splitlines())) <= columns
    assert "…" not in shell.out
    assert "compared turn by turn" in shell.out
    assert "one in twenty may" in " ".join(shell.out.split())
    assert shell.err == ""
    if folder is STRICT:
        assert "row-lock: 0.0178 times the throughput of group-commit" in shell.out
        assert "closed by" not in shell.out
    else:
        assert "1000: 165 times the throughput of 1 (" in shell.out


@pytest.mark.parametrize("columns", [80, 120])
def test_long_names_stand_below_the_table(
    shell: Shell, columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    many = msgspec.structs.replace(RUN.batches, closed_by={"size": 3, "delay": 2, "idle": 5})
    for name in ("before", "after"):
        write_simulated(shell.folder / f"a-folder-with-a-long-name-{name}", BASE, batches=many)
    assert shell.run("compare", *sorted(map(str, shell.folder.iterdir()))) == 0
    table = shell.out[: shell.out.index("A  a-folder")].splitlines()
    assert max(map(len, table)) <= columns
    assert "A  a-folder-with-a-long-name-after: the base" in shell.out
    assert "times the throughput of A (" in " ".join(shell.out.split())
    for reason in ("idle 50 %", "size 30 %", "delay 20 %"):
        assert reason in shell.out


def test_what_differs_is_warned_of_on_stderr(lab: Shell) -> None:
    write_simulated(lab.folder / "dirty", BASE, commit="fedcba9876543210+dirty", stopped_early=True)
    assert lab.run("compare", "base", "dirty") == 0
    assert lab.err.splitlines() == [
        "warning: dirty was stopped before all its orders were sent",
        "warning: the commit differs: fedcba987654+dirty (dirty), else 0123456789ab",
        "warning: files differed from the commit: what was measured cannot be told apart (dirty)",
    ]


def test_json_is_the_comparison_and_nothing_else(lab: Shell) -> None:
    write_simulated(lab.folder / "other", FAST, commit="fedcba9876543210")
    assert lab.run("compare", "base", "other", "once1", "--json") == 0
    found = msgspec.json.decode(lab.out, type=Comparison)
    assert found.base == "base"
    assert [each.verdict for each in found.entries] == ["base", "faster", "too few repeats"]
    assert [f"warning: {each}" for each in found.warnings] == lab.err.splitlines()


@pytest.mark.parametrize(
    ("limit", "other", "code"),
    [
        ("0.95", "slow", 1),
        ("0.81", "slow", 1),
        ("0.79", "slow", 0),
        ("1", "slow", 1),
        ("0.95", "same", 0),
        ("1", "same", 0),
        ("0.95", "fast", 0),
    ],
)
def test_fail_below_fails_what_is_shown_to_be_below(
    lab: Shell, limit: str, other: str, code: int
) -> None:
    assert lab.run("compare", "base", other, "--fail-below", limit) == code
    assert "Comparison" in lab.out
    told = f"below {limit}: slow: 0.80 times the throughput of base (0.70 to 0.91)\n"
    assert lab.err.endswith(told) == (code == 1)


@pytest.mark.parametrize("arguments", [("base", "once1"), ("once1", "base")])
def test_fail_below_without_enough_repeats_is_bad_input(
    lab: Shell, arguments: tuple[str, ...]
) -> None:
    assert lab.run("compare", *arguments, "--fail-below", "0.95") == 2
    assert lab.out == ""
    assert "--fail-below takes 3 repeats of every entry, and once1 has 1; repeats come" in lab.err


@pytest.mark.parametrize("limit", ["0", "-1", "1.01", "nan", "inf"])
def test_a_limit_out_of_range_is_bad_input(lab: Shell, limit: str) -> None:
    assert lab.run("compare", "base", "slow", "--fail-below", limit) == 2
    assert "--fail-below must be above 0 and at most 1" in lab.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["base"], "a comparison takes two results or more"),
        (["base", "missing"], "cannot read missing: No such file"),
        (["base", "fast:x"], "leave :x out"),
        ([str(STRICT), "base"], "NAME, of group-commit, row-lock"),
        ([f"{STRICT}:none", "base"], "has no entry 'none'; it has group-commit, row-lock"),
    ],
)
def test_bad_input_is_named(lab: Shell, arguments: list[str], message: str) -> None:
    assert lab.run("compare", *arguments) == 2
    assert message in lab.err
    assert lab.out == ""


def test_nothing_named_is_bad_input(lab: Shell) -> None:
    assert lab.run("compare") == 2


def test_a_failed_audit_is_refused(lab: Shell) -> None:
    bad = AuditResult(False, 1, 0, 0, 0, 5, ("SKU-1 oversold by 1",))
    write_simulated(lab.folder / "bad", FAST, audit=bad)
    assert lab.run("compare", "base", "bad") == 1
    assert lab.out == ""
    assert "bad is not compared, its figures mean nothing: its audit failed: SKU-1" in lab.err


def test_a_strategy_that_lost_orders_refuses_its_experiment(lab: Shell) -> None:
    run = strategies({("group-commit", 0): BASE, ("row-lock", 4): SLOW}, lost=1)
    write_run(lab.folder / "lossy", run)
    assert lab.run("compare", "lossy") == 1
    assert "row-lock is not compared, its figures mean nothing: 1 orders lost" in lab.err


def test_markup_in_a_name_is_only_a_name(lab: Shell) -> None:
    write_run(lab.folder / "t", tuned({cell(1, named="[red]x[/red]"): BASE, cell(2): BASE}))
    assert lab.run("compare", "t") == 0
    assert lab.out.count("[red]x[/red]") == 2  # In the table and in the sentence of the other.


def test_help_teaches(shell: Shell) -> None:
    assert shell.run("compare", "--help") == 0
    words = ("--fail-below", "--json", "FOLDER:NAME", "Examples", "Exit code 0")
    assert [word for word in words if word not in shell.out] == []
