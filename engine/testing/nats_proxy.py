"""A proxy between clients and a NATS server that loses, keeps back and repeats what passes.

It cuts both streams into frames, so that whatever it does leaves the protocol whole, and takes the
addresses of servers out of what the server tells about itself, so that a client comes here again.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final, Literal, TypeAlias

from engine.testing.nats_frames import (
    LINE_BYTES_MAX,
    Frame,
    hide_servers,
    publication,
    read_frame,
    stored_in,
    with_message_id,
)

Way: TypeAlias = Literal["to_client", "to_server"]

WAYS: Final[tuple[Way, ...]] = ("to_client", "to_server")
HOST: Final = "127.0.0.1"
PUBLISHED_MAX: Final = 100
ANSWER_SECONDS_MAX: Final = 20.0


class NatsProxy:
    """Listens on `port`, and does nothing to what passes until it is told to.

    `acks_lost` and `frames_lost` count what it took away. `published` holds the latest messages
    that clients sent, except requests to JetStream and answers.
    """

    def __init__(self, server_port: int) -> None:
        self.port = 0
        self.acks_lost = 0
        self.frames_lost = 0
        self.published: deque[Frame] = deque(maxlen=PUBLISHED_MAX)
        self._server_port = server_port
        self._server: asyncio.Server | None = None
        self._links: set[_Link] = set()
        # Set while frames pass (`hold`), and while they are not lost (`partition`).
        self._passing = {way: _set_event() for way in WAYS}
        self._reachable = {way: _set_event() for way in WAYS}
        self._acks_to_lose = 0
        self._cut_then = False
        self._stream = ""

    @property
    def url(self) -> str:
        return f"nats://{HOST}:{self.port}"

    def lose_acks(self, count: int = 1, *, cut: bool = False, stream: str = "") -> None:
        """Lose the next `count` acknowledgements of published messages; they are stored.

        `cut`: close the connection of each in its place. `stream`: only those of this stream.
        """
        self._acks_to_lose, self._cut_then, self._stream = count, cut, stream

    def partition(self, *ways: Way) -> None:
        """Lose everything, both ways unless one is named. Nobody is told, nobody can connect."""
        for way in ways or WAYS:
            self._reachable[way].clear()

    def heal(self) -> None:
        """End the partition. A connection that lost something is closed, as it cannot go on."""
        for way in WAYS:
            self._reachable[way].set()
        for link in self._links:
            if link.torn:
                link.close()

    def hold(self, *ways: Way) -> None:
        """Keep everything back, both ways unless one is named, until `release`."""
        for way in ways or WAYS:
            self._passing[way].clear()

    def release(self) -> None:
        """Let everything pass that was held, in its order."""
        for way in WAYS:
            self._passing[way].set()

    def cut(self) -> None:
        """Close all connections, on both sides. New ones are welcome."""
        for link in self._links:
            link.close()

    async def repeat(self, message: Frame, message_id: str | None = None) -> int:
        """Publish a message of `published` once more; returns the sequence it is stored at.

        It is sent without its message id, or with another, by a connection of its own, so the
        broker takes it for new. Raises RuntimeError when the broker does not store it.
        """
        reply = "_INBOX.proxy"
        headers = with_message_id(message.headers, message_id)
        copy = publication(message.subject, reply, headers, message.payload)
        source, target = await asyncio.open_connection(
            HOST, self._server_port, limit=LINE_BYTES_MAX
        )
        try:
            # Without a stream for it, the broker says so at once.
            connect = b'CONNECT {"verbose":false,"headers":true,"no_responders":true}'
            target.write(Frame(connect).encode() + Frame(f"SUB {reply} 1".encode()).encode())
            target.write(copy.encode())
            async with asyncio.timeout(ANSWER_SECONDS_MAX):
                while (answer := await read_frame(source)).verb not in ("MSG", "HMSG", "-ERR"):
                    pass
        finally:
            target.close()
        ack = json.loads(answer.payload) if stored_in(answer) else {"duplicate": True}
        if ack.get("duplicate"):
            raise RuntimeError(f"not stored: {(answer.body or answer.line).decode().strip()}")
        return int(ack["seq"])

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._accept, HOST, 0, limit=LINE_BYTES_MAX)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
            serving = [link.task for link in self._links]
            self.cut()
            await asyncio.gather(*serving, return_exceptions=True)

    def _accept(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        link = _Link(source, target)
        link.task = asyncio.get_running_loop().create_task(self._serve(link))
        self._links.add(link)
        link.task.add_done_callback(lambda _: self._forget(link))

    def _forget(self, link: _Link) -> None:
        # Here, because a task that is cancelled before its first step runs nothing of its own.
        self._links.discard(link)
        link.client.close()

    async def _serve(self, link: _Link) -> None:
        server: asyncio.StreamWriter | None = None
        pumps: list[asyncio.Task[None]] = []
        try:
            for way in WAYS:
                await self._reachable[way].wait()
            source, server = await asyncio.open_connection(
                HOST, self._server_port, limit=LINE_BYTES_MAX
            )
            pumps = [
                asyncio.create_task(self._pump("to_client", link, source, link.client)),
                asyncio.create_task(self._pump("to_server", link, link.source, server)),
            ]
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        except OSError:
            pass  # The server is down: the client is told so by the end of its connection.
        finally:
            # Before anything is waited for: the wait may be cancelled.
            if server is not None:
                server.close()
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)

    async def _pump(
        self, way: Way, link: _Link, source: asyncio.StreamReader, target: asyncio.StreamWriter
    ) -> None:
        """Pass frames on until either side ends or the connection is to be cut."""
        try:
            while True:
                frame = await read_frame(source)
                await self._passing[way].wait()
                if not self._reachable[way].is_set():
                    self.frames_lost += 1
                    link.torn = True
                    continue
                if way == "to_client" and self._is_ack_to_lose(frame):
                    self.acks_lost += 1
                    if self._cut_then:
                        return
                    continue
                target.write(self._seen(frame).encode())
                await target.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            # That the other side has gone is also held, or lost.
            await self._passing[way].wait()
            await self._reachable[way].wait()

    def _is_ack_to_lose(self, frame: Frame) -> bool:
        stream = stored_in(frame) if self._acks_to_lose else ""
        if not stream or self._stream not in ("", stream):
            return False
        self._acks_to_lose -= 1
        return True

    def _seen(self, frame: Frame) -> Frame:
        """The frame as it is passed on."""
        if frame.verb == "INFO":
            return hide_servers(frame, HOST, self.port)
        if frame.verb in ("PUB", "HPUB") and not frame.subject.startswith(("$", "_INBOX.")):
            self.published.append(frame)
        return frame


class _Link:
    """One client's connection. `torn`: something of it was lost."""

    def __init__(self, source: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        self.source = source
        self.client = client
        self.torn = False
        self.task: asyncio.Task[None]

    def close(self) -> None:
        self.task.cancel()


def _set_event() -> asyncio.Event:
    event = asyncio.Event()
    event.set()
    return event


@asynccontextmanager
async def nats_proxy(server_port: int) -> AsyncIterator[NatsProxy]:
    """A listening proxy for the block."""
    proxy = NatsProxy(server_port)
    await proxy.start()
    try:
        yield proxy
    finally:
        await proxy.stop()
