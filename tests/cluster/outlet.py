"""A store of commits and publishers of its events, on a clock that goes only while a test waits."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import nats
from nats.aio.client import Client
from nats.errors import Error as NatsError
from nats.js.api import RawStreamMsg
from nats.js.errors import NotFoundError

from engine.cluster.events_out import EventsOut
from engine.cluster.events_stream import EventsStream
from engine.cqrs.codec import checksum
from engine.cqrs.event_store import NewCommit
from engine.cqrs.query_side.subscription import Feed, Subscription
from engine.stores.memory import MemoryStore
from engine.testing.virtual_clock import VirtualClock
from tests.gate.waiting import until

ACK_SECONDS_MAX = 1.0
STEP_SECONDS = 0.2
"""So much goes by on the clock of the publishers at each look of a test."""

_NUMBERS = itertools.count(1)


def new_prefix() -> str:
    return f"shop{next(_NUMBERS)}"


async def connect(url: str) -> Client:
    async def ignore(error: Exception) -> None:
        """A server that goes away is what some tests are about."""

    return await nats.connect(
        url, reconnect_time_wait=0.05, max_reconnect_attempts=-1, error_cb=ignore
    )


class Outlet:
    """One store of two partitions, one stream, and any number of publishers."""

    def __init__(self, url: str, stream: EventsStream) -> None:
        self.url = url
        self.stream = stream
        self.clock = VirtualClock()
        self.feed = Feed()
        self.store = MemoryStore(2, (), self.clock)
        self._versions: dict[str, int] = {}
        self._clients: list[Client] = []
        self._tasks: list[asyncio.Task[None]] = []

    async def open(self) -> None:
        self.client = await self.connected(self.url)
        await self.stream.ensure(self.client.jetstream())

    async def close(self) -> None:
        for task in self._tasks:
            await stop(task)
        for client in self._clients:
            await client.close()

    async def connected(self, url: str) -> Client:
        client = await connect(url)
        self._clients.append(client)
        return client

    async def sell(
        self, commits: int, *, partition: int = 0, events: int = 1, text: str = "", sku: str = "A/ü"
    ) -> None:
        """Append so many commits of so many events each."""
        for _ in range(commits):
            first = self._versions.get(sku, 0) + 1
            last = self._versions[sku] = first + events - 1
            sold = [{"type": "sold.1", "n": n, "text": text} for n in range(first, last + 1)]
            await self.append(partition, sku, first, last, json.dumps(sold).encode())
        self.feed.announce(partition)

    async def append(
        self, partition: int, sku: str, first: int, last: int, events: bytes, crc: int | None = None
    ) -> None:
        lease = await self.store.acquire(partition)
        crc = checksum(events) if crc is None else crc
        await self.store.append(lease, [NewCommit("stock", sku, first, last, events, crc)])

    async def publisher(self, url: str = "", partition: int = 0) -> EventsOut:
        """A new one with a connection of its own, as of a new process; not started."""
        subscription = Subscription(self.store, {}, partition, self.feed, self.clock)
        client = await self.connected(url or self.url)
        return EventsOut(client, self.stream, subscription, self.clock, ACK_SECONDS_MAX)

    def start(self, publisher: EventsOut) -> asyncio.Task[None]:
        task = asyncio.create_task(publisher.run())
        self._tasks.append(task)
        return task

    async def started(self, url: str = "", partition: int = 0) -> EventsOut:
        publisher = await self.publisher(url, partition)
        self.start(publisher)
        return publisher

    async def until(self, is_so: Callable[[], bool]) -> None:
        """Let time go by until it is so."""

        async def step() -> bool:
            self.clock.advance(STEP_SECONDS)
            return is_so()

        await until(step)

    async def until_published(self, position: int, partition: int = 0) -> None:
        """Until the newest message of a partition is of this position."""

        async def step() -> bool:
            self.clock.advance(STEP_SECONDS)
            try:
                last = await self.client.jetstream(timeout=1).get_last_msg(
                    self.stream.name, self.stream.subject(partition)
                )
            except NatsError:
                return False
            return (last.headers or {}).get("Seckill-Position") == str(position)

        await until(step)

    async def messages(self, partition: int = 0) -> list[RawStreamMsg]:
        """Everything the stream holds of a partition."""
        js = self.client.jetstream()
        state = (await js.stream_info(self.stream.name)).state
        found: list[RawStreamMsg] = []
        for sequence in range(max(1, state.first_seq), state.last_seq + 1):
            try:
                message = await js.get_msg(self.stream.name, sequence)
            except NotFoundError:
                continue
            if message.subject == self.stream.subject(partition):
                found.append(message)
        return found

    async def positions(self, partition: int = 0) -> list[int]:
        return [int(headers(each)["Seckill-Position"]) for each in await self.messages(partition)]


def headers(message: RawStreamMsg) -> dict[str, str]:
    return dict(message.headers or {})


async def stop(task: asyncio.Task[None]) -> None:
    """End it; what it failed with is raised."""
    task.cancel()
    try:
        await task
    except asyncio.CancelledError:
        pass


@asynccontextmanager
async def outlet(url: str, **limits: int) -> AsyncIterator[Outlet]:
    """With a stream of its own."""
    shop = Outlet(url, EventsStream(new_prefix(), **limits))
    try:
        await shop.open()
        yield shop
    finally:
        await shop.close()
