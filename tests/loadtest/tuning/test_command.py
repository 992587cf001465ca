"""`seckill tune` as a user meets it."""

from __future__ import annotations

import json

import pytest

from tests.shell import Shell

TUNE = ("--seconds", "0.05", "--warmup-seconds", "0.02", "--concurrency", "20", "--out", "tuned")


def test_tuning_ends_with_a_table_a_plot_and_every_run(shell: Shell) -> None:
    shell.write("article.toml", "[batch]\nsize_max = 50\ndelay_ms_max = 50\n")
    more = ("--batch-size", "1,100", "--repeats", "2", "--also", "article.toml")
    assert shell.run("tune", *TUNE, *more) == 0, shell.err
    for label in ("1", "100", "default (8,190)", "article (50 / 50 ms)"):
        assert any(line.startswith(f"{label} ") for line in shell.out.splitlines())
    assert sorted(shell.files()) == [
        "article.toml", "tuned", "tuned/README.md",
        "tuned/latency-20.svg", "tuned/recommended.toml", "tuned/report.html", "tuned/run.json",
        "tuned/throughput-20.svg", "tuned/tune.jsonl",
    ]  # fmt: skip
    run = json.loads(shell.files()["tuned/run.json"])
    assert run["kind"] == "tune"
    assert [len(each["repeats"]) for each in run["cells"]] == [2] * 4
    assert run["checked_events"] > 0
    # The choice and, unless it is that, the default, three fresh runs each.
    assert {len(each["repeats"]) for each in run["confirmed"]} == {3}
    # Two first runs have no interval that it could hold.
    assert run["recommendation"]["held"] is None
    assert " fresh runs had " in shell.out
    assert "Batch size " in shell.out
    assert " of about 0.7 s: about " in shell.err


def test_the_recommended_settings_sell(shell: Shell) -> None:
    few = ("--batch-size", "1,100", "--repeats", "1", "--confirm", "0")
    assert shell.run("tune", *TUNE, *few) == 0, shell.err
    batch = json.loads(shell.files()["tuned/run.json"])["recommendation"]["batch"]
    sale = ("--config", "tuned/recommended.toml", "--buyers", "50", "--out", "sale")
    assert shell.run("simulate", *sale) == 0, shell.err
    assert json.loads(shell.files()["sale/run.json"])["config"]["batch"] == batch


def test_without_a_setting_that_holds_the_condition_nothing_is_recommended(shell: Shell) -> None:
    impossible = ("--batch-size", "10", "--repeats", "1", "--p99-ms-max", "0.001")
    assert shell.run("tune", *TUNE, *impossible) == 0, shell.err
    assert "so none is recommended" in " ".join(shell.out.split())
    assert "tuned/recommended.toml" not in shell.files()
    run = json.loads(shell.files()["tuned/run.json"])
    assert (run["recommendation"]["holds"], run["confirmed"]) == (False, [])


def test_several_concurrencies_are_tried_over_http_and_searched(shell: Shell) -> None:
    http = ("--driver", "http", "--search", "--repeats", "2", "--confirm", "0")
    few = ("--seconds", "0.05", "--warmup-seconds", "0.05", "--concurrency", "2,4")
    assert shell.run("tune", *few, *http, "--batch-size", "1,2,4", "--out", "tuned") == 0, shell.err
    run = json.loads(shell.files()["tuned/run.json"])
    assert (run["config"]["driver"], run["config"]["concurrency"]) == ("http", [2, 4])
    assert sorted(len(each["repeats"]) for each in run["cells"]) == [1, 1, 1, 1, 2, 2, 2, 2]
    assert len(run["dropped"]) == 2
    assert shell.err.count("dropped ") == 2


def test_tuning_prints_json_and_nothing_else(shell: Shell) -> None:
    assert shell.run("tune", *TUNE, "--batch-size", "10", "--repeats", "1", "--json") == 0
    assert json.loads(shell.out) == json.loads(shell.files()["tuned/run.json"])


BAD_TUNINGS = {
    "no number": (["--batch-size", "1,many"], "--batch-size takes numbers from 1 to 100,000"),
    "half an order": (["--batch-size", "1.5"], "--batch-size takes whole numbers, got 1.5"),
    "no size": (["--batch-size", ""], "--batch-size takes numbers"),
    "size zero": (["--batch-size", "0,1"], "--batch-size must be from 1 to 100,000, got 0"),
    "infinite": (["--batch-size", "inf"], "--batch-size"),
    "delay": (["--batch-delay-ms", "-1"], "--batch-delay-ms must be from 0 to 10,000"),
    "delay and deadline": (["--batch-delay-ms", "10000"], "batch.delay_ms_max must be below"),
    "repeats": (["--repeats", "0"], "--repeats must be from 1 to 100, got 0"),
    "seconds": (["--seconds", "0"], "--seconds must be from 0.001"),
    "skus": (["--skus", "0"], "--skus must be from 1 to 10,000"),
    "concurrency": (["--concurrency", "0"], "--concurrency must be from 1 to 100,000"),
    "no such file": (["--also", "none.toml"], "none.toml: No such file"),
    "a typo": (["--also", "typo.toml"], "did you mean batch.size_max?"),
    "twice": (["--also", "a.toml", "--also", "a.toml"], "would be tried twice"),
    "store": (["--store-url", "oracle:x"], "got 'oracle:x'"),
    "concurrencies": (["--concurrency", "50,many"], "--concurrency takes numbers from 1"),
    "half a buyer": (["--concurrency", "1.5"], "--concurrency takes whole numbers, got 1.5"),
    "too many cells": (
        ["--concurrency", ",".join(map(str, range(1, 22)))],
        "at most 200 at a time",
    ),
    "driver": (["--driver", "wrk"], "--driver must be one of inproc, http, locust; got 'wrk'"),
    "lists": (["--list-size", "5"], "--list-size needs --driver http"),
    "aim": (["--aim", "latency"], "--aim must be one of throughput; got 'latency'"),
    "condition": (["--p99-ms-max", "0"], "--p99-ms-max must be from 0.001"),
    "warm-up": (["--warmup-seconds", "-1"], "--warmup-seconds must be from 0 to 600"),
    "confirm": (["--confirm", "-1"], "--confirm must be from 0 to 100"),
    "search once": (["--search", "--repeats", "1"], "--search needs --repeats of 2 or more"),
    "batch and queue": (["--batch-size", "70000"], "must not be above queue.depth_max"),
    "out is finished": (["--out", "done"], "done already holds a finished run"),
}


@pytest.mark.parametrize(("arguments", "message"), BAD_TUNINGS.values(), ids=list(BAD_TUNINGS))
def test_what_cannot_be_tuned_is_named_and_nothing_is_made(
    shell: Shell, arguments: list[str], message: str
) -> None:
    shell.write("typo.toml", "[batch]\nsize_mx = 5\n")
    shell.write("a.toml", "[batch]\nsize_max = 5\n")
    (shell.folder / "done").mkdir()
    shell.write("done/run.json", "{}")
    before = shell.files()
    assert shell.run("tune", *arguments) == 2
    assert message in " ".join(shell.err.replace("│", " ").split())
    assert "Traceback" not in shell.err
    assert shell.out == ""
    assert shell.files() == before
