"""Servers as processes of their own, measured from outside and audited when they have ended."""

from __future__ import annotations

import asyncio
import os
import re
import resource
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec

from engine.auth_settings import DEFAULT_ADMIN_SECRET
from engine.config import COMMAND_SIDE_KEYS, ENVIRONMENT_PREFIX, Settings
from engine.errors import ConfigError
from engine.inventory.audit import audit
from engine.runtime import open_reader
from loadtest.bench.runs import STOCK
from loadtest.http_client import HttpConnection
from loadtest.settings import as_environment
from loadtest.wrong import WrongAnswer

ROOT: Final = Path(__file__).resolve().parent.parent
STOP_SECONDS_MAX: Final = 120.0
"""A stopped server answers who is there and writes a snapshot; killed after so long."""

SERVER: Final = """
import os, signal, threading

def end_with_the_parent():
    while os.read(0, 1):
        pass
    os.kill(os.getpid(), signal.SIGKILL)

threading.Thread(target=end_with_the_parent, daemon=True).start()

from engine.cli import main
main()
"""
"""Its stdin ends when whoever started it does, also by kill -9: no server stays behind and keeps
the store locked."""

CONNECTIONS_SPARE: Final = 8
FILES_SPARE: Final = 64

STORE_FILE: Final = "sale.db"
LOG_FILE: Final = "log.jsonl"

READ_MODELS_OFF: Final[Mapping[str, Any]] = COMMAND_SIDE_KEYS


class HttpServer:
    """A running server; `public` and `admin` are (host, port), `admin` None for the empty handler."""

    def __init__(self, process: subprocess.Popen[str], directory: Path) -> None:
        self.process = process
        self.directory = directory
        self.public: tuple[str, int] = ("", 0)
        self.admin: tuple[str, int] | None = None

    @property
    def url(self) -> str:
        return f"http://{self.public[0]}:{self.public[1]}"

    def resident_mib(self) -> float:
        """Its resident memory, 0 where the system does not tell."""
        try:
            text = Path(f"/proc/{self.process.pid}/statm").read_text(encoding="ascii")
        except OSError:
            return 0.0
        return int(text.split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20

    async def open_sale(self) -> None:
        """Put the SKU HOT on sale. Raises WrongAnswer, OSError."""
        assert self.admin is not None
        connection = await HttpConnection.connect(*self.admin)
        reply = await connection.request(
            "POST",
            "/v1/admin/skus/HOT/open",
            msgspec.json.encode({"stock": STOCK}),
            {"Authorization": f"Bearer {DEFAULT_ADMIN_SECRET}"},
        )
        connection.close()
        if reply.status != 201:
            raise WrongAnswer(f"the sale could not be opened: {reply.status} {reply.body!r}")


@asynccontextmanager
async def order_server(directory: Path, overrides: Mapping[str, Any]) -> AsyncIterator[HttpServer]:
    """`seckill serve` on free ports, closed properly at the end.

    `overrides` are dotted keys of the settings; unless they name a store it is in `directory`.
    """
    settings = {
        "store.url": store_in(directory),
        "service.log_level": "warning",
        **overrides,
        "service.port": 0,
        "service.admin_port": 0,
    }
    async with _running(["-c", SERVER, "serve"], directory, as_environment(settings)) as server:
        server.public = await asyncio.to_thread(_where, server, "Buyers")
        server.admin = await asyncio.to_thread(_where, server, "Operator")
        yield server


@asynccontextmanager
async def empty_server(directory: Path) -> AsyncIterator[HttpServer]:
    """The empty handler on the same server class."""
    async with _running(["-m", "loadtest.bench_http.empty"], directory, {}) as server:
        server.public = await asyncio.to_thread(_where, server, "Buyers")
        yield server


def store_in(directory: Path) -> str:
    """The URL of the store in the folder of a server that was given no other."""
    return f"sqlite:{directory / STORE_FILE}"


def check_connections(flag: str, count: int, settings: Settings) -> None:
    """Raise ConfigError unless a server with these settings, and this system, take so many."""
    connections_max = settings.service.connections_max - CONNECTIONS_SPARE
    files_max = resource.getrlimit(resource.RLIMIT_NOFILE)[0] - FILES_SPARE
    if count > connections_max:
        raise ConfigError(
            f"{flag} {count:,} is more connections than service.connections_max lets in "
            f"({connections_max:,})"
        )
    if count > files_max:
        raise ConfigError(
            f"{flag} {count:,} is more connections than this system lets a process open "
            f"({files_max:,}): see `ulimit -n`"
        )


async def check_store(store_url: str, sold_min: int, sold_max: int | None = None) -> int:
    """Audit the store of a server that has ended, and return the events replayed.

    So many orders must be in it as were answered 201; up to `sold_max` where a generator hangs up on
    orders whose answers are under way. Raises WrongAnswer.
    """
    sold_max = sold_min if sold_max is None else sold_max
    reader = await open_reader(store_url)
    try:
        (row,) = await reader.read_rows("stock")
        report = await audit(reader)
    finally:
        await reader.close()
    if not report.ok:
        raise WrongAnswer(f"the audit failed: {[each for each in report.checks if not each.ok]}")
    sold = int(row["reserved"])
    if not sold_min <= sold <= sold_max or int(row["available"]) != STOCK - sold:
        raise WrongAnswer(f"{sold_min:,} to {sold_max:,} orders were answered 201, stored: {row}")
    return report.checked_events


@asynccontextmanager
async def _running(
    arguments: Sequence[str], directory: Path, environment: Mapping[str, str]
) -> AsyncIterator[HttpServer]:
    process = await asyncio.to_thread(_start, arguments, directory, environment)
    try:
        yield HttpServer(process, directory)
        process.send_signal(signal.SIGTERM)
        await asyncio.to_thread(process.wait, STOP_SECONDS_MAX)
    finally:
        process.kill()
        await asyncio.to_thread(process.wait)
        assert process.stdout is not None
        assert process.stdin is not None
        process.stdout.close()
        process.stdin.close()


def _start(
    arguments: Sequence[str], directory: Path, environment: Mapping[str, str]
) -> subprocess.Popen[str]:
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(ENVIRONMENT_PREFIX)}
    with (directory / LOG_FILE).open("ab") as log:
        return subprocess.Popen(
            [sys.executable, *arguments],
            cwd=directory,
            # Lines that are read here must not be wrapped; the source may not be installed.
            env={**inherited, **environment, "PYTHONPATH": str(ROOT), "COLUMNS": "200"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            # Ctrl-C is for us: a server that hears it too would refuse who is still waiting.
            start_new_session=True,
        )


def _where(server: HttpServer, who: str) -> tuple[str, int]:
    """The address on the line that begins with `who`. Raises WrongAnswer when it ends without."""
    assert server.process.stdout is not None
    for line in server.process.stdout:
        if found := re.match(rf"{who}\s+(http://\S+)", line):
            parts = urlsplit(found[1])
            return parts.hostname or "", parts.port or 0
    log = (server.directory / LOG_FILE).read_text(encoding="utf-8", errors="replace")
    raise WrongAnswer(f"the server did not start:\n{log[-2_000:]}")
