"""With rediss:// the server's certificate and name are checked before anything is said."""

from __future__ import annotations

import asyncio
import gc
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import trustme

from engine.clock import SystemClock
from engine.config import GateSettings
from engine.gate.redis_gate import RedisGate
from engine.testing.gate_contract import order
from engine.testing.redis_server import RedisServer
from tests.gate.test_redis_gate import connector
from tests.servers import need


class TlsServer(NamedTuple):
    """`name` is what its certificate says, `url` where it is."""

    process: RedisServer
    url: str
    name: str


@pytest.fixture
def authority(tmp_path: Path) -> trustme.CA:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    return authority


@pytest.fixture
def context(authority: trustme.CA) -> ssl.SSLContext:
    """Of a server that is who it says."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    return context


@pytest.fixture(params=["127.0.0.1", "another.example"])
def server(
    tmp_path: Path, authority: trustme.CA, held_port: int, request: pytest.FixtureRequest
) -> Iterator[TlsServer]:
    need("redis-server")
    issued = authority.issue_cert(request.param)
    issued.private_key_pem.write_to_path(tmp_path / "key.pem")
    issued.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    server = RedisServer(
        tmp_path,
        tls_port=str(held_port),
        tls_cert_file=str(tmp_path / "cert.pem"),
        tls_key_file=str(tmp_path / "key.pem"),
        tls_ca_cert_file=str(tmp_path / "ca.pem"),
        tls_auth_clients="no",
    )
    try:
        server.start()
        yield TlsServer(server, f"rediss://127.0.0.1:{held_port}", request.param)
    except RuntimeError as error:
        pytest.skip(f"this redis-server was built without TLS: {error}")
    finally:
        server.close()


async def test_a_server_is_spoken_to_when_its_certificate_and_name_are_right(
    server: TlsServer, tmp_path: Path
) -> None:
    for known, options in ((True, f"?tls_ca={tmp_path / 'ca.pem'}"), (False, "")):
        # The driver reads the file of the authority, which would block this loop.
        connected = await asyncio.to_thread(asyncio.run, _ask(server.url + options))
        assert connected == (known and server.name == "127.0.0.1")


@pytest.mark.parametrize("server", ["127.0.0.1"], indirect=True)
async def test_a_connection_is_closed_at_once_though_the_server_says_nothing(
    server: TlsServer, tmp_path: Path
) -> None:
    connect = connector(f"{server.url}?tls_ca={tmp_path / 'ca.pem'}")

    async def open_and_close() -> None:
        connection = await connect()
        server.process.pause()
        await connection.close()

    try:
        await asyncio.to_thread(asyncio.run, open_and_close())
    finally:
        server.process.resume()
    # What a loop that has ended left open is warned of when it is collected.
    gc.collect()


async def test_an_attempt_that_is_given_up_leaves_nothing_open(
    context: ssl.SSLContext, tmp_path: Path
) -> None:
    asked, ended = threading.Event(), asyncio.Event()

    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(1)
        # Not even to a goodbye.
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        asked.set()
        await ended.wait()
        writer.transport.abort()

    async def give_up(url: str) -> None:
        opening = asyncio.ensure_future(connector(url)())
        await asyncio.to_thread(asked.wait)
        opening.cancel()
        await asyncio.gather(opening, return_exceptions=True)
        assert opening.cancelled()

    async with await asyncio.start_server(say_nothing, "127.0.0.1", ssl=context) as server:
        port = server.sockets[0].getsockname()[1]
        url = f"rediss://127.0.0.1:{port}?tls_ca={tmp_path / 'ca.pem'}"
        await asyncio.to_thread(asyncio.run, give_up(url))
        ended.set()
    gc.collect()


async def _ask(url: str) -> bool:
    gate = await RedisGate.open(connector(url), "Redis", GateSettings(), SystemClock())
    await gate.check([order("PHONE")])
    connected = gate.connected
    await gate.close()
    return connected
