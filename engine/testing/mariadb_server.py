"""A private MariaDB server for tests: own data directory, free port, full durability.

It is the installed `mariadbd`, started and stopped, killed and paused by the test that owns it.
"""

from __future__ import annotations

import asyncio
import atexit
import getpass
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Final

from engine.testing.ports import HeldPort
from engine.testing.processes import end, pause, resume

POLL_SECONDS: Final = 0.05
START_POLLS_MAX: Final = 1_200
STOP_SECONDS_MAX: Final = 60.0

SOCKET: Final = "server.sock"
"""Named from where it is used, in the folder above the data: systems take about a hundred characters."""

DURABLE: Final[Mapping[str, str]] = {
    "innodb-flush-log-at-trx-commit": "1",
    "sync-binlog": "1",
    "log-bin": "binlog",
    "server-id": "1",
}

SMALL: Final[Mapping[str, str]] = {
    # A fresh server of a test; defaults for the rest.
    "innodb-buffer-pool-size": "128M",
    "innodb-log-file-size": "64M",
    "performance-schema": "OFF",
    "skip-name-resolve": "ON",
}


def find_program(*names: str) -> str | None:
    """The first of `names` on the path or where Debian keeps servers, None when none is there."""
    path = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"))
    return next((found for name in names if (found := shutil.which(name, path=path))), None)


class MariadbServer:
    """A server of one directory; `start` it, and `close` it in the end."""

    def __init__(self, directory: Path, **settings: str) -> None:
        """`settings` are those of the server, such as `max_allowed_packet="1M"`."""
        self._held = HeldPort()
        self.port = self._held.number
        self._directory = directory
        self._data = directory / "data"
        self._settings = {
            **DURABLE,
            **SMALL,
            **{name.replace("_", "-"): value for name, value in settings.items()},
        }
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Of the process, 0 while it is down."""
        return self._process.pid if self._process is not None else 0

    def url(self, database: str = "seckill", user: str = "root", password: str = "") -> str:
        secret = f":{password}" if password else ""
        return f"mysql://{user}{secret}@127.0.0.1:{self.port}/{database}"

    def start(self) -> None:
        """Start it, and make its data directory the first time. Raises RuntimeError."""
        if not self._data.exists():
            shutil.copytree(_empty_data(), self._data)
        server = find_program("mariadbd", "mysqld")
        assert server is not None
        log = self._directory / "server.log"
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [
                    server,
                    "--no-defaults",
                    f"--user={getpass.getuser()}",
                    f"--datadir={self._data}",
                    f"--port={self.port}",
                    "--bind-address=127.0.0.1",
                    f"--socket=../{SOCKET}",
                    f"--pid-file={self._directory / 'server.pid'}",
                    # A server that starts removes the temporary files of others from a shared one.
                    f"--tmpdir={self._temporary()}",
                    *(f"--{name}={value}" for name, value in self._settings.items()),
                ],
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        for _ in range(START_POLLS_MAX):
            if self._answers():
                return
            try:
                self._process.wait(POLL_SECONDS)
                break
            except subprocess.TimeoutExpired:
                continue
        raise RuntimeError(f"mariadbd did not start:\n{log.read_text()[-2_000:]}")

    def stop(self) -> None:
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it as a power failure of the process would: kill -9."""
        self._end(signal.SIGKILL)

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

    def execute(self, statement: str, database: str = "") -> str:
        """Run SQL as root by the command line client, and return what it printed."""
        client = find_program("mariadb", "mysql")
        assert client is not None
        done = subprocess.run(
            [
                client,
                "--no-defaults",
                f"--socket={SOCKET}",
                "--user=root",
                "--batch",
                "--skip-column-names",
                *([database] if database else []),
            ],
            cwd=self._directory,
            input=statement,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(done.stderr)
        return done.stdout

    async def query(self, statement: str, database: str = "") -> str:
        """`execute` for tests that run on an event loop."""
        return await asyncio.to_thread(self.execute, statement, database)

    def _temporary(self) -> Path:
        folder = self._directory / "tmp"
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def _answers(self) -> bool:
        try:
            self.execute("SELECT 1")
        except RuntimeError:
            return False
        return True

    def _end(self, number: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is not None:
            end(process, number, STOP_SECONDS_MAX)


@contextmanager
def mariadb_server(directory: Path, **settings: str) -> Iterator[MariadbServer]:
    """A running server for the block."""
    server = MariadbServer(directory, **settings)
    try:
        server.start()
        yield server
    finally:
        server.close()


@cache
def _empty_data() -> Path:
    """The data of a new server, made once and kept while this process runs: to copy it is quicker.

    Raises RuntimeError.
    """
    install = find_program("mariadb-install-db", "mysql_install_db")
    assert install is not None
    folder = Path(tempfile.mkdtemp(prefix="mariadb-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    done = subprocess.run(
        [
            install,
            "--no-defaults",
            f"--user={getpass.getuser()}",
            f"--datadir={folder / 'data'}",
            f"--tmpdir={folder}",
            "--auth-root-authentication-method=normal",
            "--skip-test-db",
            "--skip-log-bin",
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"mariadb-install-db failed:\n{done.stdout}{done.stderr}")
    return folder / "data"
