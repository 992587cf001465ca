"""A whole cluster on this machine: brokers, database, engines and gateways, each a real process.

Everything is on loopback, on free ports, in one directory: the data and the log of each process, and
`cluster.toml`, with which any other `seckill` command can look at it. Whoever owns it starts, stops,
pauses and kills what it likes.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from engine.config import Settings, load_settings
from engine.testing.mariadb_server import MariadbServer
from engine.testing.nats_server import NatsCluster
from loadtest.serve_process import START_SECONDS_MAX, NotStarted, ServeProcess, environment

STARTS_MAX: Final = 3

CONFIG_FILE: Final = "cluster.toml"
DATABASE: Final = "seckill"

Say = Callable[[str], None]
"""Told what is done next."""


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
            _supervise(each)
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
            env=environment({}),
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise NotStarted(
                f"seckill {' '.join(arguments)} failed:\n{done.stdout}{done.stderr}",
                done.returncode,
            )
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
            server.close()

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


def _supervise(node: ServeProcess) -> None:
    """Wait until it is ready, and start it again if need be, as whatever supervises it would.

    One that finds a busy broker too slow ends with 1. Wrong settings end it with 2, for good. Raises
    NotStarted.
    """
    for left in reversed(range(STARTS_MAX)):
        try:
            node.wait_ready()
            return
        except NotStarted as error:
            if error.code != 1 or not left:
                raise
            node.start()


def _made(directory: Path) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    return directory


def _toml(settings: Mapping[str, object]) -> str:
    """A settings file. Numbers, texts and lists of them are written in TOML as they are in JSON."""
    sections: dict[str, list[str]] = {}
    for key, value in settings.items():
        section, name = key.split(".")
        sections.setdefault(section, []).append(f"{name} = {json.dumps(value)}")
    return "".join(f"[{name}]\n" + "\n".join(lines) + "\n\n" for name, lines in sections.items())
