"""A broker in memory, for tests that decide what it loses and when it is away.

It keeps what `engine.cluster.broker` promises of the real one; `broker_contract` holds both to it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from engine.clock import Clock
from engine.cluster.broker import (
    DUPLICATE_SECONDS,
    Broker,
    BrokerFull,
    Handler,
    StreamLife,
)
from engine.cluster.pull_consumer import PullConsumer
from engine.cluster_settings import ClusterSettings
from engine.errors import BrokerUnavailable

ROUNDING_SECONDS = 1e-6

Loses = Callable[[str, bytes], bool]


class Stored(NamedTuple):
    """A message of the stream."""

    sequence: int
    partition: int
    payload: bytes
    message_id: str


class ScriptedServer:
    """What all its connections have in common: one stream of commands, and who listens.

    Set `is_down` and nothing is answered, `is_full` and nothing more is stored. `acks_to_lose` of the
    next messages are stored without a word, `looks_to_fail` of the next looks at the stream fail. `loses(subject, payload)` says which of what is sent is lost.
    `sent` and `stored` hold everything that got here, also what was removed since; `repeats` counts
    messages that were not stored again.
    """

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.is_down = False
        self.is_full = False
        self.acks_to_lose = 0
        self.looks_to_fail = 0
        self.loses: Loses = _nothing
        self.sent: list[tuple[str, bytes]] = []
        self.stored: list[Stored] = []
        self.repeats = 0
        self.messages: list[Stored] = []
        self._life = 0
        self.last = 0
        self._ids: dict[str, tuple[int, float]] = {}
        self.waiting: set[asyncio.Event] = set()
        self._listeners: list[_Listener] = []

    def connect(self, settings: ClusterSettings | None = None) -> ScriptedBroker:
        return ScriptedBroker(self, settings or ClusterSettings())

    @property
    def life(self) -> StreamLife:
        if not self._life:
            raise BrokerUnavailable("there is no such stream")
        return StreamLife(f"life {self._life}", self.last)

    def make(self) -> None:
        """Make the stream unless it is there."""
        self._life = self._life or len(self.stored) + 1

    def wipe(self) -> None:
        """Delete the stream and make it anew."""
        self.messages, self._ids, self.last = [], {}, 0
        self._life += 1
        self.tell()

    def cut(self, last: int) -> None:
        """Lose what is behind a sequence, as a broker does that had not synced its disk."""
        self.messages = [each for each in self.messages if each.sequence <= last]
        self.last = last
        self.tell()

    def store(self, partition: int, payload: bytes, message_id: str = "") -> int:
        """Raises BrokerFull."""
        now = self.clock.monotonic()
        known = self._ids.get(message_id)
        if message_id and known is not None and now - known[1] < DUPLICATE_SECONDS:
            self.repeats += 1
            return known[0]
        if self.is_full:
            raise BrokerFull("the stream is full")
        self.last += 1
        self._ids[message_id] = (self.last, now)
        found = Stored(self.last, partition, payload, message_id)
        self.messages.append(found)
        self.stored.append(found)
        self.tell()
        return self.last

    def repeat(self, message: Stored) -> int:
        """Store a message once more, as after the time in which the broker knows its id."""
        return self.store(message.partition, message.payload)

    def remove_up_to(self, partition: int, sequence: int) -> None:
        self.messages = [
            each
            for each in self.messages
            if each.partition != partition or each.sequence > sequence
        ]

    def tell(self) -> None:
        """Wake whoever waits for messages."""
        for each in self.waiting:
            each.set()

    def send(self, subject: str, payload: bytes) -> None:
        self.sent.append((subject, payload))
        if not self.loses(subject, payload):
            for each in self._listeners:
                each.offer(subject, payload)

    def listen(self, listener: _Listener) -> None:
        self._listeners.append(listener)

    def leave(self, listener: _Listener) -> None:
        self._listeners.remove(listener)


class ScriptedBroker(Broker):
    """One connection. `is_cut`: it alone reaches nobody, and nothing reaches it.

    `connected_times` is what a test says of how often it was connected.
    """

    def __init__(self, server: ScriptedServer, settings: ClusterSettings) -> None:
        self._server = server
        self._settings = settings
        self.stream = f"{settings.prefix}-commands"
        self.is_cut = False
        self.connected_times = 1
        self.payload_bytes_max = 1_000_000
        self._listeners: list[_Listener] = []
        self._closed = False

    @property
    def is_connected(self) -> bool:
        return not (self._closed or self.is_cut or self._server.is_down)

    @property
    def connections(self) -> int:
        return self.connected_times

    @property
    def message_bytes_max(self) -> int:
        return self.payload_bytes_max

    async def ensure_commands(self) -> None:
        await self._reach()
        self._server.make()

    async def life(self) -> StreamLife:
        await self._reach()
        if self._server.looks_to_fail:
            self._server.looks_to_fail -= 1
            raise BrokerUnavailable("nobody leads the stream")
        self._server.make()
        return self._server.life

    async def publish(self, partition: int, payload: bytes, message_id: str) -> int:
        await self._reach()
        if len(payload) > self.payload_bytes_max:
            raise BrokerUnavailable("the message is too large")
        sequence = self._server.store(partition, payload, message_id)
        if self._server.acks_to_lose:
            self._server.acks_to_lose -= 1
            raise BrokerUnavailable("no acknowledgement came")
        await asyncio.sleep(0)
        return sequence

    async def consume(self, partition: int, first_sequence: int) -> PullConsumer:
        await self._reach()
        return ScriptedConsumer(self, self._server, partition, first_sequence)

    async def remove_up_to(self, partition: int, sequence: int) -> None:
        await self._reach()
        self._server.remove_up_to(partition, sequence)

    async def send(self, subject: str, payload: bytes) -> None:
        await self._reach()
        if len(payload) > self.payload_bytes_max:
            raise BrokerUnavailable("the message is too large")
        self._server.send(subject, payload)

    async def ask(self, subject: str, payload: bytes, seconds: float) -> bytes:  # noqa: ARG002
        await self._reach()
        raise BrokerUnavailable("nobody answers questions here")

    async def listen(self, subject: str, handle: Handler) -> Subscription:
        await self._reach()
        listener: Any = _Listener(self, subject, handle)
        self._server.listen(listener)
        self._listeners.append(listener)
        found: Subscription = listener
        return found

    async def close(self) -> None:
        self._closed = True
        listeners, self._listeners = self._listeners, []
        for each in listeners:
            self._server.leave(each)
            await each.close()

    async def _reach(self) -> None:
        await asyncio.sleep(0)
        if not self.is_connected:
            raise BrokerUnavailable("the broker cannot be reached")


class ScriptedConsumer(PullConsumer):
    """Reads the messages of one partition from a sequence on."""

    def __init__(
        self, broker: ScriptedBroker, server: ScriptedServer, partition: int, first_sequence: int
    ) -> None:
        self._broker = broker
        self._server = server
        self._partition = partition
        self._next_sequence = first_sequence
        self._life = server.life.name
        self._wanted = 0
        self._until = 0.0

    async def pull(self, messages: int, seconds: float) -> None:
        self._check()
        self._wanted = messages
        self._until = self._server.clock.monotonic() + seconds

    async def next(self, seconds: float) -> tuple[int, bytes] | None:  # noqa: ARG002
        await asyncio.sleep(0)
        while self._wanted:
            self._check()
            for each in self._server.messages:
                if each.partition == self._partition and each.sequence >= self._next_sequence:
                    self._next_sequence = each.sequence + 1
                    self._wanted -= 1
                    return each.sequence, each.payload
            if self._server.clock.monotonic() >= self._until - ROUNDING_SECONDS:
                self._wanted = 0
            else:
                await self._news()
        return None

    async def close(self) -> None:
        self._wanted = 0

    async def _news(self) -> None:
        news = asyncio.Event()
        wait = self._until - self._server.clock.monotonic()
        timer = self._server.clock.call_later(wait, news.set)
        self._server.waiting.add(news)
        try:
            await news.wait()
        finally:
            self._server.waiting.discard(news)
            timer.cancel()

    def _check(self) -> None:
        if not self._broker.is_connected:
            raise BrokerUnavailable("the broker is silent")
        if self._server.life.name != self._life:
            raise BrokerUnavailable("the broker ended the consumer")


class _Listener:
    """Takes in one message after another, in order, as a client's subscription does."""

    def __init__(self, broker: ScriptedBroker, subject: str, handle: Handler) -> None:
        self._broker = broker
        self._parts = subject.split(".")
        self._handle = handle
        self._waiting: deque[Msg] = deque()
        self._news = asyncio.Event()
        self._task = asyncio.create_task(self._run(), name=f"listens to {subject}")

    def offer(self, subject: str, payload: bytes) -> None:
        parts = subject.split(".")
        if self._broker.is_cut or len(parts) != len(self._parts):
            return
        if all(wanted in ("*", part) for wanted, part in zip(self._parts, parts, strict=True)):
            client: Any = None
            self._waiting.append(Msg(client, subject=subject, data=payload))
            self._news.set()

    async def close(self) -> None:
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    async def _run(self) -> None:
        while True:
            await self._news.wait()
            self._news.clear()
            while self._waiting:
                await self._handle(self._waiting.popleft())


def _nothing(_: str, __: bytes) -> bool:
    return False
