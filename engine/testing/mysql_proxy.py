"""A proxy between a client and a MySQL server that loses a COMMIT, or the answer to one.

It cuts the client's stream into packets (3 bytes of length, 1 of sequence, the payload), because
only a whole packet tells what is asked: 0x03 and the statement.
https://mariadb.com/docs/server/reference/clientserver-protocol
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Literal, TypeAlias

Loss: TypeAlias = Literal["reply", "commit"]
"""`reply`: the server commits and the client never hears of it. `commit`: it never got there."""

COMMIT_PACKET = b"\x03COMMIT"
HEADER_BYTES = 4
CHUNK_BYTES = 65_536


class MysqlProxy:
    """Listens on `port`. `lose` arms it; `lost` counts how often it struck."""

    def __init__(self, server_port: int) -> None:
        self._server_port = server_port
        self._armed: Loss | None = None
        self._server: asyncio.Server | None = None
        self._serving: set[asyncio.Task[None]] = set()
        self.port = 0
        self.lost = 0

    def lose(self, what: Loss) -> None:
        """Lose the next COMMIT, and close its connection on both sides."""
        self._armed = what

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
            for task in self._serving:
                task.cancel()
            await asyncio.gather(*self._serving, return_exceptions=True)

    def _accept(self, client: asyncio.StreamReader, answers: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(self._serve(client, answers))
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)

    async def _serve(self, client: asyncio.StreamReader, answers: asyncio.StreamWriter) -> None:
        try:
            replies, server = await asyncio.open_connection("127.0.0.1", self._server_port)
        except OSError:
            answers.close()
            return
        back = asyncio.create_task(_copy(replies, answers))
        try:
            while True:
                header = await client.readexactly(HEADER_BYTES)
                payload = await client.readexactly(int.from_bytes(header[:3], "little"))
                if self._armed is not None and payload.upper() == COMMIT_PACKET:
                    await self._strike(server, header + payload, back, replies)
                    break
                server.write(header + payload)
                await server.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            back.cancel()
            server.close()
            answers.close()

    async def _strike(
        self,
        server: asyncio.StreamWriter,
        packet: bytes,
        back: asyncio.Task[None],
        replies: asyncio.StreamReader,
    ) -> None:
        what, self._armed = self._armed, None
        back.cancel()
        await asyncio.gather(back, return_exceptions=True)
        if what == "reply":
            server.write(packet)
            await server.drain()
            # The answer was sent, so the transaction is durable.
            await replies.readexactly(HEADER_BYTES)
        self.lost += 1


async def _copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    try:
        while chunk := await source.read(CHUNK_BYTES):
            target.write(chunk)
            await target.drain()
    except ConnectionError:
        pass
    target.close()


@asynccontextmanager
async def mysql_proxy(server_port: int) -> AsyncIterator[MysqlProxy]:
    """A listening proxy for the block."""
    proxy = MysqlProxy(server_port)
    await proxy.start()
    try:
        yield proxy
    finally:
        await proxy.stop()
