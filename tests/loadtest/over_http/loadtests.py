"""`seckill loadtest` as a process of its own, in a session of its own like on a terminal."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from tests.architecture.source_tree import ROOT
from tests.polling import pause

END_SECONDS_MAX = 120.0


class LoadTestProcess:
    """One command; its results are in `out`."""

    def __init__(self, folder: Path, name: str, arguments: list[str], env: dict[str, str]) -> None:
        self.out = folder / name
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("SECKILL", "LOCUST"))}
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-c", "from engine.cli import main; main()", "loadtest"),
                *(f"--out={self.out}", *arguments),
            ],
            cwd=folder,
            env={**kept, "PYTHONPATH": str(ROOT), "COLUMNS": "200", **env},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.printed = self.errors = ""

    def wait(self) -> int:
        self.printed, self.errors = self.process.communicate(timeout=END_SECONDS_MAX)
        return self.process.returncode

    def wait_for_log(self, text: str) -> None:
        """Until Locust has logged it. Raises AssertionError when the command ends before."""
        log = self.out / "locust.log"
        self.wait_until(lambda: log.exists() and text in log.read_text(errors="replace"))

    def wait_until(self, come: Callable[[], bool]) -> None:
        while not come():
            assert self.process.poll() is None, self.process.communicate()
            pause()

    def tell(self, number: signal.Signals) -> None:
        """Give a signal to all that a terminal gives it to: the command and its children."""
        os.killpg(self.process.pid, number)

    def record(self) -> dict[str, Any]:
        """run.json"""
        found: dict[str, Any] = msgspec.json.decode((self.out / "run.json").read_bytes())
        return found

    def processes(self) -> list[str]:
        """What still runs in its folder of results: the server, Locust, workers of Locust."""
        return [
            cmdline for cmdline, folder in running() if folder == self.out or self.out in folder.parents
        ]  # fmt: skip

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()


def running() -> Iterator[tuple[str, Path]]:
    """The arguments of every process that may be looked at, and the folder it is in."""
    for each in Path("/proc").iterdir():
        if each.name.isdecimal():
            try:
                yield (each / "cmdline").read_text(errors="replace"), (each / "cwd").readlink()
            except OSError:
                continue  # It has ended.


@contextmanager
def load_test(
    folder: Path, *arguments: str, name: str = "out", **environment: str
) -> Iterator[LoadTestProcess]:
    """A command for the block, killed at its end if it still runs."""
    found = LoadTestProcess(folder, name, list(arguments), environment)
    try:
        yield found
    finally:
        found.end()


def check_equal(run: dict[str, Any]) -> None:
    """The buyers' counts and the shop's are equal, the audit passed, all orders have an answer."""
    assert run["kind"] == "locust"
    assert run["audit"]["ok"]
    orders = run["orders"]
    assert orders["unknown"] == orders["failed"] == 0
    refused = sum(count for name, count in orders.items() if name.startswith("rejected_"))
    assert orders["offered"] == orders["accepted"] + refused + orders["duplicate"]
    assert orders["accepted"] > 0
    seconds = run["timeline"]
    assert sum(each["accepted"] for each in seconds) == orders["accepted"]
