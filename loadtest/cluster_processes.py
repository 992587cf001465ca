"""A whole cluster on this machine: brokers, database, engines and gateways, each a real process.

Everything is on loopback, on free ports, in one directory: the data and the log of each process, and
`cluster.toml`, with which any other `seckill` command can look at it. Whoever owns it starts, stops,
pauses and kills what it likes.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any, Final

import msgspec

from engine.auth_settings import DEFAULT_ADMIN_SECRET
from engine.config import ENVIRONMENT_PREFIX, SEPARATOR, Settings, load_settings
from engine.testing.mariadb_server import MariadbServer
from engine.testing.nats_server import NatsCluster
from engine.testing.ports import HeldPort
from loadtest.http_processes import ROOT, SERVER, STOP_SECONDS_MAX
from loadtest.shop_client import ShopClient

START_SECONDS_MAX: Final = 60.0
POLL_SECONDS: Final = 0.05
ASK_SECONDS_MAX: Final = 5.0
LOG_BYTES_SHOWN: Final = 2_000

CONFIG_FILE: Final = "cluster.toml"
DATABASE: Final = "seckill"
LOOPBACK: Final = "127.0.0.1"

Say = Callable[[str], None]
"""Told what is done next."""


class NotStarted(RuntimeError):
    """A process ended, or was not ready in time. The message has the end of its log."""


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
                env=_environment(self._settings),
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
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

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
                raise NotStarted(f"{self.name} ended with {code}:\n{self.log_tail()}")

    def _end(self, number: signal.Signals) -> int:
        process = self._process
        if process is None:
            return 0
        if process.poll() is None:
            process.send_signal(number)
            # Paused, it would take no other signal than SIGKILL.
            process.send_signal(signal.SIGCONT)
            try:
                process.wait(STOP_SECONDS_MAX)
            except subprocess.TimeoutExpired:
                process.kill()
        code = process.wait()
        self._forget()
        return code

    def _forget(self) -> None:
        process, self._process = self._process, None
        if process is not None and process.stdin is not None:
            process.stdin.close()


class ClusterProcesses:
    """Brokers, databases, engines and gateways of one directory; `close` it in the end.

    `settings` are dotted keys for all engines and gateways, on top of what a cluster needs.
    `mariadb` is the first of `databases`.
    """

    def __init__(
        self,
        directory: Path,
        *,
        brokers: int = 3,
        databases: int = 1,
        engines: int = 2,
        gateways: int = 2,
        settings: Mapping[str, object] | None = None,
    ) -> None:
        self.directory = directory
        self.config = directory / CONFIG_FILE
        self.brokers = NatsCluster(directory / "brokers", size=brokers)
        self.databases = [
            MariadbServer(_made(directory / f"mariadb-{number}"))
            for number in range(1, databases + 1)
        ]
        self._settings = dict(settings or {})
        self.engines = [self._node("engine", number) for number in range(1, engines + 1)]
        self.gateways = [self._node("gateway", number) for number in range(1, gateways + 1)]

    @property
    def mariadb(self) -> MariadbServer:
        return self.databases[0]

    @property
    def nodes(self) -> Sequence[ServeProcess]:
        return [*self.engines, *self.gateways]

    @property
    def settings(self) -> Settings:
        """Those that all engines and gateways share."""
        return load_settings(self.config, environ={})

    def start(self, say: Say = lambda _: None) -> None:
        """Start everything and wait until it sells. Raises RuntimeError with the log of what fails."""
        self.start_servers(say)
        say("engines and gateways")
        for each in self.nodes:
            each.start()
        for each in self.nodes:
            each.wait_ready()
        self.wait_served()

    def wait_served(self, seconds_max: float = START_SECONDS_MAX) -> None:
        """Wait until every gateway that runs knows an owner of every partition. Raises NotStarted."""
        for each in self.gateways:
            if each.running:
                each.wait_until(
                    lambda found: len(found.served) == found.partitions,
                    "knows no owner of some partition",
                    seconds_max,
                )

    def start_servers(self, say: Say = lambda _: None) -> None:
        """Start brokers and databases alone, and make the store. Raises RuntimeError."""
        say("brokers")
        self.brokers.start()
        say("MariaDB")
        for each in self.databases:
            each.start()
            each.execute(f"CREATE DATABASE IF NOT EXISTS {DATABASE}")
        say("the store")
        self.config.write_text(_toml(self._shared()), encoding="utf-8")
        self.run("init", "--config", str(self.config))

    def add_engine(self) -> ServeProcess:
        """One engine more, not started."""
        self.engines.append(self._node("engine", len(self.engines) + 1))
        return self.engines[-1]

    def run(self, *arguments: str) -> str:
        """Run a `seckill` command to its end and return what it printed. Raises NotStarted."""
        done = subprocess.run(
            [sys.executable, "-c", "from engine.cli import main; main()", *arguments],
            cwd=self.directory,
            env=_environment({}),
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise NotStarted(f"seckill {' '.join(arguments)} failed:\n{done.stdout}{done.stderr}")
        return done.stdout

    def owners(self) -> dict[int, str]:
        """The name of the engine that serves each partition, as the gateways know it."""
        for each in self.gateways:
            found = each.readiness() if each.running else None
            if found is not None:
                return {served.partition: served.owner for served in found.served}
        return {}

    def terminate_nodes(self) -> None:
        """Let gateways and then engines answer who is there and close; the servers go on."""
        for each in reversed(self.nodes):
            each.terminate()

    def close(self) -> None:
        """End everything, whatever state it is in."""
        for each in self.nodes:
            each.close()
        self.brokers.close()
        for server in self.databases:
            server.kill()

    def _node(self, role: str, number: int) -> ServeProcess:
        name = f"{role}-{number}"
        return ServeProcess(name, self.directory, self.config, role, {"cluster.node": name})

    def _shared(self) -> dict[str, object]:
        urls = [each.url(DATABASE) for each in self.databases]
        return {
            **({"store.url": urls[0]} if len(urls) == 1 else {"store.urls": urls}),
            "store.partitions": 8,
            "cluster.servers": self.brokers.urls,
            "cluster.monitor_urls": self.brokers.monitor_urls,
            "cluster.replicas": len(self.brokers.urls),
            "service.log_level": "info",
            **self._settings,
        }


@contextmanager
def cluster_processes(directory: Path, **sizes: Any) -> Iterator[ClusterProcesses]:
    """A running cluster for the block; `sizes` are the arguments of ClusterProcesses."""
    cluster = ClusterProcesses(directory, **sizes)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.close()


def _made(directory: Path) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    return directory


def _environment(settings: Mapping[str, object]) -> dict[str, str]:
    """What a process gets: `settings`, and none of those that this program has itself."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(ENVIRONMENT_PREFIX)}
    given = {
        f"{ENVIRONMENT_PREFIX}{key.replace('.', SEPARATOR).upper()}": str(value)
        for key, value in settings.items()
    }
    # The source may not be installed.
    return {**inherited, **given, "PYTHONPATH": str(ROOT)}


def _toml(settings: Mapping[str, object]) -> str:
    """A settings file. Numbers, texts and lists of them are written in TOML as they are in JSON."""
    sections: dict[str, list[str]] = {}
    for key, value in settings.items():
        section, name = key.split(".")
        sections.setdefault(section, []).append(f"{name} = {json.dumps(value)}")
    return "".join(f"[{name}]\n" + "\n".join(lines) + "\n\n" for name, lines in sections.items())
