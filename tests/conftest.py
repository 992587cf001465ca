"""What every test runs under: no blocked event loop, and repeatable random examples."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest
from blockbuster import BlockingError, blockbuster_ctx
from hypothesis import settings

import engine
from tests.servers import (
    held_port,
    mariadb,
    mariadb_url,
    nats,
    own_nats,
    own_nats_cluster,
    redis_url,
    two_databases,
)
from tests.shell import shell

__all__ = [
    "held_port",
    "mariadb",
    "mariadb_url",
    "nats",
    "own_nats",
    "own_nats_cluster",
    "redis_url",
    "shell",
    "two_databases",
]

# Examples are not timed: the machine is shared. A build server runs the same examples every time,
# a developer's machine looks for new ones; either prints how to repeat a failure.
settings.register_profile("local", deadline=None, print_blob=True)
settings.register_profile("ci", deadline=None, print_blob=True, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "local")

# What a shell starts in the background ignores Ctrl-C, and so would every program of the tests.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

LONGEST = "test_readme.py"

ENGINE_FOLDER = str(Path(engine.__file__).parent) + os.sep


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Of processes side by side, one begins with the longest test: begun last, it would run alone."""
    if hasattr(config, "workerinput"):
        items.sort(key=lambda each: each.path.name != LONGEST)


@pytest.fixture(autouse=True)
def _blocking_calls_raise(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """Raise BlockingError when our code blocks the event loop of an async test.

    Calls of other threads, such as a store's writer, pass: no loop runs there.
    """
    if request.node.get_closest_marker("asyncio") is None:
        yield
        return
    monkeypatch.setattr(apsw, "connection_hooks", [*apsw.connection_hooks, _watch_statements])
    with blockbuster_ctx(["engine", "loadtest"]) as detector:
        # Settings are read once, before anything is served.
        for name in ("io.TextIOWrapper.read", "io.BufferedReader.read", "os.stat"):
            detector.functions[name].can_block_in("engine/config.py", "_read_toml")
            detector.functions[name].can_block_in("engine/auth_settings.py", "_read_secret")
        # So are the pages and the version of the package.
        for name in (
            *("io.TextIOWrapper.read", "io.BufferedReader.read"),
            *("os.stat", "os.listdir", "os.scandir"),
        ):
            detector.functions[name].can_block_in("engine/service/service.py", "__init__")
        # What is below /proc is no file of a disk.
        for name in ("io.BufferedReader.read", "os.listdir", "os.stat"):
            detector.functions[name].can_block_in("engine/service/metrics.py", "render")
        # The Redis client looks its own version up when it connects.
        for name in ("os.stat", "os.listdir", "os.scandir", "io.TextIOWrapper.read"):
            detector.functions[name].can_block_in("redis/utils.py", "get_lib_version")
        # A crowd notes an order where it sends it: what was not noted must not be sent.
        detector.functions["os.write"].can_block_in("engine/inventory/history.py", "_write")
        yield


def _watch_statements(connection: apsw.Connection) -> None:
    # The detector patches Python functions and cannot see into the SQLite driver.
    connection.exec_trace = _refuse_on_the_loop


def _refuse_on_the_loop(cursor: apsw.Cursor, statement: str, bindings: object) -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return True
    frame = sys._getframe()
    while frame.f_back is not None:
        frame = frame.f_back
        if frame.f_code.co_filename.startswith(ENGINE_FOLDER):
            raise BlockingError(f"apsw: {statement}")
    return True
