"""A sale with holds, payments and carts that is killed five times accounts for every unit.

Every unit of a hold that nobody paid comes back, none early, and no payment counts twice.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest

from engine.cli import main
from tests.polling import pause
from tests.runs import read_run

KILLS = 5
SEED = 20_26
STOCK = 400
SKUS = 3


def sale(url: str) -> list[str]:
    return [
        *("simulate", "--buyers", "2500", "--skus", str(SKUS), "--stock", str(STOCK)),
        *("--hold-seconds", "2", "--pay-rate", "0.6", "--late-payments", "0.1"),
        *("--cart-size", "1-3", "--arrival", "poisson", "--seconds", "2"),
        *("--duplicates", "0.05", "--seed", "7", "--store-url", url),
        *("--out", "run", "--history", "run/history.jsonl", "--json"),
    ]


def run(*arguments: str) -> int | str | None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    return caught.value.code


@pytest.fixture(params=["sqlite", "mysql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:{tmp_path / 'sale.db'}"
    url = str(request.getfixturevalue("mariadb_url"))
    assert run("init", "--store-url", url) == 0
    return url


def kill_in_the_middle(program: list[str], place: Path, notes_bytes: int) -> None:
    """Start the sale and kill it once so many bytes more are noted in its history."""
    history = place / "run" / "history.jsonl"
    before = history.stat().st_size if history.exists() else 0
    with subprocess.Popen(program, cwd=place, stdout=subprocess.DEVNULL) as process:
        while not (history.exists() and history.stat().st_size > before + notes_bytes):
            assert process.poll() is None, "the sale ended before it could be killed"
            pause()
        process.kill()


def test_a_sale_with_holds_survives_five_kills(
    url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = sale(url)
    program = [sys.executable, "-c", "from engine.cli import main; main()", *arguments]
    # About 250 bytes are noted of an order; a quarter to all of the orders are sent by then.
    points = random.Random(SEED)
    for _ in range(KILLS):
        kill_in_the_middle(program, tmp_path, points.randrange(60_000, 300_000))
        assert run("audit", "--store-url", url, "--history", "run/history.jsonl") == 0, (
            capfd.readouterr().out
        )
    assert not (tmp_path / "run" / "run.json").exists()

    assert run(*arguments) == 0, capfd.readouterr().out
    result = read_run(tmp_path / "run")
    assert result.orders.failed == result.orders.unknown == 0
    assert result.audit.ok
    assert result.payments is not None
    payments = result.payments
    assert payments.paid + payments.too_late + payments.left == result.orders.accepted
    assert payments.left
    assert payments.too_late
    capfd.readouterr()
    assert run("audit", "--store-url", url, "--history", "run/history.jsonl", "--json") == 0
    report = json.loads(capfd.readouterr().out)
    checked = {each["name"]: each["checked"] for each in report["checks"]}
    assert checked["every hold ended once at most, and none before its time"] > KILLS
