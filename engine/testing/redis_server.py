"""A private Redis server for tests: own directory, a socket of its own, nothing on disk."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from engine.testing.mariadb_server import find_program, free_port

START_POLLS_MAX: Final = 400
POLL_SECONDS: Final = 0.05
STOP_SECONDS_MAX: Final = 20.0


@contextmanager
def redis_server(directory: Path) -> Iterator[str]:
    """A running server for the block; gives its URL. Raises RuntimeError when it does not start."""
    server, client = find_program("redis-server"), find_program("redis-cli")
    assert server is not None
    assert client is not None
    port = free_port()
    log = directory / "redis.log"
    with log.open("ab") as output:
        process = subprocess.Popen(
            [
                *(server, "--port", str(port), "--bind", "127.0.0.1", "--dir", str(directory)),
                *("--save", "", "--appendonly", "no"),
            ],
            stdout=output,
            stderr=output,
        )
    try:
        for _ in range(START_POLLS_MAX):
            asked = [client, "-p", str(port), "ping"]
            if subprocess.run(asked, capture_output=True, check=False).stdout == b"PONG\n":
                break
            try:
                process.wait(POLL_SECONDS)
            except subprocess.TimeoutExpired:
                continue
            raise RuntimeError(f"redis-server did not start:\n{log.read_text()[-2_000:]}")
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        process.kill()
        process.wait(STOP_SECONDS_MAX)
