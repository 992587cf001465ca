"""`seckill tune` as a user meets it."""

from __future__ import annotations

import json

import pytest

from tests.shell import Shell

TUNE = ("--seconds", "0.05", "--concurrency", "20", "--out", "tuned")


def test_tuning_ends_with_a_table_a_plot_and_every_run(shell: Shell) -> None:
    shell.write("article.toml", "[batch]\nsize_max = 50\ndelay_ms_max = 50\n")
    more = ("--batch-size", "1,100", "--repeats", "2", "--also", "article.toml")
    assert shell.run("tune", *TUNE, *more) == 0, shell.err
    for label in ("1", "100", "default (8,190)", "article (50 / 50 ms)"):
        assert any(line.startswith(f"{label} ") for line in shell.out.splitlines())
    assert sorted(shell.files()) == [
        "article.toml", "tuned", "tuned/README.md", "tuned/batch-size.svg", "tuned/run.json",
    ]  # fmt: skip
    run = json.loads(shell.files()["tuned/run.json"])
    assert run["kind"] == "tune"
    assert [len(each["repeats"]) for each in run["cells"]] == [2] * 4
    assert run["checked_events"] > 0


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
