"""`seckill loadtest` as a user meets it: a real server, a real crowd, a result that is proven."""

from __future__ import annotations

import os
import signal
from contextlib import ExitStack
from pathlib import Path

import pytest

from engine.testing.mariadb_server import MariadbServer
from tests.loadtest.over_http.loadtests import LoadTestProcess, check_equal, load_test, running
from tests.service.serving import served
from tests.shell import Shell

SHORT = ("--users=20", "--duration=2s", "--think-seconds=0.1")
LONG = ("--users=20", "--duration=600s")
ADMIN_SECRET, SHOP_SECRET = "secret-of-the-operator-3141", "secret-of-the-shop-27182"

TOKEN_KEY = "key-of-the-tokens-1618033988749894848"


def test_a_load_test_ends_with_a_proof_figures_and_files(tmp_path: Path) -> None:
    sale = ("--skus=3", "--stock=200", "--quantity=1-3", "--hold-seconds=60")
    with load_test(tmp_path, *SHORT, *sale) as test:
        assert test.wait() == 0, test.errors
    run = test.record()
    check_equal(run)
    assert run["orders"]["rejected_sold_out"] > 0
    assert run["orders"]["duplicate"] > 0
    assert run["payments"]["paid"] > 0
    assert run["batches"]["count"] > 0
    assert run["latency_ms"]["p99"] >= run["latency_ms"]["p50"] > 0
    assert run["timeline"][0]["at_seconds"] == 0
    files = {each.name for each in test.out.iterdir()}
    assert {
        *("run.json", "sale.db", "books.json", "latency.hlog", "latency.hgrm"),
        *("locust.html", "locust.log", "locust_stats.csv", "locust_stats_history.csv"),
    } <= files
    assert "audit passed, counts of buyers and store equal" in test.printed
    assert "run.json" in test.errors
    assert test.processes() == []


def test_load_tests_with_several_processes_run_side_by_side(tmp_path: Path) -> None:
    with ExitStack() as stack:
        tests = [
            stack.enter_context(load_test(tmp_path, *SHORT, "--processes=2", name=name))
            for name in ("one", "two")
        ]
        assert [each.wait() for each in tests] == [0, 0], [each.errors for each in tests]
    for each in tests:
        check_equal(each.record())
        assert each.processes() == []


def test_lists_and_a_timetable_are_repeated_on_new_stores(tmp_path: Path) -> None:
    with ExitStack() as stack:
        lists = ("--mix=list:1", "--list-size=50", "--repeats=2", "--json")
        timed = ("--rate=150", "--shape=wave")
        # What a run that was killed left behind is no reason to refuse the next one.
        (tmp_path / lists[0][2:6] / "repeat-1").mkdir(parents=True)
        tests = [
            stack.enter_context(load_test(tmp_path, *SHORT, *flags, name=flags[0][2:6]))
            for flags in (lists, timed)
        ]
        assert [each.wait() for each in tests] == [0, 0], [each.errors for each in tests]
    listed, waved = (each.record() for each in tests)
    check_equal(listed)
    check_equal(waved)
    assert listed["orders"]["offered"] % 50 == 0
    assert len(listed["repeats"]) == 2
    assert not (tests[0].out / "sale.db").exists()
    assert waved["config"]["workload"]["per_second"] == 150


def test_a_running_server_with_tokens_is_loaded_and_its_secrets_are_told_to_nobody(
    tmp_path: Path,
) -> None:
    secrets = {
        "SECKILL_AUTH__ADMIN_SECRET": ADMIN_SECRET,
        "SECKILL_AUTH__SHOP_SECRET": SHOP_SECRET,
    }
    (tmp_path / "server").mkdir()
    with served(
        tmp_path / "server",
        auth__mode="token",
        auth__token_key=TOKEN_KEY,
        auth__admin_secret=ADMIN_SECRET,
        auth__shop_secret=SHOP_SECRET,
    ) as server:
        target = [f"--host={server.public}", "--sku-prefix=MINE", "--processes=2"]
        target.append("--mix=buyer:2,impatient:1,list:1")
        with load_test(tmp_path, *SHORT, *target, **secrets) as test:
            test.wait_for_log("All users spawned")
            lines = [line for line, folder in running() if "locustfile" in line]
            everybody = "\n".join(line for line, _ in running())
            assert test.wait() == 0, test.errors
        with load_test(tmp_path, *SHORT, *target, name="again", **secrets) as again:
            assert again.wait() == 2
    assert lines
    run = test.record()
    check_equal(run)
    assert run["payments"]["paid"] > 0
    printed = everybody + test.printed + test.errors
    for each in test.out.rglob("*"):
        printed += each.read_bytes().decode(errors="replace")
    assert ADMIN_SECRET not in printed
    assert SHOP_SECRET not in printed
    assert "MINE-1 is there already" in again.errors
    assert not again.out.exists()


@pytest.mark.parametrize("processes", ["1", "2"])
def test_ctrl_c_ends_a_load_test_early_and_in_good_order(tmp_path: Path, processes: str) -> None:
    with load_test(tmp_path, *LONG, f"--processes={processes}") as test:
        test.wait_for_log("All users spawned")
        test.tell(signal.SIGINT)
        assert test.wait() == 130, test.errors
    run = test.record()
    assert run["stopped_early"]
    check_equal(run)
    assert "Stopped early" in test.printed
    assert "Traceback" not in test.errors
    assert test.processes() == []


def test_ctrl_c_before_anything_was_sent_is_no_failure(tmp_path: Path) -> None:
    with load_test(tmp_path, *LONG) as test:
        test.wait_until((test.out / "locust.log").exists)
        test.tell(signal.SIGINT)
        assert test.wait() == 130, test.errors
    assert test.record()["orders"]["offered"] == 0
    assert test.processes() == []


def test_a_second_ctrl_c_waits_for_nobody(tmp_path: Path) -> None:
    (tmp_path / "server").mkdir()
    with ExitStack() as stack:
        server = stack.enter_context(served(tmp_path / "server"))
        test = stack.enter_context(load_test(tmp_path, *LONG, f"--host={server.public}"))
        test.wait_for_log("All users spawned")
        server.pause()
        test.tell(signal.SIGINT)
        # It waits for its users now, who wait for the server.
        test.wait_for_log("Shape test completed")
        test.tell(signal.SIGINT)
        assert test.wait() == 130, test.errors
    assert "Traceback" not in test.errors
    assert not (test.out / "run.json").exists()
    assert test.processes() == []


def test_sigterm_ends_a_load_test_and_all_its_processes(tmp_path: Path) -> None:
    with load_test(tmp_path, *LONG, "--processes=2") as test:
        test.wait_for_log("All users spawned")
        test.process.send_signal(signal.SIGTERM)
        assert test.wait() == 143, test.errors
    assert "Traceback" not in test.errors
    assert not (test.out / "run.json").exists()
    assert test.processes() == []


@pytest.mark.parametrize(("number", "code"), [(None, 0), (signal.SIGTERM, 143)])
def test_the_scratch_database_is_dropped(
    mariadb: MariadbServer,
    mariadb_url: str,
    tmp_path: Path,
    number: signal.Signals | None,
    code: int,
) -> None:
    length = SHORT if number is None else LONG
    with load_test(tmp_path, *length, f"--store-url={mariadb_url}") as test:
        test.wait_for_log("All users spawned")
        if number is not None:
            test.process.send_signal(number)
        assert test.wait() == code, test.errors
    name = mariadb_url.rpartition("/")[2]
    assert f"{name}_scratch" not in mariadb.execute("SHOW DATABASES").split()
    assert mariadb.execute("SHOW TABLES", name) == ""
    if number is None:
        check_equal(test.record())


OUT_OF_RANGE = {
    "--users": ("0", "20001"),
    "--spawn-rate": ("0", "20001"),
    "--rate": ("-1", "nan"),
    "--list-size": ("0", "10001"),
    "--think-seconds": ("-0.1", "inf"),
    "--processes": ("0", "65"),
    "--stock": ("-1",),
    "--skus": ("0", "10001"),
    "--limit-per-buyer": ("-1",),
    "--hold-seconds": ("-1",),
    "--buyers": ("0",),
    "--popularity": ("-1", "nan"),
    "--pay-rate": ("1.1", "nan"),
    "--seed": ("-1",),
    "--repeats": ("0", "101"),
    "--batch-size": ("0",),
    "--batch-delay-ms": ("-1",),
}

BAD_INPUT = {
    **{
        f"{flag} {value}": ([flag, value], flag)
        for flag, values in OUT_OF_RANGE.items()
        for value in values
    },
    "connections": (["--users", "5000"], "--users 5,000 is more connections than"),
    "duration": (["--duration", "soon"], "--duration must be whole seconds from 1s to 24h, such as 20s or 5m"),
    "short": (["--duration", "0.5s"], "--duration must be whole seconds from 1s"),
    "long": (["--duration", "25h"], "--duration must be whole seconds from 1s"),
    "shape": (["--shape", "square"], "'square' is not one of"),
    "mix": (["--mix", "seller:1"], "--mix takes buyer, list, reader, impatient"),
    "nobody": (["--mix", "buyer:0"], "--mix must have a weight above 0"),
    "quantity": (["--quantity", "0"], "--quantity must be a number"),
    "more processes than users": (["--users", "2", "--processes", "3"], "at most --users, got 3"),
    "host and store": (
        ["--host", "http://127.0.0.1:1", "--store-url", "sqlite:x.db"],
        "--store-url does not go with --host",
    ),
    "host and repeats": (
        ["--host", "http://127.0.0.1:1", "--repeats", "2"],
        "--repeats does not go with --host",
    ),
    "no URL": (["--host", "localhost:8080"], "--host must be like http://127.0.0.1:8080"),
    "admin without host": (["--admin-url", "http://127.0.0.1:1"], "--admin-url goes with --host"),
    "nobody there": (["--host", "http://127.0.0.1:1"], "cannot be reached"),
    "finished": (["--out", "done"], "done already holds a finished run"),
    "a file": (["--out", "file"], "--out file cannot be a folder"),
    "store in memory": (["--store-url", "memory:"], "a store in memory"),
    "store that is there": (["--store-url", "sqlite:file"], "file is there already"),
    "sale that is there": (["--out", "left"], "left/sale.db is there already"),
    "no config": (["--config", "none.toml"], "none.toml"),
    "no folder": (["--store-url", "sqlite:none/x.db"], "--store-url none/x.db: there is no folder"),
    "store of nobody": (["--store-url", "oracle:x"], "--store-url must be sqlite:PATH or mysql://"),
}  # fmt: skip


@pytest.mark.parametrize(("arguments", "message"), BAD_INPUT.values(), ids=list(BAD_INPUT))
def test_what_cannot_be_run_is_named_and_nothing_is_made(
    shell: Shell, arguments: list[str], message: str
) -> None:
    for folder in ("done", "left"):
        (shell.folder / folder).mkdir()
    for name in ("done/run.json", "left/sale.db", "file"):
        shell.write(name, "{}")
    before = shell.files()
    code = shell.run("loadtest", "--duration", "1s", *arguments)
    assert message in " ".join(shell.err.replace("│", " ").split())
    assert code == 2
    assert "Traceback" not in shell.err
    assert shell.out == ""
    assert shell.files() == before
    assert os.getcwd() == str(shell.folder)


def _process(test: LoadTestProcess, words: str) -> int:
    """The oldest process of a load test whose arguments hold `words`."""
    found = [
        int(each.name)
        for each in Path("/proc").iterdir()
        if each.name.isdecimal() and words in _arguments(each) and str(test.out) in _folder(each)
    ]
    return min(found)


def _arguments(process: Path) -> str:
    try:
        return (process / "cmdline").read_text(errors="replace")
    except OSError:
        return ""


def _folder(process: Path) -> str:
    try:
        return str((process / "cwd").readlink())
    except OSError:
        return ""


def test_a_server_that_dies_is_told_and_its_store_is_audited(tmp_path: Path) -> None:
    with load_test(tmp_path, "--users=20", "--duration=4s", "--think-seconds=0") as test:
        test.wait_for_log("All users spawned")
        os.kill(_process(test, "serve"), signal.SIGKILL)
        assert test.wait() == 1
        run = test.record()
    assert any("the server was there to the end" in each for each in run["audit"]["findings"])
    assert run["audit"]["checked_events"] > 0
    # What it had taken and not answered is in doubt; nobody was told what is not so.
    assert run["orders"]["failed"] == 0
    assert "the server was there to the end" in test.printed


def test_a_run_that_somebody_else_ended_is_no_whole_one(tmp_path: Path) -> None:
    with load_test(tmp_path, *LONG) as test:
        test.wait_for_log("All users spawned")
        os.kill(_process(test, "locustfile"), signal.SIGTERM)
        assert test.wait() == 130, test.errors
        assert test.record()["stopped_early"]
