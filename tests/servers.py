"""Real servers for tests: started when first needed, one for all tests that do not break it.

A machine without them skips those tests; under CI=true that is a failure.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import NoReturn

import pytest

from engine.stores.mysql_url import MysqlAddress, parse_mysql_url
from engine.testing.mariadb_server import MariadbServer, find_program, mariadb_server
from engine.testing.nats_server import (
    NatsCluster,
    NatsServer,
    find_nats_server,
    nats_cluster,
    nats_server,
)
from engine.testing.ports import HeldPort
from engine.testing.redis_server import redis_server

_NUMBERS = count(1)


def need(*programs: str) -> None:
    """Skip when none of `programs` is installed; fail instead on a build server."""
    if find_program(*programs) is None:
        _do_without(f"{programs[0]} is not installed; `make services` installs it")


def need_nats() -> None:
    """Skip when there is no nats-server; fail instead on a build server."""
    if find_nats_server() is None:
        _do_without("nats-server is not installed; `make install` installs the locked one")


@pytest.fixture
def held_port() -> Iterator[int]:
    """A port of 127.0.0.1 for a server of the test's own. Until that listens nobody does."""
    port = HeldPort()
    yield port.number
    port.release()


@pytest.fixture(scope="session")
def mariadb(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MariadbServer]:
    """A server that is shared: do not stop, pause or reconfigure it."""
    need("mariadbd", "mysqld")
    with mariadb_server(tmp_path_factory.mktemp("mariadb")) as server:
        yield server


@pytest.fixture
def mariadb_url(mariadb: MariadbServer) -> str:
    """A new, empty database on the shared server."""
    name = f"test_{next(_NUMBERS)}"
    mariadb.execute(f"CREATE DATABASE {name}")
    return mariadb.url(name)


@pytest.fixture
def two_databases(mariadb: MariadbServer) -> list[MysqlAddress]:
    """Two new, empty databases on the shared server."""
    names = [f"test_{next(_NUMBERS)}" for _ in range(2)]
    for name in names:
        mariadb.execute(f"CREATE DATABASE {name}")
    return [parse_mysql_url(mariadb.url(name)) for name in names]


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A shared Redis server; a test deletes its keys."""
    need("redis-server")
    with redis_server(tmp_path_factory.mktemp("redis")) as url:
        yield url


@pytest.fixture(scope="session")
def nats(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    """A server that is shared: do not stop or pause it. A test takes names that no other has."""
    need_nats()
    with nats_server(tmp_path_factory.mktemp("nats")) as server:
        yield server


@pytest.fixture
def own_nats(tmp_path: Path) -> Iterator[NatsServer]:
    """A running server of the test's own, to be broken."""
    need_nats()
    with nats_server(tmp_path / "nats") as server:
        yield server


@pytest.fixture
def own_nats_cluster(tmp_path: Path) -> Iterator[NatsCluster]:
    """Three running servers of the test's own, to be broken."""
    need_nats()
    with nats_cluster(tmp_path / "nats") as cluster:
        yield cluster


def _do_without(message: str) -> NoReturn:
    if os.environ.get("CI"):
        pytest.fail(message)
    pytest.skip(message)
