"""Private NATS servers for tests, one or a cluster: own directories, own ports, JetStream on files.

They are `nats-server`, started and stopped, killed and paused by the test that owns them. Nothing
of this is for an event loop: an async test calls it by `asyncio.to_thread`.
"""

from __future__ import annotations

import http.client
import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from engine.testing.mariadb_server import find_program
from engine.testing.ports import HeldPort
from engine.testing.processes import end, pause, resume

POLL_SECONDS: Final = 0.05
START_POLLS_MAX: Final = 1_200
LEADER_POLLS_MAX: Final = 1_200
STOP_SECONDS_MAX: Final = 60.0
ANSWER_SECONDS_MAX: Final = 2.0

PROGRAM: Final = "nats-server"
READY: Final = "/healthz"
"""200 when JetStream knows its meta leader and what is stored here has caught up with it."""
ALONE: Final = "/healthz?js-enabled-only=true"
"""200 when JetStream runs, also without a majority of its cluster."""

CONFIGURATION: Final = """\
server_name: "{name}"
listen: "127.0.0.1:{port}"
http: "127.0.0.1:{monitor_port}"
{settings}
jetstream {{
  store_dir: "{store}"
  sync_interval: {sync_interval}
  max_file_store: {max_file_store}
}}
{cluster}
"""


def find_nats_server() -> str | None:
    """The one installed beside Python, which is locked, or else one on the path; None without."""
    return shutil.which(PROGRAM, path=str(Path(sys.executable).parent)) or find_program(PROGRAM)


class NatsServer:
    """A server of one directory; `start` it, and `close` it in the end."""

    def __init__(
        self,
        directory: Path,
        *,
        name: str = "nats",
        sync_interval: str = "always",
        max_file_store: str = "100GB",
        **settings: str,
    ) -> None:
        """`settings` are those of the server, such as `max_payload="1MB"`.

        `sync_interval`: how long what was acknowledged may be unsynced, such as "2m", or "always".
        `max_file_store`: what streams may set aside in all. It is a number, no space that is taken;
        left to itself the server takes it from the free disk, and then what runs depends on that.
        """
        self.name = name
        self.paused = False
        self._directory = directory
        self._store = directory / "jetstream"
        self._sync_interval = sync_interval
        self._max_file_store = max_file_store
        self._settings = {"max_payload": "8MB", **settings}
        self._cluster = ""
        self._client = HeldPort()
        self._monitor = HeldPort()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def port(self) -> int:
        return self._client.number

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    @property
    def urls(self) -> list[str]:
        """Of clients, like those of a cluster."""
        return [self.url]

    @property
    def monitor_urls(self) -> list[str]:
        return [f"http://127.0.0.1:{self._monitor.number}"]

    @property
    def pid(self) -> int:
        """Of the process, 0 while it is down."""
        return self._process.pid if self._process is not None else 0

    @property
    def running(self) -> bool:
        """Whether the process is there; a paused one is."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start it with what it stored, and wait until it serves. Raises RuntimeError."""
        self.launch()
        self.wait_until(READY)

    def launch(self) -> None:
        """Start the process and return at once. Raises RuntimeError when it runs or is missing."""
        program = find_nats_server()
        if program is None:
            raise RuntimeError(f"{PROGRAM} is not installed")
        if self.running:
            raise RuntimeError(f"{self.name} runs already")
        self._directory.mkdir(parents=True, exist_ok=True)
        configuration = self._directory / "nats.conf"
        configuration.write_text(
            CONFIGURATION.format(
                name=self.name,
                port=self.port,
                monitor_port=self._monitor.number,
                store=self._store,
                sync_interval=self._sync_interval,
                max_file_store=self._max_file_store,
                settings="\n".join(f"{name}: {value}" for name, value in self._settings.items()),
                cluster=self._cluster,
            ),
            encoding="utf-8",
        )
        with self._log.open("ab") as output:
            self._process = subprocess.Popen(
                [program, "--config", str(configuration)],
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def wait_until(self, path: str) -> None:
        """Ask its monitor for `path` until it says 200. Raises RuntimeError when it does not."""
        for _ in range(START_POLLS_MAX):
            if self.ask(path) is not None:
                return
            if not self.linger():
                break
        raise RuntimeError(f"{self.name} did not start:\n{self._log.read_text()[-2_000:]}")

    def linger(self) -> bool:
        """Wait the pause between two polls; False at once when the process has ended."""
        assert self._process is not None
        try:
            self._process.wait(POLL_SECONDS)
        except subprocess.TimeoutExpired:
            return True
        return False

    def ask(self, path: str) -> dict[str, Any] | None:
        """What the monitor says, such as to "/varz"; None when it does not answer with 200."""
        monitor = http.client.HTTPConnection(
            "127.0.0.1", self._monitor.number, timeout=ANSWER_SECONDS_MAX
        )
        try:
            monitor.request("GET", path)
            answer = monitor.getresponse()
            body = answer.read()
        except (OSError, http.client.HTTPException):
            return None
        finally:
            monitor.close()
        found: dict[str, Any] | None = json.loads(body) if answer.status == 200 else None
        return found

    def stop(self) -> None:
        """End it in order."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it as a power failure of the process would: kill -9."""
        self._end(signal.SIGKILL)

    def close(self) -> None:
        """Kill it and give its ports back; it is not started again."""
        self.kill()
        self._client.release()
        self._monitor.release()

    def pause(self) -> None:
        if self._process is not None:
            pause(self._process)
        self.paused = self.running

    def resume(self) -> None:
        if self._process is not None:
            resume(self._process)
        self.paused = False

    def wipe(self) -> None:
        """Delete everything that JetStream stored. Raises RuntimeError while the server runs."""
        if self.running:
            raise RuntimeError(f"{self.name} runs; only the store of one that is down is deleted")
        shutil.rmtree(self._store, ignore_errors=True)

    def join(self, cluster: str) -> None:
        """Be one of a cluster from the next start on; `cluster` is that block of the settings."""
        self._cluster = cluster

    @property
    def _log(self) -> Path:
        return self._directory / "nats.log"

    def _end(self, number: signal.Signals) -> None:
        process, self._process = self._process, None
        self.paused = False
        if process is not None:
            end(process, number, STOP_SECONDS_MAX)


class NatsCluster:
    """Servers 0, 1, 2... of one cluster below one directory; `close` it in the end.

    Methods that take numbers mean all servers when none is given.
    """

    def __init__(
        self,
        directory: Path,
        *,
        size: int = 3,
        name: str = "seckill-test",
        sync_interval: str = "always",
        **settings: str,
    ) -> None:
        """`settings` and `sync_interval` as of NatsServer, for each."""
        self.servers = [
            NatsServer(
                directory / f"nats-{number}",
                name=f"{name}-{number}",
                sync_interval=sync_interval,
                **settings,
            )
            for number in range(size)
        ]
        # All at once: held, they differ.
        self._routes = [HeldPort() for _ in self.servers]
        if size == 1:
            return  # One that is told of a cluster waits for its others.
        routes = ", ".join(f'"nats://127.0.0.1:{each.number}"' for each in self._routes)
        for server, own in zip(self.servers, self._routes, strict=True):
            server.join(
                f'cluster {{\n  name: "{name}"\n'
                f'  listen: "127.0.0.1:{own.number}"\n  routes: [{routes}]\n}}'
            )

    @property
    def url(self) -> str:
        """All servers in one text, separated by commas."""
        return ",".join(self.urls)

    @property
    def urls(self) -> list[str]:
        return [server.url for server in self.servers]

    @property
    def monitor_urls(self) -> list[str]:
        return [url for server in self.servers for url in server.monitor_urls]

    def start(self, *numbers: int) -> None:
        """Start those that are down, and wait until they serve. Raises RuntimeError.

        Without a majority none can serve, so it waits until their JetStream runs.
        """
        started = [server for server in self._chosen(numbers) if not server.running]
        for server in started:
            server.launch()
        reachable = [server for server in self.servers if server.running and not server.paused]
        for server in started:
            server.wait_until(READY if 2 * len(reachable) > len(self.servers) else ALONE)

    def stop(self, *numbers: int) -> None:
        for server in self._chosen(numbers):
            server.stop()

    def kill(self, *numbers: int) -> None:
        """kill -9."""
        for server in self._chosen(numbers):
            server.kill()

    def pause(self, *numbers: int) -> None:
        for server in self._chosen(numbers):
            server.pause()

    def resume(self, *numbers: int) -> None:
        for server in self._chosen(numbers):
            server.resume()

    def wipe(self, *numbers: int) -> None:
        """Delete what JetStream stored there. Raises RuntimeError for one that runs."""
        for server in self._chosen(numbers):
            server.wipe()

    def close(self) -> None:
        """Kill all and give their ports back."""
        for server in self.servers:
            server.close()
        for port in self._routes:
            port.release()

    def leader_of(self, stream: str) -> int:
        """The number of the server that leads `stream`, waiting until one does.

        Raises RuntimeError when none that runs and is not paused says so, or more than one.
        """
        waiting = next((each for each in self.servers if each.running), None)
        for _ in range(LEADER_POLLS_MAX):
            leaders = [
                number
                for number, server in enumerate(self.servers)
                if server.running and not server.paused and _leads(server, stream)
            ]
            if len(leaders) == 1:
                return leaders[0]
            if waiting is None or not waiting.linger():
                break
        raise RuntimeError(f"no server leads the stream {stream}")

    def _chosen(self, numbers: tuple[int, ...]) -> list[NatsServer]:
        return [self.servers[number] for number in numbers] if numbers else self.servers


def _leads(server: NatsServer, stream: str) -> bool:
    jetstream = server.ask("/jsz?accounts=true&streams=true") or {}
    return any(
        # One alone leads whatever it has, and does not say so.
        detail["name"] == stream
        and detail.get("cluster", {}).get("leader", server.name) == server.name
        for account in jetstream.get("account_details") or ()
        for detail in account.get("stream_detail") or ()
    )


@contextmanager
def nats_server(directory: Path, **settings: str) -> Iterator[NatsServer]:
    """A running server for the block; `settings` as of NatsServer."""
    server = NatsServer(directory, **settings)
    try:
        server.start()
        yield server
    finally:
        server.close()


@contextmanager
def nats_cluster(directory: Path, size: int = 3, **settings: str) -> Iterator[NatsCluster]:
    """A running cluster for the block; `settings` as of NatsCluster."""
    cluster = NatsCluster(directory, size=size, **settings)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.close()
