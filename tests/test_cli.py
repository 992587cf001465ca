"""The command line as a user meets it: arguments in, exit code, stdout and stderr out."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import apsw
import msgspec
import pytest

from engine.cli import main
from engine.config import Settings
from loadtest.results import Run
from tests.runs import read_run
from tests.shell import Shell

SALE = ("--buyers", "400", "--stock", "60", "--limit-per-buyer", "2", "--duplicates", "0.1")


def simulate(shell: Shell, *more: str) -> int:
    return shell.run("simulate", *SALE, *more)


# -- help and version


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], ["simulate", "audit", "inspect"]),
        (["--help"], ["simulate", "audit", "inspect"]),
        (["simulate", "--help"], ["--popularity", "Zipf", "Examples", "The crowd", "Exit code 0"]),
        (["tune", "--help"], ["--batch-size", "--also", "Examples", "Exit code 0"]),
        (["audit", "--help"], ["--history", "Exit code 0"]),
        (["inspect", "--help"], ["--store-url"]),
    ],
)
def test_help_teaches(shell: Shell, arguments: Sequence[str], words: Sequence[str]) -> None:
    assert shell.run(*arguments) == 0
    assert [word for word in words if word not in shell.out] == []


def test_the_version_is_printed(shell: Shell) -> None:
    assert shell.run("--version") == 0
    assert shell.out.startswith("seckill 0.")


def test_help_loads_no_driver_and_no_numpy() -> None:
    script = (
        "import sys, engine.cli, json\n"
        "try: engine.cli.main(['simulate', '--help'])\n"
        "except SystemExit: sys.stderr.write(json.dumps(list(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    loaded = set(json.loads(done.stderr))
    assert "loadtest.options" in loaded
    assert not loaded & {"apsw", "numpy"}


# -- simulate


def test_a_sale_ends_with_tables_an_audit_and_run_json(shell: Shell) -> None:
    assert simulate(shell, "--out", "run", "--seed", "3") == 0
    assert "60 of 60 units sold in 60 of 400 orders" in shell.out
    assert "0 oversold, audit passed" in shell.out
    assert "repeats, same answer again" in shell.out
    assert "written: run/run.json" in shell.err
    run = read_run(shell.folder / "run")
    assert (run.seed, run.orders.accepted, run.orders.duplicate) == (3, 60, 40)
    assert (shell.folder / "run" / "sale.db").exists()


def test_json_is_run_json_and_nothing_else(shell: Shell) -> None:
    assert simulate(shell, "--out", "run", "--store-url", "memory:", "--json") == 0
    printed = msgspec.json.decode(shell.out, type=Run)
    assert printed == read_run(shell.folder / "run")
    assert shell.err == ""
    assert not (shell.folder / "run" / "sale.db").exists()


def test_a_store_that_ends_with_its_process_is_not_called_durable(shell: Shell) -> None:
    assert simulate(shell, "--out", "run", "--store-url", "memory:") == 0
    assert "orders stored, not durable" in shell.out
    assert "durable orders" not in shell.out


def test_without_out_a_run_gets_a_folder_named_by_the_time(shell: Shell) -> None:
    assert simulate(shell, "--store-url", "memory:") == 0
    (run,) = (shell.folder / "runs").iterdir()
    assert (run / "run.json").exists()


def test_flags_reach_the_engine_and_win_over_the_config(shell: Shell) -> None:
    config = shell.write(
        "my.toml", '[store]\nurl = "sqlite:my.db"\n[batch]\nsize_max = 7\n[queue]\ndepth_max = 900'
    )
    flags = ("--batch-size", "9", "--batch-delay-ms", "1.5", "--concurrency", "50")
    assert simulate(shell, "--config", config, "--out", "run", *flags) == 0
    settings = read_run(shell.folder / "run").config
    assert settings["batch"]["size_max"] == 9
    assert settings["batch"]["delay_ms_max"] == 1.5
    assert settings["queue"]["depth_max"] == 900
    assert settings["concurrency"] == 50
    assert (shell.folder / "my.db").exists()
    assert not (shell.folder / "run" / "sale.db").exists()


@pytest.mark.parametrize("config", ["embedded.toml", "article.toml"])
def test_the_shipped_configs_work_and_leave_the_store_to_the_run(shell: Shell, config: str) -> None:
    path = Path(__file__).parents[1] / "configs" / config
    assert simulate(shell, "--config", str(path), "--out", "run") == 0
    assert (shell.folder / "run" / "sale.db").exists()


def test_the_embedded_config_spells_out_the_defaults() -> None:
    import tomllib

    path = Path(__file__).parents[1] / "configs" / "embedded.toml"
    written = tomllib.loads(path.read_text())
    defaults = msgspec.json.decode(msgspec.json.encode(Settings()))
    del defaults["store"]["url"]
    assert written == defaults


ORDERS = "at,buyer,sku,quantity,command_id\n0,alice,PHONE,1,a1\n0.001,bob,PHONE,2,b1\n"


def test_a_recorded_sale_is_replayed(shell: Shell) -> None:
    path = shell.write("orders.csv", ORDERS + "0.002,bob,PHONE,2,b1\n")
    assert shell.run("simulate", "--orders", path, "--stock", "2", "--out", "run", "--json") == 0
    run = read_run(shell.folder / "run")
    assert (run.orders.accepted, run.orders.rejected_sold_out, run.orders.duplicate) == (1, 1, 1)
    assert run.seed is None
    assert run.config["workload"]["arrival"] == "recorded"


BAD_SIMULATIONS = {
    "negative stock": (["--stock", "-1"], "--stock must be from 0 to 1,000,000,000, got -1"),
    "huge stock": (["--stock", "10000000000"], "--stock must be from 0"),
    "no buyers": (["--buyers", "0"], "--buyers must be from 1 to 10,000,000, got 0"),
    "too many buyers": (["--buyers", "10000001"], "--buyers must be from 1"),
    "words": (["--buyers", "many"], "--buyers"),
    "too many orders": (["--buyers", "10000000", "--orders-per-buyer", "3"], "--orders-per-buyer"),
    "no skus": (["--skus", "0"], "--skus must be from 1 to 10,000, got 0"),
    "quantity zero": (["--quantity", "0"], "--quantity must be a number"),
    "quantity words": (["--quantity", "few"], "got 'few'"),
    "duplicates": (["--duplicates", "2"], "--duplicates must be from 0 to 1, got 2.0"),
    "not a number": (["--duplicates", "nan"], "--duplicates must be from 0 to 1, got nan"),
    "popularity": (["--popularity", "-1"], "--popularity must be from 0 to 10, got -1.0"),
    "infinite": (["--popularity", "inf"], "--popularity must be from 0 to 10, got inf"),
    "limit": (["--limit-per-buyer", "-1"], "--limit-per-buyer must be from 0"),
    "seed": (["--seed", "-1"], "--seed must be from 0"),
    "huge seed": (["--seed", str(2**64)], "--seed must be from 0"),
    "arrival": (["--arrival", "queue"], "--arrival"),
    "zero seconds": (["--arrival", "ramp", "--seconds", "0"], "--seconds must be from 0.001"),
    "seconds of a burst": (["--seconds", "3"], "--seconds needs --arrival poisson or ramp"),
    "concurrency": (["--concurrency", "0"], "--concurrency must be from 1 to 100,000, got 0"),
    "batch size": (["--batch-size", "0"], "--batch-size must be from 1 to 100,000, got 0"),
    "batch delay": (["--batch-delay-ms", "-1"], "--batch-delay-ms must be from 0 to 10,000"),
    "delay and deadline": (["--batch-delay-ms", "10000"], "batch.delay_ms_max must be below"),
    "store path": (["--store-url", "some.db"], "did you mean sqlite:some.db?"),
    "store kind": (["--store-url", "oracle:x"], "got 'oracle:x'"),
    "store in memory": (["--store-url", "sqlite::memory:"], "names no file; write sqlite:PATH"),
    "store by URI": (["--store-url", "sqlite:file:x.db"], "names no file; write sqlite:PATH"),
    "store folder": (["--store-url", "sqlite:none/x.db"], "none"),
    "store is a folder": (["--store-url", "sqlite:."], "directory"),
    "store is text": (["--store-url", "sqlite:plain.txt"], "plain.txt"),
    "no config": (["--config", "none.toml"], "none.toml: No such file"),
    "config typo": (["--config", "typo.toml"], "did you mean batch.size_max?"),
    "config value": (["--config", "value.toml"], "batch.size_max"),
    "config text": (["--config", "plain.txt"], "plain.txt is not valid TOML"),
    "out is a file": (["--out", "plain.txt"], "cannot be a folder: plain.txt is a file"),
    "out below a file": (["--out", "plain.txt/run"], "plain.txt is a file"),
    "out is finished": (["--out", "done"], "done already holds a finished run"),
    "out of the system": (["--out", "/proc/seckill-run"], "--out /proc/seckill-run"),
    "history folder": (["--history", "done"], "--history done is a folder"),
    "history nowhere": (["--history", "none/h.jsonl"], "there is no folder none"),
    "history of another kind": (["--history", "plain.txt"], "plain.txt"),
    "no orders": (["--orders", "none.csv"], "cannot read none.csv"),
    "orders kind": (["--orders", "plain.txt"], "--orders takes a .csv or .jsonl file"),
    "orders column": (["--orders", "column.csv"], "lacks the column command_id"),
    "orders row": (["--orders", "row.csv"], "row.csv row 3 (line 4): quantity must be from 1"),
    "orders buyer": (["--orders", "buyer.csv"], "row 3 (line 4): buyer must have 1 to 64"),
    "orders and buyers": (["--orders", "good.csv", "--buyers", "3"], "--buyers has no meaning"),
    "orders and seed": (["--orders", "good.csv", "--seed", "3"], "--seed has no meaning"),
    "orders and arrival": (["--orders", "good.csv", "--arrival", "ramp"], "only --arrival burst"),
    "unknown flag": (["--buyer", "3"], "--buyer"),
    "stray word": (["now"], "now"),
}


@pytest.mark.parametrize(
    ("arguments", "message"), BAD_SIMULATIONS.values(), ids=list(BAD_SIMULATIONS)
)
def test_bad_input_is_named_and_nothing_is_made(
    shell: Shell, arguments: list[str], message: str
) -> None:
    shell.write("plain.txt", "plain text\n")
    shell.write("typo.toml", "[batch]\nsize_mx = 5\n")
    shell.write("value.toml", "[batch]\nsize_max = 0\n")
    shell.write("good.csv", ORDERS)
    shell.write("column.csv", "at,buyer,sku,quantity\n0,alice,PHONE,1\n")
    shell.write("row.csv", ORDERS + "1,eve,PHONE,-1,e1\n")
    shell.write("buyer.csv", ORDERS + "1," + "x" * 10_240 + ",PHONE,1,e1\n")
    (shell.folder / "done").mkdir()
    shell.write("done/run.json", "{}")
    before = shell.files()
    assert shell.run("simulate", *arguments) == 2
    assert message in " ".join(shell.err.replace("│", " ").split())
    assert "Traceback" not in shell.err
    assert shell.out == ""
    assert shell.files() == before


def test_a_store_of_another_sale_is_refused(shell: Shell) -> None:
    assert simulate(shell, "--store-url", "sqlite:sale.db", "--out", "one") == 0
    assert simulate(shell, "--store-url", "sqlite:sale.db", "--out", "two", "--seed", "9") == 2
    assert "the store already holds SKU-1" in shell.err
    assert "choose another --store-url or --out" in shell.err
    assert not (shell.folder / "two").exists()


def test_an_unexpected_error_keeps_its_traceback(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr("loadtest.simulation.command.simulate", broken)
    with pytest.raises(ZeroDivisionError, match="a bug"):
        main(["simulate", "--out", "run"])


# -- audit and inspect


@pytest.fixture
def sold(shell: Shell) -> str:
    """The url of a store that two SKUs were sold from."""
    assert simulate(shell, "--skus", "2", "--out", "run", "--history", "run/history.jsonl") == 0
    return "sqlite:run/sale.db"


def tamper(sql: str) -> None:
    connection = apsw.Connection("run/sale.db")
    connection.execute(sql)
    connection.close()


def test_the_audit_of_an_honest_sale_passes(shell: Shell, sold: str) -> None:
    assert shell.run("audit", "--store-url", sold, "--history", "run/history.jsonl") == 0
    assert "Audit passed: 122 events, nothing wrong." in shell.out
    assert "nothing was oversold" in shell.out


@pytest.mark.parametrize("more", [[], ["--json"]])
def test_the_audit_of_a_tampered_store_fails(shell: Shell, sold: str, more: list[str]) -> None:
    tamper("UPDATE stock SET available = available + 1 WHERE sku = 'SKU-2'")
    assert shell.run("audit", "--store-url", sold, *more) == 1
    assert "'SKU-2': available is 1" in shell.out
    assert "Traceback" not in shell.err


def test_a_check_that_had_nothing_to_look_at_claims_no_proof(shell: Shell, sold: str) -> None:
    assert shell.run("audit", "--store-url", sold, "--history", "run/history.jsonl") == 0
    (line,) = [line for line in shell.out.splitlines() if "no failed order is stored" in line]
    assert line.split()[0] == "-"
    assert line.split()[-2:] == ["0", "orders"]


def test_an_acknowledged_order_that_the_store_lost_fails_the_audit(shell: Shell, sold: str) -> None:
    lines = (shell.folder / "run/history.jsonl").read_text().splitlines(keepends=True)
    invoked = '{"op":"invoke","id":"x","sku":"SKU-1","buyer":"eve","quantity":1,"at_us":1}\n'
    history = shell.write(
        "more.jsonl", "".join(lines) + invoked + '{"op":"ok","id":"x","at_us":2}\n'
    )
    assert shell.run("audit", "--store-url", sold, "--history", history) == 1
    assert "order 'x'" in shell.out
    assert "1 lost" in shell.out


def test_the_audit_as_json_is_valid_and_complete(shell: Shell, sold: str) -> None:
    assert shell.run("audit", "--store-url", sold, "--json") == 0
    report = json.loads(shell.out)
    assert report["ok"] is True
    assert report["checked_events"] == 122
    assert all(check["ok"] for check in report["checks"])


def test_inspect_shows_rows_streams_and_positions(shell: Shell, sold: str) -> None:
    assert shell.run("inspect", "--store-url", sold) == 0
    for words in ("SKU-1", "SKU-2", "stock SKU-1", "Partitions", "position", "version"):
        assert words in shell.out
    assert shell.run("inspect", "--store-url", sold, "--json") == 0
    view = json.loads(shell.out)
    assert [row["reserved"] for row in view["rows"]] == [60, 60]
    assert [stream["version"] for stream in view["streams"]] == [61, 61]
    (partition,) = view["partitions"]
    assert partition["events"] == 122
    assert partition["position"] == sum(stream["commits"] for stream in view["streams"])


def test_inspect_shows_the_last_events_of_a_sku(shell: Shell, sold: str) -> None:
    assert shell.run("inspect", "--store-url", sold, "SKU-2") == 0
    assert "version 61" in shell.out
    assert "reserved.1" in shell.out
    assert shell.run("inspect", "--store-url", sold, "SKU-2", "--json") == 0
    view = json.loads(shell.out)
    assert [version for version, _ in view["last_events"]] == [57, 58, 59, 60, 61]
    assert {event["type"] for _, event in view["last_events"]} == {"reserved.1"}
    assert view["row"]["reserved"] == 60
    assert shell.run("inspect", "--store-url", sold, "SKU-2", "--last", "2", "--json") == 0
    assert [version for version, _ in json.loads(shell.out)["last_events"]] == [60, 61]


def test_a_reader_who_has_seen_enough_ends_the_program_by_signal(sold: str) -> None:
    command = [
        sys.executable,
        "-c",
        "from engine.cli import main; main()",
        "audit",
        "--store-url",
        sold,
    ]
    reads, writes = os.pipe()
    os.close(reads)
    with os.fdopen(writes, "wb") as closed:
        done = subprocess.run(command, stdout=closed, stderr=subprocess.PIPE, check=False)
    assert (done.returncode, done.stderr) == (-signal.SIGPIPE, b"")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["audit"], "--store-url"),
        (["audit", "--store-url", "memory:"], "a memory: store ends with its process"),
        (["audit", "--store-url", "sqlite:none.db"], "none.db"),
        (["audit", "--store-url", "postgres:x"], "must be sqlite:PATH or mysql://"),
        (["audit", "--store-url", "sqlite:plain.txt"], "plain.txt"),
        (["audit", "--store-url", "URL", "--history", "none.jsonl"], "none.jsonl"),
        (["audit", "--store-url", "URL", "--history", "plain.txt"], "plain.txt"),
        (["inspect", "--store-url", "memory:"], "a memory: store ends with its process"),
        (["inspect", "--store-url", "sqlite:none.db"], "none.db"),
        (["inspect", "--store-url", "URL", "SKU-9"], "no SKU 'SKU-9' in this store; it has: SKU-1"),
        (["inspect", "--store-url", "URL", "x" * 10_240], "must have 1 to 64 characters"),
    ],
)
def test_what_cannot_be_read_is_named(
    shell: Shell, sold: str, arguments: list[str], message: str
) -> None:
    shell.write("plain.txt", "plain text\n")
    before = shell.files()
    assert shell.run(*(sold if each == "URL" else each for each in arguments)) == 2
    assert message in " ".join(shell.err.replace("│", " ").split())
    assert "Traceback" not in shell.err
    assert shell.out == ""
    assert shell.files() == before
