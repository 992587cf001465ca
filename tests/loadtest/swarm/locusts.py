"""Locust as a process, as a test starts it: by hand, with the flags of the test."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from loadtest.over_http.process import LOCUSTFILE
from loadtest.swarm.books import Outcomes, Page
from tests.architecture.source_tree import ROOT

END_SECONDS_MAX = 90.0


class Locust:
    """One process; `errors` is what it wrote to stderr."""

    def __init__(self, directory: Path, name: str, arguments: list[str], **env: str) -> None:
        self.books_file = directory / f"{name}.json"
        self.log = directory / f"{name}.log"
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("SECKILL", "LOCUST"))}
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "locust", f"--locustfile={LOCUSTFILE}"),
                    *(f"--books={self.books_file}", "--exit-code-on-error=0", *arguments),
                ],
                cwd=directory,
                env={**kept, "PYTHONPATH": str(ROOT), **env},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
            )

    @property
    def errors(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")

    def wait(self) -> int:
        return self.process.wait(END_SECONDS_MAX)

    def page(self) -> Page:
        """The books of a run that has ended well."""
        assert self.wait() == 0, self.errors
        return msgspec.json.decode(self.books_file.read_bytes(), type=Page)

    def end(self) -> None:
        """Kill it and all its workers."""
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.process.wait(END_SECONDS_MAX)
        assert self.process.stdout is not None
        self.process.stdout.close()


@contextmanager
def locust(
    directory: Path, *arguments: str, name: str = "locust", **environment: str
) -> Iterator[Locust]:
    """A process for the block, killed at its end if it still runs."""
    found = Locust(directory, name, list(arguments), **environment)
    try:
        yield found
    finally:
        found.end()


def headless(url: str, mix: str, *more: str, users: int = 1, seconds: float = 1) -> list[str]:
    """The flags of a short run without a web page. It waits for the last answers of its users.

    With `seconds` 0 it goes on until it is told to end.
    """
    return [
        *("--headless", "--only-summary", f"--host={url}", f"--users={users}"),
        *(f"--spawn-rate={users}", "--stop-timeout=30"),
        *([f"--run-time={seconds:g}s"] if seconds else []),
        *("--shape=flash", f"--mix={mix}", "--order-prefix=t", "--think-seconds=0", *more),
    ]


def run(
    directory: Path, url: str, mix: str, *more: str, users: int = 1, seconds: float = 1
) -> Page:
    """The books of a short run."""
    with locust(directory, *headless(url, mix, *more, users=users, seconds=seconds)) as process:
        return process.page()


def ended(found: Outcomes) -> int:
    """Orders and repeats that ended in one way or another; each that was sent did."""
    return found.decided + found.unknown + found.failed
