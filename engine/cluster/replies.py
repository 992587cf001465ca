"""Replies of an owner on their way to the gateways' inboxes.

One that is larger than a message of the broker may be travels in pieces: a lost reply is asked for again,
but one that can never be sent would be asked for until every buyer of it has given up.

    piece   0xC1, id of the reply (16 bytes), number of this piece, how many there are, bytes of the reply

No reply begins with 0xC1, which msgpack does not use.
"""

from __future__ import annotations

import asyncio
import logging
import struct
import uuid
from collections import deque
from collections.abc import Iterator
from typing import Final

from engine.cluster.broker import Broker
from engine.cluster.wire import WireError
from engine.errors import BrokerUnavailable

logger = logging.getLogger(__name__)

MARK: Final = b"\xc1"
HEADER: Final = struct.Struct(">c16sII")

UNFINISHED_MAX: Final = 64
"""Replies of which a gateway keeps the first pieces: owners send one at a time, so more than one of
each has lost a piece."""


def pieces_of(payload: bytes, bytes_max: int) -> Iterator[bytes]:
    """A reply as messages of at most so many bytes, which are more than a header's."""
    if len(payload) <= bytes_max:
        yield payload
        return
    room = bytes_max - HEADER.size
    starts, name = range(0, len(payload), room), uuid.uuid4().bytes
    for number, start in enumerate(starts):
        header = HEADER.pack(MARK, name, number, len(starts))
        yield header + payload[start : start + room]


class Pieces:
    """Puts replies together again. `UNFINISHED_MAX` are kept, the oldest is given up for another."""

    def __init__(self) -> None:
        self._found: dict[bytes, list[bytes]] = {}

    def add(self, data: bytes) -> bytes | None:
        """The reply that a message ends; None while more is to come. Raises WireError."""
        if data[:1] != MARK:
            return data
        if len(data) <= HEADER.size:
            raise WireError(f"no piece of a reply: it has {len(data)} bytes")
        _, name, number, count = HEADER.unpack_from(data)
        found = self._found.pop(name, [])
        if number != len(found):
            # One before it is lost, or this came twice around a broken connection. The reply is
            # asked for again.
            return None
        found.append(data[HEADER.size :])
        if len(found) == count:
            return b"".join(found)
        while len(self._found) >= UNFINISHED_MAX:
            del self._found[next(iter(self._found))]
        self._found[name] = found
        return None


class Replies:
    """Sends in order, a little later. What is lost is asked for again by who waits for it."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._waiting: deque[tuple[str, bytes]] = deque()
        self._news = asyncio.Event()

    def send(self, inbox: str, payload: bytes) -> None:
        self._waiting.append((inbox, payload))
        self._news.set()

    async def run(self) -> None:
        """Send until cancelled."""
        while True:
            await self._news.wait()
            self._news.clear()
            await self.flush()

    async def flush(self) -> None:
        """Send what waits."""
        while self._waiting:
            inbox, payload = self._waiting.popleft()
            try:
                for piece in pieces_of(payload, self._broker.message_bytes_max):
                    await self._broker.send(inbox, piece)
            except BrokerUnavailable as error:
                logger.debug("a reply is lost: %s", error)
