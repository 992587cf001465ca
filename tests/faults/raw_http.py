"""A client without manners: bytes on a socket, and the replies that come back."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import httpx

SILENCE_SECONDS_MAX = 60.0
"""A server that says nothing for so long hangs."""


class RawReply(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


class RawClient:
    """One connection. Raises TimeoutError when the server neither answers nor closes it."""

    def __init__(self, url: str, receive_buffer_bytes: int = 0) -> None:
        at = httpx.URL(url)
        self.socket = socket.socket()
        if receive_buffer_bytes:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer_bytes)
        self.socket.settimeout(SILENCE_SECONDS_MAX)
        self.socket.connect((at.host, at.port or 80))
        self._read = b""

    def send(self, data: bytes) -> None:
        """Send all of it, or what the server takes before it closes the connection."""
        try:
            self.socket.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            pass

    def reply(self) -> RawReply | None:
        """The next whole reply, None when the connection ended before its first byte."""
        while (end := self._read.find(b"\r\n\r\n")) < 0:
            if not self._receive():
                assert self._read == b"", self._read[:200]
                return None
        first, *lines = self._read[:end].decode("latin-1").split("\r\n")
        self._read = self._read[end + 4 :]
        headers = {
            name.lower(): value for name, _, value in (each.partition(": ") for each in lines)
        }
        status = int(first.split()[1])
        length = 0 if status == 100 else int(headers.get("content-length", 0))
        while len(self._read) < length:
            assert self._receive(), "half a reply"
        body, self._read = self._read[:length], self._read[length:]
        return RawReply(status, headers, body)

    def replies(self) -> list[RawReply]:
        """All replies until the connection ends."""
        return list(iter(self.reply, None))

    def statuses(self) -> list[int]:
        return [each.status for each in self.replies()]

    def skip_to(self, mark: bytes) -> None:
        """Read up to `mark`, and throw away what comes before it."""
        while mark not in self._read:
            assert self._receive(), "the connection ended"
        self._read = self._read[self._read.index(mark) :]

    def ended(self) -> bool:
        """Wait for the end of the connection; whatever comes before it is thrown away."""
        while self._receive():
            self._read = b""
        return True

    def close(self) -> None:
        self.socket.close()

    def _receive(self) -> bool:
        try:
            data = self.socket.recv(1 << 16)
        except ConnectionResetError:
            return False
        self._read += data
        return bool(data)


@contextmanager
def raw(url: str, receive_buffer_bytes: int = 0) -> Iterator[RawClient]:
    client = RawClient(url, receive_buffer_bytes)
    try:
        yield client
    finally:
        client.close()


def order(key: str, body: bytes = b'{"buyer":"b"}', *more: str, sku: str = "PHONE") -> bytes:
    """An order as it is on the wire; `more` are header lines."""
    return request(
        f"POST /v1/skus/{sku}/reservations",
        *(f"Idempotency-Key: {key}", f"Content-Length: {len(body)}", *more),
        body=body,
    )


def request(what: str, *lines: str, body: bytes = b"", version: str = "HTTP/1.1") -> bytes:
    """A request as it is on the wire, with the header `lines` as they are."""
    head = "\r\n".join([f"{what} {version}", "Host: 127.0.0.1", *lines, "\r\n"])
    return head.encode() + body


def chunked(*parts: bytes) -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(each), each) for each in (*parts, b""))
