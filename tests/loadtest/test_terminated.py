"""A comparison that is told to end leaves nothing behind on the server."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from engine.testing.mariadb_server import MariadbServer
from tests.architecture.source_tree import ROOT
from tests.polling import pause

COMMANDS = {
    "tune": ["tune", "--seconds", "60"],
    "baselines": ["simulate", "--strategies", "row-lock", "--buyers", "1000000"],
    "group commit": [
        *["simulate", "--strategies", "group-commit"],
        *["--buyers", "3000000", "--stock", "3000000"],
    ],
}


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("command", COMMANDS)
def test_the_scratch_database_is_dropped(
    mariadb: MariadbServer,
    mariadb_url: str,
    tmp_path: Path,
    command: str,
    number: signal.Signals,
    code: int,
) -> None:
    scratch = f"{mariadb_url.rpartition('/')[2]}_scratch"
    run_cli = "from engine.cli import main; main()"
    where = ["--store-url", mariadb_url, "--out", str(tmp_path / "out")]
    program = subprocess.Popen(
        [sys.executable, "-c", run_cli, *COMMANDS[command], *where],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    while not _is_selling(mariadb, scratch):
        assert program.poll() is None, program.communicate()
        pause()
    program.send_signal(number)
    _, errors = program.communicate(timeout=60)
    assert scratch not in mariadb.execute("SHOW DATABASES").split()
    assert "Traceback" not in errors
    assert program.returncode == code, errors
    assert not (tmp_path / "out").exists()


def _is_selling(server: MariadbServer, database: str) -> bool:
    try:
        tables = server.execute("SHOW TABLES", database).split()
        table = "commits" if "commits" in tables else "baseline_orders"
        return int(server.execute(f"SELECT COUNT(*) FROM {table}", database)) > 10
    except RuntimeError:
        return False  # It is not there yet.
