"""A connection is used until its first error and never after it; no wait is without a limit."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trustme

from engine.errors import ConfigError, StoreUnavailable
from engine.event_loop import run_async
from engine.stores.mysql_connection import MysqlConnection, code_of
from engine.stores.mysql_url import parse_mysql_url
from engine.testing.mariadb_server import mariadb_server
from tests.servers import need


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[MysqlConnection]:
    connection = await MysqlConnection.open(parse_mysql_url(url))
    try:
        yield connection
    finally:
        connection.close()


async def refuses_everything(connection: MysqlConnection) -> None:
    assert connection.closed
    with pytest.raises(StoreUnavailable, match="closed by an earlier error"):
        await connection.run("SELECT 1")


async def test_a_failed_statement_ends_its_connection_and_names_the_code(mariadb_url: str) -> None:
    async with connected(mariadb_url) as connection:
        with pytest.raises(StoreUnavailable, match=r"doesn't exist \(error 1146\)") as caught:
            await connection.run("SELECT * FROM nothing")
        assert code_of(caught.value) == 1146
        await refuses_everything(connection)


async def test_a_cancelled_statement_ends_its_connection(mariadb_url: str) -> None:
    async with connected(mariadb_url) as connection:
        running = asyncio.create_task(connection.run("SELECT SLEEP(5)"))
        await asyncio.sleep(0)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        # Its answer is still under way, and would be taken for the next statement's.
        await refuses_everything(connection)


async def test_a_statement_that_takes_too_long_ends_its_connection(mariadb_url: str) -> None:
    async with connected(mariadb_url) as connection:
        with pytest.raises(StoreUnavailable, match=r"no answer from the server within 0.01 s"):
            await connection.run("SELECT SLEEP(5)", 0.01)
        await refuses_everything(connection)


async def test_of_several_statements_the_first_that_fails_ends_them(mariadb_url: str) -> None:
    async with connected(mariadb_url) as connection:
        await connection.run("CREATE TABLE t (n INT)")
        with pytest.raises(StoreUnavailable, match="error 1146"):
            await connection.run_all(
                ["INSERT INTO t VALUES (1)", "DELETE FROM nothing", "INSERT INTO t VALUES (2)"]
            )
        await refuses_everything(connection)
    async with connected(mariadb_url) as connection:
        assert (await connection.run("SELECT n FROM t")).rows == ((1,),)


async def test_rows_that_an_update_matched_are_counted_also_unchanged_ones(
    mariadb_url: str,
) -> None:
    async with connected(mariadb_url) as connection:
        await connection.run_all(["CREATE TABLE t (n INT)", "INSERT INTO t VALUES (1), (1), (2)"])
        answers = await connection.run_all(
            ["UPDATE t SET n = 1 WHERE n = 1", "UPDATE t SET n = 1 WHERE n = 9"]
        )
        assert [each.matched for each in answers] == [2, 0]


async def test_a_server_that_says_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.stores.mysql_connection.CONNECT_SECONDS_MAX", 0.05)

    async def silent(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await ended.wait()
        writer.close()

    ended = asyncio.Event()
    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    with pytest.raises(StoreUnavailable, match=r"no answer from mysql://u@127\.0\.0\.1"):
        await MysqlConnection.open(parse_mysql_url(f"mysql://u:p@127.0.0.1:{port}/db"))
    ended.set()
    server.close()
    await server.wait_closed()


async def test_nobody_listening_is_unavailable_and_not_a_wrong_setting() -> None:
    with pytest.raises(StoreUnavailable, match=r"cannot connect to mysql://u@127\.0\.0\.1:1/db"):
        await MysqlConnection.open(parse_mysql_url("mysql://u:p@127.0.0.1:1/db"))


async def test_a_server_without_tls_is_not_spoken_to_in_clear_when_tls_is_asked_for(
    mariadb_url: str,
) -> None:
    async with eavesdropper(parse_mysql_url(mariadb_url).port) as (port, heard):
        url = mariadb_url.replace(str(parse_mysql_url(mariadb_url).port), str(port))
        for mode in ("on", "unverified"):
            with pytest.raises(ConfigError, match="tls was asked for and the server has none"):
                await MysqlConnection.open(parse_mysql_url(f"{url}?tls={mode}"))
        # Not even a hash of the password went out.
        assert heard == b""
        async with connected(url):
            assert b"root" in heard


@asynccontextmanager
async def eavesdropper(server_port: int) -> AsyncIterator[tuple[int, bytearray]]:
    """A port in front of a server, and what clients said there."""
    heard = bytearray()

    async def copy(
        source: asyncio.StreamReader, sink: asyncio.StreamWriter, kept: bytearray | None = None
    ) -> None:
        while data := await source.read(4096):
            if kept is not None:
                kept += data
            sink.write(data)
        sink.close()
        await sink.wait_closed()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server_reader, server_writer = await asyncio.open_connection("127.0.0.1", server_port)
        await asyncio.gather(copy(reader, server_writer, heard), copy(server_reader, writer))

    served = []

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        served.append(asyncio.create_task(serve(reader, writer)))

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1], heard
    await asyncio.gather(*served)
    server.close()
    await server.wait_closed()


@pytest.fixture
def encrypted(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """The URL of a server that speaks TLS, and the certificate of the authority that signed it."""
    need("mariadbd", "mysqld")
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    names = {each: tmp_path / f"{each}.pem" for each in ("ca", "cert", "key")}
    authority.cert_pem.write_to_path(names["ca"])
    certificate.private_key_pem.write_to_path(names["key"])
    certificate.cert_chain_pems[0].write_to_path(names["cert"])
    settings = {f"ssl_{name}": str(path) for name, path in names.items()}
    with mariadb_server(tmp_path / "server", **settings) as server:
        server.execute("CREATE DATABASE seckill")
        yield server.url(), names["ca"]


# Each event loop brings its own TLS.
@pytest.mark.parametrize("run", [asyncio.run, run_async])
def test_an_encrypted_connection_checks_who_it_speaks_to(
    encrypted: tuple[str, Path], run: Callable[[Coroutine[Any, Any, None]], None]
) -> None:
    url, authority = encrypted

    async def cipher(options: str) -> str:
        async with connected(f"{url}{options}") as connection:
            return str((await connection.run("SHOW SESSION STATUS LIKE 'Ssl_cipher'")).rows[0][1])

    async def check() -> None:
        assert await cipher(f"?tls=on&tls_ca={authority}")
        assert await cipher("?tls=unverified")
        assert not await cipher("")
        with pytest.raises(StoreUnavailable, match="certificate verify failed"):
            await cipher("?tls=on")

    run(check())
