"""A lean HTTP client for loads: one request at a time on a connection that stays open.

It is a fraction of the cost of a general client, so that one core can load the service of another.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Final, NamedTuple, cast

import httptools

NO_HEADERS: Final[Mapping[str, str]] = {}


class HttpReply(NamedTuple):
    """`headers` by lower-case name."""

    status: int
    headers: Mapping[bytes, bytes]
    body: bytes


class HttpConnection(asyncio.Protocol):
    """Made by `connect`. Every method that waits raises ConnectionError when the connection ends."""

    def __init__(self, host: str) -> None:
        self._host = host
        self._transport: asyncio.Transport | None = None
        self._waiting: asyncio.Future[HttpReply] | None = None
        self._new_reply()

    @classmethod
    async def connect(cls, host: str, port: int) -> HttpConnection:
        """Raises OSError."""
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(lambda: cls(f"{host}:{port}"), host, port)
        return connection

    @property
    def open(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    async def request(
        self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] = NO_HEADERS
    ) -> HttpReply:
        """Send a request and return the whole reply. Cancelled, it closes the connection."""
        if self._transport is None or self._transport.is_closing():
            raise ConnectionError("the connection is closed")
        assert self._waiting is None, "one request at a time"
        lines = [f"{method} {path} HTTP/1.1", f"Host: {self._host}", f"Content-Length: {len(body)}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        waiting: asyncio.Future[HttpReply] = asyncio.get_running_loop().create_future()
        self._waiting = waiting
        self._transport.write("\r\n".join([*lines, "\r\n"]).encode() + body)
        try:
            return await waiting
        except asyncio.CancelledError:
            # Its reply would be taken for that of the next request.
            self.close()
            raise
        finally:
            self._waiting = None

    def close(self) -> None:
        """Close it; whoever waits is told."""
        if self._transport is not None:
            self._transport.abort()

    # -- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are none of asyncio's classes.
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_exception(ConnectionError(f"the connection ended: {exc or 'closed'}"))

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            if self._waiting is not None and not self._waiting.done():
                self._waiting.set_exception(ConnectionError(f"no HTTP reply: {error}"))
            self.close()

    # -- httptools

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.lower()] = value

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        reply = HttpReply(self._parser.get_status_code(), self._headers, b"".join(self._body))
        keeps = self._parser.should_keep_alive()
        self._new_reply()
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(reply)
        if not keeps:
            self.close()

    def _new_reply(self) -> None:
        self._headers: dict[bytes, bytes] = {}
        self._body: list[bytes] = []
        # The parser cannot be replaced while it is running: one serves all replies.
        if not hasattr(self, "_parser"):
            self._parser: Any = httptools.HttpResponseParser(self)
