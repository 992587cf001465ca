"""A simulation that is killed loses no acknowledged order, and the same command goes on."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from engine.cli import main
from tests.polling import pause
from tests.runs import read_run

SALE = [
    "simulate",
    "--buyers",
    "20000",
    "--skus",
    "2",
    "--stock",
    "6000",
    "--duplicates",
    "0.05",
    "--seed",
    "7",
    "--concurrency",
    "300",
    "--out",
    "run",
    "--history",
    "run/history.jsonl",
    "--json",
]

NOTES_BYTES_MIN = 400_000
"""About a tenth of the whole history: in the middle of the sale, whatever the machine's speed."""


def run(*arguments: str) -> int | str | None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    return caught.value.code


def test_a_killed_sale_is_audited_and_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    history = tmp_path / "run" / "history.jsonl"
    program = [sys.executable, "-c", "from engine.cli import main; main()", *SALE]
    with subprocess.Popen(program, cwd=tmp_path, stdout=subprocess.DEVNULL) as process:
        while not (history.exists() and history.stat().st_size > NOTES_BYTES_MIN):
            assert process.poll() is None, "the sale ended before it could be killed"
            pause()
        process.kill()
    assert not (tmp_path / "run" / "run.json").exists()
    audit = ("audit", "--store-url", "sqlite:run/sale.db", "--history", "run/history.jsonl")
    assert run(*audit) == 0, capfd.readouterr().out
    assert "every acknowledged order is stored" in capfd.readouterr().out

    assert run(*SALE) == 0, capfd.readouterr().out
    result = read_run(tmp_path / "run")
    assert result.orders.offered == 21_000
    assert result.orders.failed == result.orders.unknown == 0
    assert result.audit.ok
    assert run(*audit) == 0, capfd.readouterr().out
