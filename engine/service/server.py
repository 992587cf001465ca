"""The HTTP server of one listener: uvicorn, with the limits it has not.

    connections_max       beyond it the connection that has sent nothing whole for the longest time is
                          closed, so that a thousand of those that never finish keep nobody out,
                          else the one that is idle for the longest; where there is none of them, the
                          new one is told 503
    request_seconds_max   for a request to arrive whole, head and body, and for a reply to be taken
    HEAD_BYTES_MAX        of a request line with its headers: 431
    PIPELINED_MAX         requests waiting behind another one of their connection; they are answered,
                          and the connection is closed

A connection is told what is wrong with a request only when nothing before it is unanswered: it would
take the words for the answer to its order. Else that is answered and the connection closed.

Every method of the protocol that is overridden runs for each request, so it does next to nothing.

An order takes a shortcut: once its body is there it goes to the application without a task, a scope
of messages and a second write, which together cost more than deciding it (docs/decisions/0021).
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from functools import partial
from typing import Any, Final

import httptools
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)

from engine.config import ServiceSettings
from engine.errors import ConfigError
from engine.service.app import Application
from engine.service.door import MALFORMED, TOO_LONG, TOO_MANY, Door
from engine.service.replies import Reply

HEAD_BYTES_MAX: Final = 32_768
"""As much as common proxies pass on."""

PIPELINED_MAX: Final = 256
"""A read of 256 KiB may hold five thousand requests, of 3 KiB each once they are parsed."""

BACKLOG: Final = 2_048

ACCEPTED_AT_ONCE: Final = 16
"""New connections in a turn of the loop. uvloop takes one of a socket; in a flood a turn takes some
milliseconds and a thousand who come anew would wait for seconds, so the socket is listened to often."""


class HeadTooLong(Exception):
    pass


class TooManyPipelined(Exception):
    pass


class LimitedProtocol(HttpToolsProtocol):
    """One connection."""

    def __init__(self, door: Door, application: Application | None, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._door = door
        self._application = application
        self._order: tuple[RequestResponseCycle, bytes] | None = None
        self._running: RequestResponseCycle | None = None
        self._refused = False
        self._deaf = False
        # Of what is being read: its length, and how much of it may stand before the next head.
        self._read_bytes = self._before_head = 0
        self._head_bytes = 0
        self._in_head = True
        self._plain_head = b""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        door = self._door
        if not door.make_room():
            door.closed["connections_max"] += 1
            self._refused = True
            transport.write(TOO_MANY)
            transport.close()
            return
        door.connections += 1
        door.arriving[self] = door.clock.monotonic()
        super().connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._refused:
            return
        door = self._door
        door.connections -= 1
        door.arriving.pop(self, None)
        door.stuck.pop(self, None)
        door.idle.pop(self, None)
        self._stop_answering()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._refused or self._deaf or self.transport.is_closing():
            return
        self._read_bytes = len(data)
        self._feed(data)
        self._before_head = 0
        if self._in_head:
            self._head_bytes += len(data)
            if self._head_bytes > HEAD_BYTES_MAX:
                self._refuse(HeadTooLong)

    def _feed(self, data: bytes) -> None:
        while True:
            try:
                self.parser.feed_data(data)
            except httptools.HttpParserUpgrade as offered:
                if self._plain_head:
                    data = self._plain_head + data[offered.args[0] :]
                    self._plain_head = b""
                    continue
                self._refuse(None)
            except httptools.HttpParserError as error:
                self._refuse(type(error.__context__))
            return

    def on_message_begin(self) -> None:
        # Not before: empty lines, which may stand in front of a request, keep no connection alive.
        self._unset_keepalive_if_required()
        super().on_message_begin()
        self._in_head = True
        self._head_bytes = -self._before_head
        # Taken out first, so that the dictionary stays in the order of time.
        door = self._door
        door.idle.pop(self, None)
        door.arriving.pop(self, None)
        door.arriving[self] = door.clock.monotonic()

    def on_headers_complete(self) -> None:
        self._in_head = False
        if self._read_bytes > HEAD_BYTES_MAX and self._head_length() > HEAD_BYTES_MAX:
            raise HeadTooLong
        if len(self.pipeline) >= PIPELINED_MAX:
            raise TooManyPipelined
        if self.parser.should_upgrade() and self.parser.get_method() != b"CONNECT":
            # The parser would leave the body to the other protocol, which nobody speaks here: it
            # is given the request again without the offer.
            self._plain_head = self._head_without_offer()
            return
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        if self._plain_head:
            return
        self._before_head = self._read_bytes
        self._door.arriving.pop(self, None)
        super().on_message_complete()
        if (order := self._order) is not None and order[0] is self.cycle:
            self._order = None
            self._begin_order(*order)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.transport.is_closing():
            self._watch_last_reply()
        elif self.timeout_keep_alive_task is not None and self not in self._door.arriving:
            self._door.idle[self] = self._door.clock.monotonic()

    def timeout_keep_alive_handler(self) -> None:
        super().timeout_keep_alive_handler()
        self._watch_last_reply()

    def _watch_last_reply(self) -> None:
        """A connection that is closing stays until its last reply is taken, in the time for one."""
        if self.transport.get_write_buffer_size():
            self._door.stuck.setdefault(self, self._door.clock.monotonic())

    def _head_length(self) -> int:
        return len(self.url) + sum(len(name) + len(value) for name, value in self.headers)

    def _head_without_offer(self) -> bytes:
        parts = [
            b"%b %b HTTP/%b"
            % (self.parser.get_method(), self.url, self.parser.get_http_version().encode())
        ]
        for name, value in self.headers:
            if name == b"connection":
                tokens = [each.strip() for each in value.split(b",")]
                kept = b", ".join(each for each in tokens if each.lower() != b"upgrade")
                parts.append(b"connection: " + kept)
            elif name != b"upgrade":
                parts.append(b"%b: %b" % (name, value))
        return b"\r\n".join([*parts, b"\r\n"])

    # -- the shortcut of an order

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        """Called when it is the turn of a request, whose body may still be to come."""
        if self.transport.is_closing():
            # Behind a request that was to be the last one.
            return
        self._running = cycle
        if self._deaf and cycle.more_body:
            self.transport.close()
            self._watch_last_reply()
            return
        application = self._application
        if application is None or cycle.waiting_for_100_continue or self.flow.write_paused:
            super()._start_asgi_task(cycle, app)
            return
        scope: Any = cycle.scope
        sku = application.shortcut(scope)
        if sku is None:
            super()._start_asgi_task(cycle, app)
        elif cycle.more_body:
            self._order = cycle, sku
        else:
            # It was behind another request of this connection, and has long arrived. Not now: a
            # thousand of them that are answered at once would each be begun by the one before.
            self.loop.call_soon(self._begin_order, cycle, sku)

    def _begin_order(self, cycle: RequestResponseCycle, sku: bytes) -> None:
        assert self._application is not None
        scope: Any = cycle.scope
        self._application.begin_order(scope, sku, bytes(cycle.body), partial(self._reply, cycle))

    def _reply(self, cycle: RequestResponseCycle, reply: Reply) -> None:
        """Write the whole reply at once, and go on with what follows on the connection."""
        if cycle.disconnected or cycle.response_complete or self.transport.is_closing():
            return
        parts = [STATUS_LINE[reply.status]]
        for name, value in (*cycle.default_headers, *reply.raw_headers()):
            parts += (name, b": ", value, b"\r\n")
        if not cycle.keep_alive:
            parts.append(b"connection: close\r\n")
        parts += (b"\r\n", reply.body)
        cycle.response_started = cycle.response_complete = True
        self.transport.write(b"".join(parts))
        if not cycle.keep_alive:
            self.transport.close()
        cycle.on_response()

    # -- what takes too long

    def pause_writing(self) -> None:
        self._door.stuck[self] = self._door.clock.monotonic()
        super().pause_writing()

    def resume_writing(self) -> None:
        if not self.transport.is_closing():
            self._door.stuck.pop(self, None)
        super().resume_writing()

    def give_up(self, last_words: bytes) -> None:
        """Close the connection, once what was taken is answered; at once without `last_words`."""
        self._door.arriving.pop(self, None)
        self._door.idle.pop(self, None)
        cycle: RequestResponseCycle | None = self.cycle
        waiting = None if cycle is None or cycle.response_complete else cycle
        if waiting is not None and (self.pipeline or not waiting.more_body) and last_words:
            self._deaf = True
            waiting.keep_alive = False
        elif not last_words or (waiting is not None and waiting.response_started):
            self._door.stuck.pop(self, None)
            self._stop_answering()
            self.transport.abort()
        else:
            if waiting is not None:
                # Its handler is waiting for the body; it is told that the client is gone.
                waiting.response_started = True
            self.transport.write(last_words)
            self.transport.close()
            self._watch_last_reply()

    def _stop_answering(self) -> None:
        """Have the handler that runs write nothing more; uvicorn knows the newest request only."""
        if self._running is not None:
            self._running.disconnected = True

    def _refuse(self, why: type | None) -> None:
        """Take nothing more of what the parser was given."""
        if self.transport.is_closing():
            return
        if why is HeadTooLong:
            self._door.closed["head_bytes_max"] += 1
        self.give_up(TOO_LONG if why is HeadTooLong else MALFORMED)


class Listener(uvicorn.Server):
    """One listener. `serve` returns when `should_exit` was set and everybody is served."""

    def __init__(
        self, app: ASGIApp, address: socket.socket, settings: ServiceSettings, door: Door
    ) -> None:
        application = app if isinstance(app, Application) else None

        def make_protocol(**arguments: Any) -> LimitedProtocol:
            return LimitedProtocol(door, application, **arguments)

        super().__init__(
            uvicorn.Config(
                app,
                http=make_protocol,  # type: ignore[arg-type]
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                backlog=BACKLOG,
                timeout_keep_alive=settings.keep_alive_seconds,  # type: ignore[arg-type]
                timeout_graceful_shutdown=settings.drain_seconds_max,  # type: ignore[arg-type]
            )
        )
        self.address = address

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """The program takes the signals, for both listeners together."""
        yield

    async def run_until_told(self) -> None:
        again = [self.address.dup() for _ in range(ACCEPTED_AT_ONCE - 1)]
        await self.serve([self.address, *again])


def bind(host: str, port: int, key: str) -> socket.socket:
    """A listening address. Raises ConfigError naming the setting `key`."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            *(host, port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        sock = socket.socket(family, kind, protocol)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(address)
        except OSError:
            sock.close()
            raise
    except OSError as error:
        raise ConfigError(
            f"cannot listen on {host}:{port}: {error.strerror or error}; choose another {key}"
        ) from None
    sock.setblocking(False)
    return sock


def listen(sock: socket.socket, key: str) -> None:
    """Take connections from now on. Raises ConfigError naming the setting `key`."""
    try:
        sock.listen(BACKLOG)
    except OSError as error:
        raise ConfigError(
            f"cannot listen on {url_of(sock)}: {error.strerror}; choose another {key}"
        ) from None


def url_of(sock: socket.socket) -> str:
    """`http://127.0.0.1:8080`"""
    host, port = sock.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
