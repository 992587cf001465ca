"""The HTTP server of one listener: uvicorn, with the limits it has not.

    connections_max       beyond it the connection that has sent nothing whole for the longest time is
                          closed, so that a thousand of those that never finish keep nobody out;
                          where there is none, the new one is told 503
    request_seconds_max   for a request to arrive whole, head and body, and for a reply to be taken
    HEAD_BYTES_MAX        of a request line with its headers: 431

Every method of the protocol that is overridden runs for each request, so it does next to nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections import Counter
from collections.abc import Iterator
from typing import Any, Final

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from engine.clock import Clock
from engine.config import ServiceSettings
from engine.errors import ConfigError

HEAD_BYTES_MAX: Final = 32_768
"""As much as common proxies pass on."""

SPARED_SECONDS: Final = 1.0
"""A connection that has begun a request so recently is not closed to make room."""

SWEEP_SECONDS: Final = 0.5
BACKLOG: Final = 2_048


def _plain(status: bytes, text: bytes, more: bytes = b"") -> bytes:
    return (
        b"HTTP/1.1 %s\r\ncontent-type: text/plain\r\ncontent-length: %d\r\n%sconnection: close\r\n\r\n%s"
        % (status, len(text), more, text)
    )


TOO_MANY: Final = _plain(b"503 Service Unavailable", b"too many connections", b"retry-after: 1\r\n")
TOO_SLOW: Final = _plain(b"408 Request Timeout", b"the request took too long to arrive")
TOO_LONG: Final = _plain(b"431 Request Header Fields Too Large", b"the headers are too long")


class Door:
    """The connections of one listener, and what the limits closed.

    `arriving` are those whose request is not whole yet, `stuck` those whose reply is not taken, both
    with the time since when; the oldest first.
    """

    def __init__(self, settings: ServiceSettings, clock: Clock) -> None:
        self.connections_max = settings.connections_max
        self.seconds_max = settings.request_seconds_max
        self.clock = clock
        self.connections = 0
        self.arriving: dict[LimitedProtocol, float] = {}
        self.stuck: dict[LimitedProtocol, float] = {}
        self.closed: Counter[str] = Counter()

    def make_room(self) -> bool:
        """Whether one more connection may stay; an old one may be closed for it."""
        if self.connections < self.connections_max:
            return True
        oldest = next(iter(self.arriving), None)
        if oldest is None or self.clock.monotonic() - self.arriving[oldest] < SPARED_SECONDS:
            return False
        self.closed["connections_max"] += 1
        oldest.give_up(TOO_SLOW)
        return True

    async def sweep(self) -> None:
        """Close what takes too long, until cancelled."""
        while True:
            await self.clock.sleep(SWEEP_SECONDS)
            self.close_slow()

    def close_slow(self) -> None:
        since = self.clock.monotonic() - self.seconds_max
        for kind, waiting in (("request", self.arriving), ("reply", self.stuck)):
            for protocol, began in list(waiting.items()):
                if began > since:
                    break
                self.closed[f"{kind}_seconds_max"] += 1
                protocol.give_up(TOO_SLOW if kind == "request" else b"")


class LimitedProtocol(HttpToolsProtocol):
    """One connection."""

    def __init__(self, door: Door, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._door = door
        self._refused = False
        self._head_bytes = 0
        self._in_head = True

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
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._refused or self.transport.is_closing():
            return
        super().data_received(data)
        if self._in_head:
            self._head_bytes += len(data)
            if self._head_bytes > HEAD_BYTES_MAX:
                self._door.closed["head_bytes_max"] += 1
                self.give_up(TOO_LONG)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head = True
        self._head_bytes = 0
        # Taken out first, so that the dictionary stays in the order of time.
        self._door.arriving.pop(self, None)
        self._door.arriving[self] = self._door.clock.monotonic()

    def on_headers_complete(self) -> None:
        self._in_head = False
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._door.arriving.pop(self, None)
        super().on_message_complete()

    def pause_writing(self) -> None:
        self._door.stuck[self] = self._door.clock.monotonic()
        super().pause_writing()

    def resume_writing(self) -> None:
        self._door.stuck.pop(self, None)
        super().resume_writing()

    def give_up(self, last_words: bytes) -> None:
        """Close the connection, saying why when no reply is under way."""
        self._door.arriving.pop(self, None)
        self._door.stuck.pop(self, None)
        cycle: RequestResponseCycle | None = self.cycle
        if last_words and (cycle is None or cycle.response_complete):
            self.transport.write(last_words)
            self.transport.close()
        elif last_words and cycle is not None and not cycle.response_started:
            # Its handler is waiting for a body; it is told that the client is gone.
            self.transport.write(last_words)
            cycle.response_started = True
            self.transport.close()
        else:
            self.transport.abort()


class Listener(uvicorn.Server):
    """One listener. `serve` returns when `should_exit` was set and everybody is served."""

    def __init__(
        self, app: Any, address: socket.socket, settings: ServiceSettings, door: Door
    ) -> None:
        def make_protocol(**arguments: Any) -> LimitedProtocol:
            return LimitedProtocol(door, **arguments)

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
        await self.serve([self.address])


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


def url_of(sock: socket.socket) -> str:
    """`http://127.0.0.1:8080`"""
    host, port = sock.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
