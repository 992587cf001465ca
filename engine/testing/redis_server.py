"""A private Redis server for tests: own directory, own port, nothing written unless asked.

It is the installed `redis-server`, started and stopped, killed and paused by the test that owns it.
"""

from __future__ import annotations

import asyncio
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from engine.testing.mariadb_server import find_program
from engine.testing.ports import HeldPort
from engine.testing.processes import end, pause, resume

START_POLLS_MAX: Final = 400
POLL_SECONDS: Final = 0.05
STOP_SECONDS_MAX: Final = 20.0


class RedisServer:
    """A server of one directory; `start` it, and `close` it in the end."""

    def __init__(self, directory: Path, *, password: str = "", **settings: str) -> None:
        """`settings` are those of the server, such as `maxmemory="10mb"`."""
        self._held = HeldPort()
        self.port = self._held.number
        self._directory = directory
        self._password = password
        self._settings = [
            part
            for name, value in settings.items()
            for part in (f"--{name.replace('_', '-')}", value)
        ]
        self._process: subprocess.Popen[bytes] | None = None

    def url(self, password: str | None = None) -> str:
        """`password`: another one than the server's."""
        secret = self._password if password is None else password
        return f"redis://{f':{secret}@' if secret else ''}127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Start it, with the data of its last `SAVE`. Raises RuntimeError when it does not."""
        server = find_program("redis-server")
        assert server is not None
        log = self._directory / "redis.log"
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [
                    *(server, "--port", str(self.port), "--bind", "127.0.0.1"),
                    *("--dir", str(self._directory), "--save", "", "--appendonly", "no"),
                    *(("--requirepass", self._password) if self._password else ()),
                    *self._settings,
                ],
                stdout=output,
                stderr=output,
            )
        for _ in range(START_POLLS_MAX):
            if self.execute("PING") == "PONG":
                return
            try:
                self._process.wait(POLL_SECONDS)
                break
            except subprocess.TimeoutExpired:
                continue
        raise RuntimeError(f"redis-server did not start:\n{log.read_text()[-2_000:]}")

    def kill(self) -> None:
        """End it as a power failure of the process would: kill -9."""
        process, self._process = self._process, None
        if process is not None:
            end(process, signal.SIGKILL, STOP_SECONDS_MAX)

    def close(self) -> None:
        """Kill it and give its port back."""
        self.kill()
        self._held.release()

    def pause(self) -> None:
        if self._process is not None:
            pause(self._process)

    def resume(self) -> None:
        if self._process is not None:
            resume(self._process)

    def execute(self, *command: str) -> str:
        """Run one command by the command line client, and return what it printed."""
        client = find_program("redis-cli")
        assert client is not None
        login = ("-a", self._password, "--no-auth-warning") if self._password else ()
        done = subprocess.run(
            [client, "-p", str(self.port), *login, *command],
            capture_output=True,
            text=True,
            check=False,
        )
        return done.stdout.strip()

    async def query(self, *command: str) -> str:
        """`execute` for tests that run on an event loop."""
        return await asyncio.to_thread(self.execute, *command)


@contextmanager
def redis_server(directory: Path) -> Iterator[str]:
    """A running server for the block; gives its URL. Raises RuntimeError when it does not start."""
    server = RedisServer(directory)
    try:
        server.start()
        yield server.url()
    finally:
        server.close()
