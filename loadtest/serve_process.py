"""`seckill serve` as a process that is started, asked, paused, killed and started again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Final

import msgspec

from engine.auth_settings import DEFAULT_ADMIN_SECRET
from engine.config import ENVIRONMENT_PREFIX
from engine.testing.ports import HeldPort
from engine.testing.processes import end, pause, resume
from loadtest.http_processes import ROOT, SERVER, STOP_SECONDS_MAX
from loadtest.settings import as_environment
from loadtest.shop_client import ShopClient

START_SECONDS_MAX: Final = 60.0
POLL_SECONDS: Final = 0.05
ASK_SECONDS_MAX: Final = 5.0
LOG_BYTES_SHOWN: Final = 2_000
LOOPBACK: Final = "127.0.0.1"


class NotStarted(RuntimeError):
    """A process ended (with `code`), or was not ready in time (None). The message has its log's end."""

    def __init__(self, message: str, code: int | None = None) -> None:
        super().__init__(message)
        self.code = code


class Served(msgspec.Struct):
    """A partition that takes commands, and the node that owns it."""

    partition: int
    owner: str


class Readiness(msgspec.Struct):
    """What a process says at /readyz, as far as it is of interest here."""

    ready: bool
    partitions: int
    served: list[Served]
    reason: str = ""


class ServeProcess:
    """`seckill serve` in a process of its own; started again, it keeps its ports and its name.

    `settings` are dotted keys on top of those of `config`. It ends with the program that started it,
    even when that is killed.
    """

    def __init__(
        self,
        name: str,
        directory: Path,
        config: Path,
        role: str | None,
        settings: Mapping[str, object] | None = None,
    ) -> None:
        self.name = name
        self._ports = HeldPort(), HeldPort()
        self.log = directory / f"{name}.log"
        self._directory = directory
        self._arguments = ["serve", *(["--role", role] if role else []), "--config", str(config)]
        self._settings = {
            "service.log_format": "json",
            **(settings or {}),
            "service.port": self._ports[0].number,
            "service.admin_port": self._ports[1].number,
        }
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://{LOOPBACK}:{self._ports[0].number}"

    @property
    def admin_url(self) -> str:
        return f"http://{LOOPBACK}:{self._ports[1].number}"

    @property
    def pid(self) -> int:
        assert self._process is not None, f"{self.name} is not running"
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether it was started and has not ended; also while it is paused."""
        return self._process is not None and self._process.poll() is None

    @property
    def shop(self) -> ShopClient:
        """The operator's requests to this process."""
        return ShopClient(self.url, self.admin_url, DEFAULT_ADMIN_SECRET)

    def start(self) -> None:
        """Start it, and do not wait until it is ready."""
        assert not self.running, f"{self.name} is running"
        self._forget()
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-c", SERVER, *self._arguments],
                cwd=self._directory,
                env=environment(self._settings),
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                # Ctrl-C is for who started it, who ends it then.
                start_new_session=True,
            )

    def wait_ready(self, seconds_max: float = START_SECONDS_MAX) -> Readiness:
        """Ask until it is ready. Raises NotStarted."""
        return self.wait_until(lambda found: found.ready, "is not ready", seconds_max)

    def wait_until(
        self, good: Callable[[Readiness], bool], otherwise: str, seconds_max: float
    ) -> Readiness:
        """Ask until what it says is `good`. Raises NotStarted, which tells what is so `otherwise`."""
        for _ in self._polls(seconds_max):
            found = self.readiness()
            if found is not None and good(found):
                return found
        raise NotStarted(f"{self.name} {otherwise}:\n{self.log_tail()}")

    def readiness(self) -> Readiness | None:
        """What it says of itself, None when it does not answer."""
        connection = HTTPConnection(LOOPBACK, self._ports[1].number, timeout=ASK_SECONDS_MAX)
        try:
            connection.request("GET", "/readyz")
            return msgspec.json.decode(connection.getresponse().read(), type=Readiness)
        except (OSError, HTTPException, msgspec.DecodeError):
            return None
        finally:
            connection.close()

    def close(self) -> None:
        """Kill it and give its ports back; it is not started again."""
        self.kill()
        for each in self._ports:
            each.release()

    def kill(self) -> None:
        """End it as a power failure would: kill -9. Returns when it is gone."""
        self._end(signal.SIGKILL)

    def terminate(self) -> int:
        """Let it answer who is there and close, and return its exit code; killed after a time."""
        return self._end(signal.SIGTERM)

    def pause(self) -> None:
        """Stop it where it is: SIGSTOP."""
        assert self._process is not None, f"{self.name} is not running"
        pause(self._process)

    def resume(self) -> None:
        assert self._process is not None, f"{self.name} is not running"
        resume(self._process)

    def log_tail(self) -> str:
        with suppress(OSError):
            return self.log.read_text(encoding="utf-8", errors="replace")[-LOG_BYTES_SHOWN:]
        return ""

    def _polls(self, seconds_max: float) -> Iterator[None]:
        """Turns while the process lives. Raises NotStarted when it ends."""
        process = self._process
        assert process is not None, f"{self.name} was not started"
        for _ in range(int(seconds_max / POLL_SECONDS)):
            yield
            with suppress(subprocess.TimeoutExpired):
                code = process.wait(POLL_SECONDS)
                raise NotStarted(f"{self.name} ended with {code}:\n{self.log_tail()}", code)

    def _end(self, number: signal.Signals) -> int:
        if self._process is None:
            return 0
        code = end(self._process, number, STOP_SECONDS_MAX)
        self._forget()
        return code

    def _forget(self) -> None:
        process, self._process = self._process, None
        if process is not None and process.stdin is not None:
            process.stdin.close()


def environment(settings: Mapping[str, object]) -> dict[str, str]:
    """What a process gets: `settings`, and none of those that this program has itself."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(ENVIRONMENT_PREFIX)}
    # The source may not be installed.
    return {**inherited, **as_environment(settings), "PYTHONPATH": str(ROOT)}
