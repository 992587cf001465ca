"""Strategies are compared on one server with the same orders, and every run is checked."""

from __future__ import annotations

import json
from io import StringIO
from pathlib import Path

import msgspec
import pytest
from redis import Redis
from rich.console import Console

from engine.errors import ConfigError
from engine.testing.mariadb_server import MariadbServer
from loadtest.reports.strategies import report_strategies
from loadtest.results import STRATEGIES, Strategy
from loadtest.strategies.report import cells_of, summarise, table_of, write
from loadtest.strategies.strategies import (
    CONNECTIONS,
    StrategyRun,
    parse_connections,
    parse_strategies,
)
from tests.loadtest.published import strategies
from tests.shell import Shell


def run_of(strategy: Strategy, rate: float, **more: int) -> StrategyRun:
    run = StrategyRun(
        strategy=strategy,
        connections=4,
        accepted=10,
        refused=0,
        failed=0,
        accepted_per_s=rate,
        durable_per_s=rate,
        p50_ms=1.0,
        p99_ms=2.0,
        seconds=1.0,
        oversold=0,
        lost=0,
        stopped_early=False,
    )
    return msgspec.structs.replace(run, **more)


def test_names_are_read_in_the_order_of_the_table() -> None:
    assert parse_strategies("all") == STRATEGIES
    assert parse_strategies("all", redis=False) == STRATEGIES[:-1]
    assert parse_strategies("queue, group-commit,queue") == ("group-commit", "queue")
    for wrong in ("", "row-locks", "all,queue"):
        with pytest.raises(ConfigError, match="--strategies takes all or some of group-commit"):
            parse_strategies(wrong)


def test_a_ratio_compares_repeats_of_the_same_turn() -> None:
    runs = [
        run_of("group-commit", 100.0),
        run_of("row-lock", 10.0),
        run_of("group-commit", 300.0, lost=1),
        run_of("row-lock", 20.0, oversold=2),
    ]
    ours, theirs = summarise(runs)
    assert ours.ratio is not None
    assert theirs.ratio is not None
    assert (ours.ratio.low, ours.ratio.median, ours.ratio.high) == (10.0, 12.5, 15.0)
    assert theirs.ratio.median == 1.0
    assert (ours.durable_per_s.median, ours.lost, theirs.oversold) == (200.0, 1, 2)
    assert summarise(runs[:1])[0].ratio is None


def test_the_fastest_pool_size_counts_and_every_run_must_be_right() -> None:
    runs = [
        run_of("row-lock", 10.0, connections=4),
        run_of("row-lock", 30.0, connections=8),
        run_of("row-lock", 20.0, connections=16, lost=1),
    ]
    (summary,) = summarise(runs)
    assert (summary.connections, summary.durable_per_s.median, summary.lost) == (8, 30.0, 1)
    assert len(summary.repeats) == 3


@pytest.mark.parametrize("repeats", [1, 2])
def test_fewer_than_three_repeats_have_no_interval(tmp_path: Path, repeats: int) -> None:
    run = strategies(
        {("group-commit", 0): [200.0, 300.0][:repeats], ("row-lock", 4): [10.0, 10.0][:repeats]}
    )
    ours = run.strategies[0]
    assert not any("(" in cell for cell in cells_of(ours, " "))
    assert table_of(run).caption == "Too few repeats for an interval: that takes 3."
    write(run, tmp_path)
    assert "without an interval: that takes 3" in (tmp_path / "README.md").read_text()
    words = {1: "in one run, too few for an interval", 2: "in two runs, too few for an interval"}
    assert f"times the best row lock {words[repeats]}." in report_strategies(run).headline


def test_three_repeats_have_an_interval_everywhere(tmp_path: Path) -> None:
    run = strategies({("group-commit", 0): [200.0, 210.0, 190.0], ("row-lock", 4): [10.0] * 3})
    assert sum("(" in cell for cell in cells_of(run.strategies[0], " ")) == 2
    assert "20.0 times the best row lock (" in report_strategies(run).headline
    assert table_of(run).caption is None
    write(run, tmp_path)
    assert "with their 95 % interval" in (tmp_path / "README.md").read_text()


@pytest.mark.parametrize("width", [80, 100, 200])
def test_no_figure_of_the_table_is_cut(width: int) -> None:
    run = strategies(
        {
            ("group-commit", 0): [103_234.0, 123_456.0, 118_888.0],
            ("row-lock", 4): [5_000.0, 5_210.0, 5_105.0],
            ("select-for-update", 64): [4_000.0, 4_210.0, 4_105.0],
        }
    )
    console = Console(width=width, record=True, file=StringIO())
    console.print(table_of(run, width))
    text = console.export_text()
    columns = text.splitlines()[1].split("  ")
    assert "…" not in text
    assert ("accepted/s" in text, "pool" in text) == (width > 80, width > 80)
    assert {"strategy", "durable/s", "x row-lock", "p99 ms", "oversold", "lost", "failed"} <= {
        each.strip() for each in columns
    }
    for each in run.strategies:
        for cell in (f"{each.durable_per_s.median:,.0f}", f"{each.durable_per_s.high:,.0f})"):
            assert cell in text


def test_a_comparison_prints_a_table_and_leaves_the_server_as_it_was(
    shell: Shell,
    mariadb: MariadbServer,
    mariadb_url: str,
    redis_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("loadtest.strategies.strategies.CONNECTIONS", (2, 4))
    before = mariadb.execute("SHOW DATABASES")
    Redis.from_url(redis_url).flushall()
    arguments = ["--strategies", "all", "--repeats", "1", "--store-url", mariadb_url]
    arguments += ["--buyers", "300", "--stock", "100", "--concurrency", "50", "--out", "compared"]
    arguments += ["--redis-url", redis_url]
    assert shell.run("simulate", *arguments) == 0, shell.err
    for name in STRATEGIES:
        assert name in shell.out
    assert mariadb.execute("SHOW DATABASES") == before
    assert Redis.from_url(redis_url).keys() == []
    run = json.loads((shell.folder / "compared" / "run.json").read_text())
    assert [each["strategy"] for each in run["strategies"]] == list(STRATEGIES)
    for each in run["strategies"]:
        sizes = [repeat["connections"] for repeat in each["repeats"]]
        assert sizes == ([0] if each["strategy"] == "group-commit" else [2, 4])
        for repeat in each["repeats"]:
            assert (repeat["accepted"], repeat["refused"]) == (100, 200)
        assert (each["oversold"], each["lost"], each["failed"]) == (0, 0, 0)
        assert each["durable_per_s"]["median"] > 0
    assert "| group-commit | - |" in (shell.folder / "compared" / "README.md").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--strategies", "all"], "give a mysql:// --store-url"),
        (["--strategies", "fast", "--store-url", "URL"], "--strategies takes all or some of"),
        (
            ["--strategies", "all", "--store-url", "URL", "--limit-per-buyer", "2"],
            "the baselines know no --limit-per-buyer",
        ),
        (
            ["--strategies", "all", "--store-url", "URL", "--history", "h.jsonl"],
            "--history goes with a single run",
        ),
        (
            ["--strategies", "redis-lua", "--store-url", "URL"],
            "redis-lua needs a server: --redis-url",
        ),
        (
            ["--strategies", "redis-lua", "--store-url", "URL", "--redis-url", "nowhere"],
            "--redis-url: ",
        ),
        (["--repeats", "2"], "--repeats goes with --strategies"),
        (["--redis-url", "redis://h"], "--redis-url goes with --strategies"),
    ],
)
def test_what_cannot_be_compared_is_named_and_nothing_is_made(
    shell: Shell, mariadb_url: str, arguments: list[str], message: str
) -> None:
    given = [mariadb_url if each == "URL" else each for each in arguments]
    assert shell.run("simulate", "--out", "compared", *given) == 2
    assert message in shell.err
    assert shell.files() == {}


def test_a_user_who_may_not_create_databases_is_told(
    shell: Shell, mariadb: MariadbServer, mariadb_url: str
) -> None:
    database = mariadb_url.rpartition("/")[2]
    mariadb.execute(
        "CREATE USER IF NOT EXISTS small@'%' IDENTIFIED BY 'pw';"
        f"GRANT ALL ON `{database}`.* TO small@'%'"
    )
    url = mariadb.url(database, "small", "pw")
    code = shell.run("simulate", "--strategies", "row-lock", "--store-url", url, "--out", "x")
    assert code == 2
    assert f"user small may not create the database {database}_scratch" in shell.err
    assert "pw" not in shell.err
    assert not Path("x").exists()


@pytest.mark.parametrize("text", ["", "0", "1001", "4,x", "4,,8", "4;8", "-1", "1.5", "٤"])
def test_pool_sizes_out_of_range_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"--connections takes whole numbers from 1 to 1,000"):
        parse_connections(text)


def test_pool_sizes_are_tried_once_each() -> None:
    assert parse_connections("4, 16,4") == (4, 16)
    assert parse_connections(None) == CONNECTIONS
