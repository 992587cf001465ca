"""Locust as a process of its own: started, watched, stopped, and its books read.

gevent patches the whole process that imports it, so it is never imported here.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import msgspec

from engine.config import ENVIRONMENT_PREFIX
from engine.errors import SeckillError
from engine.testing.ports import HeldPort
from loadtest.sale import SKU_PREFIX, Sale
from loadtest.swarm.books import Books, Outcomes, Page
from loadtest.swarm.shapes import Shape

ROOT: Final = Path(__file__).resolve().parents[2]
LOCUSTFILE: Final = Path(__file__).resolve().parents[1] / "locustfile.py"
BOOKS_FILE: Final = "books.json"
LOG_FILE: Final = "locust.log"
CSV_PREFIX: Final = "locust"
HTML_FILE: Final = "locust.html"

STOP_SECONDS: Final = 20
"""How long users may take to get their last answer."""

POLL_SECONDS: Final = 0.05
KILL_SECONDS: Final = STOP_SECONDS + 15


NOT_LOADED: Final = (-signal.SIGTERM, -signal.SIGINT)
"""How it ends by a signal that it does not listen to yet."""


class LocustFailed(SeckillError):
    """Locust ended without books; the message has the end of its log."""


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """What Locust is asked to do: `seconds` long; `per_second` 0 is a closed loop."""

    users: int
    spawn_per_second: float
    seconds: float
    shape: Shape
    per_second: float
    mix: str
    list_size: int
    think_seconds: float
    processes: int
    sku_prefix: str = SKU_PREFIX


class Progress(msgspec.Struct):
    """A line that Locust prints every second."""

    users: int
    state: str
    per_second: int
    p50_ms: float
    p99_ms: float
    outcomes: Outcomes


class Secrets(msgspec.Struct, frozen=True):
    """For a service with auth.mode = token. Given to Locust in its environment, where no list of
    processes shows them."""

    admin_secret: str = ""
    shop_secret: str = ""


class LocustProcess:
    """One run of Locust. `stop` lets it end in good order, a second time at once."""

    def __init__(
        self, load: Load, sale: Sale, directory: Path, prefix: str, secrets: Secrets
    ) -> None:
        self._load, self._sale, self._prefix = load, sale, prefix
        self._directory, self._secrets = directory, secrets
        self._process: Process | None = None
        # Of its master. Nobody else is given it meanwhile, not even for an outgoing connection.
        self._port = HeldPort() if load.processes > 1 else None
        self.stopped = False
        self.ended_early = False

    async def run(
        self, url: str, admin_url: str | None, progress: Callable[[Progress], None]
    ) -> Page:
        """Run to the end, and return the books; empty ones when it was stopped before it began.

        Raises LocustFailed.
        """
        # What an earlier run left there would be taken for the result of this one.
        (self._directory / BOOKS_FILE).unlink(missing_ok=True)
        with (self._directory / LOG_FILE).open("wb") as log:
            self._process = process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "locust", *self._arguments(url, admin_url)),
                stdout=PIPE,
                stderr=log,
                stdin=asyncio.subprocess.DEVNULL,
                cwd=self._directory,
                env=self._environment(),
                # Ctrl-C is for us: we tell Locust, once the users have their answers.
                start_new_session=True,
            )
        if self.stopped:
            self._terminate()
        began = asyncio.get_running_loop().time()
        reading = asyncio.ensure_future(_read(process, progress))
        ended = asyncio.ensure_future(_end_of(process))
        try:
            await asyncio.wait((reading, ended), return_when=asyncio.FIRST_COMPLETED)
            if reading.done():
                reading.result()
                await process.wait()
        finally:
            # Workers of a master that failed wait for it for minutes, and keep its output open.
            self._kill()
            await asyncio.gather(reading, ended, process.wait(), return_exceptions=True)
            if self._port is not None:
                self._port.release()
        # Somebody else may have ended it, in good order.
        self.ended_early = asyncio.get_running_loop().time() - began < self._load.seconds
        if self.stopped and process.returncode in NOT_LOADED:
            return Books().page()  # It listens to the signal once it has loaded.
        return self._read_books()

    def stop(self) -> None:
        """End the run: users get the answers to what they sent."""
        again, self.stopped = self.stopped, True
        process = self._process
        if process is None or process.returncode is not None:
            return
        if again:
            self._kill()
        else:
            self._terminate()
            asyncio.get_running_loop().call_later(KILL_SECONDS, self._kill)

    def _terminate(self) -> None:
        # Before it has a session of its own, the Ctrl-C of a terminal ends it first.
        if self._process is not None:
            with suppress(ProcessLookupError):
                self._process.send_signal(signal.SIGTERM)

    def _kill(self) -> None:
        if self._process is not None:
            with suppress(ProcessLookupError):
                # Its workers are in its group, and may have outlived it.
                os.killpg(self._process.pid, signal.SIGKILL)

    def _arguments(self, url: str, admin_url: str | None) -> list[str]:
        load, sale = self._load, self._sale
        flags: dict[str, Any] = {
            "locustfile": LOCUSTFILE,
            "host": url,
            "users": load.users,
            "spawn-rate": load.spawn_per_second,
            "run-time": f"{load.seconds:g}s",
            "stop-timeout": STOP_SECONDS,
            "exit-code-on-error": 0,
            "csv": CSV_PREFIX,
            "html": HTML_FILE,
            "shape": load.shape,
            "rate": load.per_second,
            "mix": load.mix,
            "list-size": load.list_size,
            "think-seconds": load.think_seconds,
            "seed": sale.seed,
            "skus": sale.skus,
            "sku-prefix": load.sku_prefix,
            "buyers": sale.buyers,
            "popularity": sale.popularity,
            "quantity": sale.quantity,
            "pay-rate": sale.pay_rate,
            "order-prefix": self._prefix,
            "admin-url": admin_url or "",
            "books": BOOKS_FILE,
        }
        arguments = [f"--{name}={value}" for name, value in flags.items()]
        arguments += ["--headless", "--only-summary", "--progress", "--csv-full-history"]
        if self._port is not None:
            # Their master is for these workers only: secrets go from it to whoever connects.
            port = self._port.number
            arguments += [f"--processes={load.processes}", "--master-bind-host=127.0.0.1"]
            arguments += [f"--master-bind-port={port}", f"--master-port={port}"]
        return arguments

    def _environment(self) -> dict[str, str]:
        # Its own variables would change what was asked for.
        foreign = (ENVIRONMENT_PREFIX, "LOCUST_")
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(foreign)}
        named = {
            "SECKILL_AUTH__ADMIN_SECRET": self._secrets.admin_secret,
            "SECKILL_AUTH__SHOP_SECRET": self._secrets.shop_secret,
        }
        paths = [str(ROOT), *filter(None, [inherited.get("PYTHONPATH")])]
        return {
            **inherited,
            **{name: value for name, value in named.items() if value},
            "PYTHONPATH": os.pathsep.join(paths),
        }

    def _read_books(self) -> Page:
        path = self._directory / BOOKS_FILE
        try:
            return msgspec.json.decode(path.read_bytes(), type=Page)
        except (OSError, msgspec.DecodeError):
            log = (self._directory / LOG_FILE).read_text(encoding="utf-8", errors="replace")
            errors = [line for line in log.splitlines() if line.startswith("error: ")]
            raise LocustFailed(
                f"Locust ended without a result: {errors[-1] if errors else log[-1_500:]}"
            ) from None


async def _end_of(process: Process) -> None:
    """`Process.wait` waits until nobody has its output open any more, and workers do."""
    while process.returncode is None:  # noqa: ASYNC110 -- nothing tells of it
        await asyncio.sleep(POLL_SECONDS)


async def _read(process: Process, progress: Callable[[Progress], None]) -> None:
    assert process.stdout is not None
    async for line in process.stdout:
        with suppress(msgspec.DecodeError):
            progress(msgspec.json.decode(line, type=Progress))
