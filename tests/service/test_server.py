"""The limits of a listener, on real sockets: who does not finish keeps nobody else out."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import pytest
import uvloop

from engine.config import ServiceSettings
from engine.errors import ConfigError
from engine.service.door import SPARED_SECONDS, SWEEP_SECONDS, Door
from engine.service.server import ACCEPTED_AT_ONCE, HEAD_BYTES_MAX, Listener, bind, url_of
from engine.testing.virtual_clock import VirtualClock, settle
from tests.service.api import Api, serving

GET = b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n"


class Wire:
    """One connection, byte by byte."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def send(self, data: bytes) -> None:
        self._writer.write(data)
        with contextlib.suppress(ConnectionError):
            await self._writer.drain()

    async def reply(self) -> tuple[int, dict[str, str], bytes]:
        """The next reply, by its length."""
        head = await self._reader.readuntil(b"\r\n\r\n")
        first, *lines = head.decode().rstrip().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines)
        body = await self._reader.readexactly(int(headers["content-length"]))
        return int(first.split()[1]), headers, body

    async def rest(self) -> bytes:
        """Everything until the server closes."""
        parts = []
        with contextlib.suppress(ConnectionError):
            while data := await self._reader.read(65_536):
                parts.append(data)
        return b"".join(parts)

    def close(self) -> None:
        self._writer.close()


class Served(NamedTuple):
    api: Api
    door: Door
    clock: VirtualClock
    port: int
    wires: list[Wire]

    async def connect(self) -> Wire:
        """A connection that the server has taken."""
        seen = self.door.connections + sum(self.door.closed.values())
        wire = Wire(*await asyncio.open_connection("127.0.0.1", self.port))
        self.wires.append(wire)
        await until(lambda: self.door.connections + sum(self.door.closed.values()) != seen)
        return wire


async def until(true: Any) -> None:
    """Let the loop and the sockets work until something is so."""
    while not true():  # noqa: ASYNC110 -- what happens on a socket sets no event of ours
        await asyncio.sleep(0)


@asynccontextmanager
async def listening(app: Any = None, **limits: Any) -> AsyncIterator[Served]:
    """A listener on a free port. Its clock stands still; its sockets do not."""
    async with serving() as api:
        clock = VirtualClock()
        own = ServiceSettings(**limits)
        door = Door(own, clock)
        address = bind("127.0.0.1", 0, "service.port")
        listener = Listener(app or api.service.public, address, own, door)
        running = asyncio.create_task(listener.run_until_told())
        await until(lambda: listener.started)
        served = Served(api, door, clock, address.getsockname()[1], [])
        try:
            yield served
        finally:
            for each in served.wires:
                each.close()
            listener.should_exit = True
            await running
            address.close()


async def test_requests_are_answered_one_after_the_other_on_one_connection() -> None:
    async with listening() as served:
        await served.api.open("PHONE", 5)
        wire = await served.connect()
        body = b'{"buyer":"alice"}'
        await wire.send(
            b"POST /v1/skus/PHONE/reservations HTTP/1.1\r\nhost: localhost\r\nidempotency-key: 1\r\n"
            b"content-length: %d\r\n\r\n%s" % (len(body), body)
        )
        status, headers, content = await wire.reply()
        assert (status, headers["location"]) == (201, "/v1/reservations/phone:1")
        assert json.loads(content)["id"] == "PHONE:1"
        assert "server" not in headers
        await wire.send(GET)
        assert (await wire.reply())[0] == 200
        assert served.door.connections == 1
        assert served.door.closed == {}


@pytest.mark.parametrize(
    "begun", [b"", b"GET /healthz HT", b"POST /v1/orders HTTP/1.1\r\ncontent-length: 9\r\n\r\n{"]
)
async def test_a_request_that_does_not_arrive_in_time_is_408_and_closed(begun: bytes) -> None:
    async with listening(request_seconds_max=10) as served:
        wire = await served.connect()
        await wire.send(begun)
        await settle()
        served.clock.advance(9.75)
        served.door.close_slow()
        assert served.door.closed == {}
        # A new connection has its own time.
        other = await served.connect()
        served.clock.advance(0.25)
        served.door.close_slow()
        assert (await wire.rest()).startswith(b"HTTP/1.1 408 Request Timeout\r\n")
        assert served.door.closed == {"request_seconds_max": 1}
        await other.send(GET)
        assert (await other.reply())[0] == 200


async def test_bytes_that_trickle_in_do_not_win_more_time() -> None:
    async with listening(request_seconds_max=10) as served:
        wire = await served.connect()
        for byte in b"GET /":
            await wire.send(bytes([byte]))
            await settle()
            served.clock.advance(2)
        served.door.close_slow()
        assert b"408 Request Timeout" in await wire.rest()


async def test_a_connection_that_is_idle_between_two_requests_is_left_open() -> None:
    async with listening(request_seconds_max=10) as served:
        wire = await served.connect()
        await wire.send(GET)
        await wire.reply()
        served.clock.advance(60)
        served.door.close_slow()
        await wire.send(GET)
        assert (await wire.reply())[0] == 200


async def test_the_sweep_comes_by_itself() -> None:
    async with listening(request_seconds_max=1) as served:
        sweeping = asyncio.create_task(served.door.sweep())
        wire = await served.connect()
        await asyncio.sleep(0)
        for _ in range(4):
            served.clock.advance(SWEEP_SECONDS)
            await asyncio.sleep(0)
        assert b"408 Request Timeout" in await wire.rest()
        sweeping.cancel()


async def test_a_head_beyond_its_limit_is_431() -> None:
    async with listening() as served:
        wire = await served.connect()
        await wire.send(b"GET /healthz HTTP/1.1\r\nx: " + b"a" * HEAD_BYTES_MAX)
        assert (await wire.rest()).startswith(b"HTTP/1.1 431 ")
        assert served.door.closed == {"head_bytes_max": 1}
        fits = await served.connect()
        await fits.send(b"GET /healthz HTTP/1.1\r\nx: " + b"a" * (HEAD_BYTES_MAX - 100))
        await fits.send(b"\r\nhost: localhost\r\n\r\n")
        assert (await fits.reply())[0] == 200


async def test_a_head_that_follows_a_large_body_in_one_piece_is_not_taken_for_a_long_one() -> None:
    async with listening() as served:
        wire = await served.connect()
        body = b"[" + b" " * (2 * HEAD_BYTES_MAX)
        await wire.send(
            b"POST /v1/reservations:batch HTTP/1.1\r\nhost: localhost\r\ncontent-length: %d\r\n\r\n"
            % len(body)
        )
        await wire.send(body + b"GET /healthz HTTP/1.1\r\nhost: local")
        assert (await wire.reply())[0] == 400
        await wire.send(b"host\r\n\r\n")
        assert (await wire.reply())[0] == 200


async def test_a_body_is_no_part_of_the_head() -> None:
    async with listening() as served:
        wire = await served.connect()
        body = json.dumps([{"id": "1", "sku": "NONE", "buyer": "a"}]).encode().ljust(100_000)
        await wire.send(
            b"POST /v1/reservations:batch HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100000\r\n\r\n"
            + body
            + GET
        )
        assert (await wire.reply())[0] == 200
        assert (await wire.reply())[0] == 200
        assert served.door.closed == {}


async def test_when_full_the_connection_that_is_silent_the_longest_makes_room() -> None:
    async with listening(connections_max=8) as served:
        busy = await served.connect()
        await busy.send(GET)
        await busy.reply()
        silent = [await served.connect() for _ in range(7)]
        served.clock.advance(SPARED_SECONDS)
        new = await served.connect()
        assert (await silent[0].rest()).startswith(b"HTTP/1.1 408 ")
        for wire in (new, busy, silent[1]):
            await wire.send(GET)
            assert (await wire.reply())[0] == 200
        assert served.door.closed == {"connections_max": 1}
        assert served.door.connections == 8


async def test_when_full_of_those_who_just_came_a_new_one_is_told_503() -> None:
    async with listening(connections_max=8) as served:
        silent = [await served.connect() for _ in range(8)]
        served.clock.advance(SPARED_SECONDS / 2)
        new = await served.connect()
        told = await new.rest()
        assert told.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
        assert b"retry-after: 1\r\n" in told
        assert served.door.connections == 8
        await silent[0].send(GET)
        assert (await silent[0].reply())[0] == 200


async def test_who_leaves_makes_room() -> None:
    async with listening(connections_max=8) as served:
        wires = [await served.connect() for _ in range(8)]
        for each in wires:
            each.close()
        await until(lambda: served.door.connections == 0)
        assert not served.door.arriving
        await (await served.connect()).send(GET)
        assert (await served.wires[-1].reply())[0] == 200


async def test_a_reply_that_nobody_takes_is_cut_off_and_one_that_is_taken_is_not() -> None:
    block = b"x" * 1_000_000

    async def endless(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(64):
            await send({"type": "http.response.body", "body": block, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    async with listening(endless, request_seconds_max=10) as served:
        stuck = await served.connect()
        await stuck.send(GET)
        await until(lambda: served.door.stuck)
        served.clock.advance(5)
        taken = await served.connect()
        await taken.send(GET + b"")
        reading = asyncio.create_task(taken.rest())
        served.clock.advance(5)
        served.door.close_slow()
        assert served.door.closed == {"reply_seconds_max": 1}
        assert len(await stuck.rest()) < 64 * len(block)
        reading.cancel()


@pytest.mark.parametrize(
    "sent",
    [
        b"\x00\x01\x02\r\n\r\n",
        b"GET /healthz HTTP/9.9\r\n\r\n",
        b"POST /v1/orders HTTP/1.1\r\nhost: t\r\ncontent-length: x\r\n\r\n",
        b"POST /v1/orders HTTP/1.1\r\nhost: t\r\ncontent-length: -1\r\n\r\n",
        b"POST /v1/orders HTTP/1.1\r\nhost: t\r\ncontent-length: 99999999999999999999999\r\n\r\n",
        b"POST /v1/orders HTTP/1.1\r\nhost: t\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
    ],
)
async def test_what_is_not_http_is_400_and_closed(sent: bytes) -> None:
    async with listening() as served:
        wire = await served.connect()
        await wire.send(sent)
        assert (await wire.rest()).startswith(b"HTTP/1.1 400 Bad Request\r\n")
        await until(lambda: served.door.connections == 0)


@pytest.mark.parametrize(
    ("line", "status"),
    [
        (b"GET /v1/skus/\xff HTTP/1.1", 400),
        (b"GET http://other/healthz HTTP/1.1", 200),
        (b"GET //healthz HTTP/1.1", 404),
        (b"OPTIONS * HTTP/1.1", 404),
        (b"HEAD /nothing HTTP/1.1", 404),
        (b"GET /v1/skus?limit=%zz HTTP/1.1", 400),
    ],
)
async def test_an_odd_request_line_is_no_error_of_the_server(line: bytes, status: int) -> None:
    async with listening() as served:
        wire = await served.connect()
        await wire.send(line + b"\r\nhost: localhost\r\nconnection: close\r\n\r\n")
        assert (await wire.rest()).startswith(b"HTTP/1.1 %d " % status)


async def test_an_address_that_is_taken_or_none_is_told_with_its_setting() -> None:
    taken = bind("127.0.0.1", 0, "service.port")
    taken.listen()
    port = taken.getsockname()[1]
    assert url_of(taken) == f"http://127.0.0.1:{port}"
    with pytest.raises(ConfigError, match=rf"cannot listen on 127.0.0.1:{port}: .*service\.port"):
        bind("127.0.0.1", port, "service.port")
    with pytest.raises(ConfigError, match=r"choose another service\.admin_port"):
        bind("300.1.1.1", 0, "service.admin_port")
    taken.close()


def test_a_rush_of_new_connections_is_taken_many_at_a_time() -> None:
    # Of uvloop's own a socket gets one a turn, and a turn is long under load.
    rush = 4 * ACCEPTED_AT_ONCE

    async def turns_needed() -> int:
        async with listening() as served:
            sockets = [socket.create_connection(("127.0.0.1", served.port)) for _ in range(rush)]
            turns = 0
            while served.door.connections < rush:
                await asyncio.sleep(0)
                turns += 1
            for each in sockets:
                each.close()
            await until(lambda: served.door.connections == 0)
            return turns

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(turns_needed()) < rush / 2
