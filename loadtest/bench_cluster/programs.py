"""The programs of a cluster on this machine: brokers, a database, engines and gateways."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Final

import msgspec

from engine.config import COMMAND_SIDE_KEYS, load_settings
from engine.inventory.audit import audit
from engine.runtime import initialise_store, open_reader
from engine.testing.mariadb_server import MariadbServer, mariadb_server
from engine.testing.nats_server import NatsCluster, NatsServer, nats_cluster, nats_server
from loadtest.bench_cluster.caller import Load, Task
from loadtest.http_processes import ROOT
from loadtest.wrong import WrongAnswer

PARTITIONS: Final = 8
STOP_SECONDS_MAX: Final = 60.0
LOG_FILE: Final = "log.txt"

ALONE: Final = "one process"
"""The part of a layout whose gateway and engine are one."""

SQLITE: Final = "SQLite"
MARIADB: Final = "MariaDB"


class Layout(msgspec.Struct, frozen=True):
    """How one and the same engine is spread: over how many processes and brokers, on which store.

    `replicas` 0 is no broker; `is_split` a gateway and an engine in processes of their own;
    `has_events` whether every commit is published for other systems as well.
    """

    store: str
    replicas: int = 0
    is_split: bool = False
    has_events: bool = False

    @property
    def name(self) -> str:
        if not self.replicas:
            return f"in process, {self.store}"
        brokers = "1 broker" if self.replicas == 1 else f"{self.replicas} brokers"
        kind = "gateway, engine" if self.is_split else "one process"
        events = ", events published" if self.has_events else ""
        return f"{kind}, {brokers}, {self.store}{events}"


class Program:
    """A process of `loadtest.bench_cluster.caller`."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self.pid = process.pid
        self._process = process
        self._log = log

    @classmethod
    def start(cls, directory: Path, overrides: Mapping[str, Any]) -> Program:
        """Start one; `answer` then tells that it is ready."""
        directory.mkdir(parents=True)
        with (directory / LOG_FILE).open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "loadtest.bench_cluster.caller"],
                cwd=directory,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                # Ctrl-C is for us; it ends when its stdin does.
                start_new_session=True,
            )
        program = cls(process, directory / LOG_FILE)
        program._tell(overrides)
        return program

    async def answer(self) -> Load | None:
        """The next line that it says. Raises WrongAnswer when it ends instead."""
        assert self._process.stdout is not None
        line = await asyncio.to_thread(self._process.stdout.readline)
        if not line:
            log = self._log.read_text(encoding="utf-8", errors="replace")
            raise WrongAnswer(f"a program of the cluster ended:\n{log[-2_000:]}")
        return msgspec.json.decode(line, type=Load | None)

    async def run(self, task: Task) -> Load:
        """Have a task carried out. Raises WrongAnswer."""
        self._tell(task)
        found = await self.answer()
        assert found is not None
        return found

    async def stop(self) -> None:
        """Let it close its engine, and kill it when that takes too long. Idempotent."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            await asyncio.to_thread(self._process.wait, STOP_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            self._process.kill()
            await asyncio.to_thread(self._process.wait)
        self._process.stdout.close()

    def _tell(self, what: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(msgspec.json.encode(what) + b"\n")
        self._process.stdin.flush()


class Setup:
    """A running layout; `caller` is the program that orders. `sold` counts what it was answered."""

    def __init__(
        self, layout: Layout, store_url: str, programs: Sequence[Program], parts: Mapping[str, Any]
    ) -> None:
        self.layout = layout
        self.store_url = store_url
        self.parts: dict[str, list[int]] = dict(parts)
        self.sold = 0
        self._skus = 0
        self._programs = programs
        self._runs = 0

    async def run(self, task: Task) -> Load:
        """Have a task carried out on SKUs of its own. Raises WrongAnswer."""
        self._runs += 1
        load = await self._programs[0].run(
            msgspec.structs.replace(task, name=f"{task.name}{self._runs}")
        )
        self.sold += load.orders
        self._skus += task.skus
        return load

    async def check(self) -> int:
        """Stop it and audit its store; returns the events replayed. Raises WrongAnswer."""
        for program in self._programs:
            await program.stop()
        reader = await open_reader(self.store_url)
        try:
            rows = await reader.read_rows("stock")
            report = await audit(reader)
        finally:
            await reader.close()
        if not report.ok:
            wrong = [each for each in report.checks if not each.ok]
            raise WrongAnswer(f"{self.layout.name}: the audit failed: {wrong}")
        stored = sum(int(row["reserved"]) for row in rows)
        if (stored, len(rows)) != (self.sold, self._skus):
            raise WrongAnswer(
                f"{self.layout.name}: {self.sold:,} orders of {self._skus} SKUs were answered, "
                f"{stored:,} of {len(rows)} are stored"
            )
        return report.checked_events


class Servers:
    """What the layouts of one run share; each is started when the first layout needs it."""

    def __init__(self, place: Path, opened: AsyncExitStack) -> None:
        self._place = place
        self._opened = opened
        self._brokers: dict[int, NatsServer | NatsCluster] = {}
        self._mariadb: MariadbServer | None = None
        self._number = 0

    async def brokers(self, count: int) -> NatsServer | NatsCluster:
        """One broker, or a cluster of so many."""
        if count not in self._brokers:
            place = self._place / f"brokers-{count}"
            place.mkdir()
            made = nats_server(place) if count == 1 else nats_cluster(place, count)
            self._brokers[count] = await asyncio.to_thread(self._enter, made)
        return self._brokers[count]

    def _enter(
        self, brokers: AbstractContextManager[NatsServer | NatsCluster]
    ) -> NatsServer | NatsCluster:
        return self._opened.enter_context(brokers)

    async def mariadb(self) -> MariadbServer:
        if self._mariadb is None:
            place = self._place / "db"
            place.mkdir()
            self._mariadb = await asyncio.to_thread(
                self._opened.enter_context, mariadb_server(place)
            )
        return self._mariadb

    def new_prefix(self) -> str:
        """A name that no stream has yet."""
        self._number += 1
        return f"bench{self._number}"

    async def start(self, layout: Layout) -> Setup:
        """Start what a layout needs, each with a store of its own. Raises WrongAnswer."""
        prefix = self.new_prefix()
        place = self._place / prefix
        overrides: dict[str, Any] = {**COMMAND_SIDE_KEYS, "store.partitions": PARTITIONS}
        parts: dict[str, list[int]] = {}
        if layout.store == MARIADB:
            database = await self.mariadb()
            await database.query(f"CREATE DATABASE {prefix}")
            overrides["store.url"] = database.url(prefix)
            parts["database"] = [database.pid]
        else:
            overrides["store.url"] = f"sqlite:{place}.db"
        await initialise_store(load_settings(environ={}, overrides=overrides))
        if layout.replicas:
            brokers = await self.brokers(layout.replicas)
            servers = brokers.servers if isinstance(brokers, NatsCluster) else [brokers]
            parts["brokers"] = [each.pid for each in servers]
            overrides |= {
                "cluster.servers": brokers.urls,
                "cluster.monitor_urls": brokers.monitor_urls,
                "cluster.replicas": layout.replicas,
                "cluster.prefix": prefix,
                "cluster.events": layout.has_events,
            }
        programs: list[Program] = []
        for role in ("engine", "gateway") if layout.is_split else ("all",):
            program = Program.start(place / role, {**overrides, "cluster.role": role})
            self._opened.push_async_callback(program.stop)
            await program.answer()
            programs.insert(0, program)
            parts[ALONE if role == "all" else role] = [program.pid]
        return Setup(layout, overrides["store.url"], programs, parts)


@asynccontextmanager
async def servers_in(place: Path) -> AsyncIterator[Servers]:
    """Everything that is started ends with the block."""
    async with AsyncExitStack() as opened:
        yield Servers(place, opened)


def cpu_seconds(pids: Iterable[int]) -> float:
    """Processor time that processes have used so far, in user and system mode."""
    ticks = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")
