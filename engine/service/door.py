"""The connections of one listener, and which of them are closed because they take too long."""

from __future__ import annotations

from collections import Counter
from typing import Final, Protocol

from engine.clock import Clock
from engine.config import ServiceSettings

SPARED_SECONDS: Final = 1.0
"""A connection that has begun a request, or was answered, so recently is not closed to make room."""

SWEEP_SECONDS: Final = 0.5


def _plain(status: bytes, text: bytes, more: bytes = b"") -> bytes:
    return (
        b"HTTP/1.1 %s\r\ncontent-type: text/plain\r\ncontent-length: %d\r\n%sconnection: close\r\n\r\n%s"
        % (status, len(text), more, text)
    )


TOO_MANY: Final = _plain(b"503 Service Unavailable", b"too many connections", b"retry-after: 1\r\n")
TOO_SLOW: Final = _plain(b"408 Request Timeout", b"the request took too long to arrive")
MALFORMED: Final = _plain(b"400 Bad Request", b"this is no HTTP request")
TOO_LONG: Final = _plain(b"431 Request Header Fields Too Large", b"the headers are too long")


class Connection(Protocol):
    def give_up(self, last_words: bytes) -> None:
        """Close it, once what was taken is answered; at once without `last_words`."""


class Door:
    """The connections of one listener, and what the limits closed.

    `arriving` are those whose request is not whole yet, `stuck` those whose reply is not taken, `idle`
    those that were answered; all with the time since when, the oldest first.
    """

    def __init__(self, settings: ServiceSettings, clock: Clock) -> None:
        self.connections_max = settings.connections_max
        self.seconds_max = settings.request_seconds_max
        self.clock = clock
        self.connections = 0
        self.arriving: dict[Connection, float] = {}
        self.stuck: dict[Connection, float] = {}
        self.idle: dict[Connection, float] = {}
        self.closed: Counter[str] = Counter()

    def make_room(self) -> bool:
        """Whether one more connection may stay; an old one may be closed for it."""
        if self.connections < self.connections_max:
            return True
        spared = self.clock.monotonic() - SPARED_SECONDS
        for waiting, last_words in ((self.arriving, TOO_SLOW), (self.idle, b"")):
            oldest = next(iter(waiting), None)
            if oldest is not None and waiting[oldest] <= spared:
                self.closed["connections_max"] += 1
                oldest.give_up(last_words)
                return True
        return False

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
