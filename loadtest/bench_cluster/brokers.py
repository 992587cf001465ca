"""What the brokers do alone: messages of encoded commands, published and consumed as nodes do it."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Final, TypeVar

import msgspec

from engine.cluster.broker import Broker
from engine.cluster.pull_consumer import PullConsumer
from engine.cluster.wire import Wire
from engine.cluster_settings import ClusterSettings
from engine.errors import BrokerUnavailable
from engine.inventory.commands import Reserve
from engine.inventory.sale import sale_registry
from loadtest.bench_cluster.programs import Servers
from loadtest.intervals import Interval, interval_of
from loadtest.wrong import WrongAnswer

PULL_SECONDS: Final = 5.0
CONSUMERS_MAX: Final = 20
TRIES_MAX: Final = 40
"""A stream that was just made says at once, for a while, that nobody leads it."""

AGAIN_SECONDS: Final = 0.1
FAR_US: Final = 1 << 52

T = TypeVar("T")

PUBLISH: Final = "published, each acknowledged"
CONSUME: Final = "consumed"


class BrokerRow(msgspec.Struct, frozen=True, kw_only=True):
    """Messages of so many encoded commands through the brokers alone, in messages and commands a second.

    `in_flight` messages are published and not acknowledged, or asked for with one pull.
    """

    what: str
    replicas: int
    commands: int
    message_bytes: int
    in_flight: int
    messages_per_s: Interval
    commands_per_s: Interval
    repeats: list[float]


async def brokers_alone(
    servers: Servers,
    replicas: Sequence[int],
    sizes: Sequence[int],
    messages: int,
    in_flight: int,
    repeats: int,
    shuffle: random.Random,
    done: Callable[[], None],
) -> list[BrokerRow]:
    """Publish and consume messages of `sizes` commands as a gateway and an owner do. Raises WrongAnswer."""
    found: dict[tuple[str, int, int], list[float]] = {}
    payloads = {each: _payload(each) for each in sizes}
    cells = [(number, size) for number in replicas for size in sizes]
    async with AsyncExitStack() as opened:
        streams = {
            each: await opened.enter_async_context(_stream(servers, each)) for each in replicas
        }
        for repeat in range(repeats + 1):
            for number, size in shuffle.sample(cells, len(cells)):
                stream = _Stream(streams[number], payloads[size], messages, in_flight)
                published, consumed = await stream.measure()
                done()
                if not repeat:
                    continue  # The first time counts for nothing: files and connections are new.
                found.setdefault((PUBLISH, number, size), []).append(published)
                found.setdefault((CONSUME, number, size), []).append(consumed)
    return [
        BrokerRow(
            what=what,
            replicas=number,
            commands=size,
            message_bytes=len(payloads[size]),
            in_flight=in_flight,
            messages_per_s=interval_of(rates),
            commands_per_s=interval_of([each * size for each in rates]),
            repeats=rates,
        )
        for (what, number, size), rates in sorted(found.items(), reverse=True)
    ]


@asynccontextmanager
async def _stream(servers: Servers, replicas: int) -> AsyncIterator[Broker]:
    """A connection, with a new stream."""
    brokers = await servers.brokers(replicas)
    settings = ClusterSettings(
        servers=tuple(brokers.urls),
        monitor_urls=tuple(brokers.monitor_urls),
        replicas=replicas,
        prefix=servers.new_prefix(),
    )
    broker = await Broker.connect(settings, "bench")
    try:
        await _answered(broker.ensure_commands)
        yield broker
    finally:
        await broker.close()


async def _answered(ask: Callable[[], Awaitable[T]]) -> T:
    """What the broker says, which is asked again when it says nothing in time, as nodes do.

    A message that is sent again has the same id. Raises BrokerUnavailable in the end.
    """
    for _ in range(TRIES_MAX - 1):
        try:
            return await ask()
        except BrokerUnavailable:
            await asyncio.sleep(AGAIN_SECONDS)
    return await ask()


def _payload(commands: int) -> bytes:
    orders = [Reserve(f"8-{n:x}-abcdef", "HOT", f"buyer-{n}", 1) for n in range(commands)]
    return Wire(sale_registry()).encode_commands("inbox", 1, [("stock", FAR_US, orders)])


class _Stream:
    """One round of a payload through the brokers, in a stream whose earlier rounds are removed."""

    def __init__(self, broker: Broker, payload: bytes, messages: int, in_flight: int) -> None:
        self._broker = broker
        self._payload = payload
        self._messages = messages
        self._in_flight = in_flight

    async def measure(self) -> tuple[float, float]:
        """Messages/s published and consumed. Raises WrongAnswer."""
        before = await self._last()
        published = await self._publish(before)
        last = await self._last()
        if last != before + self._messages:
            raise WrongAnswer(
                f"{self._messages:,} messages were acknowledged, {last - before:,} are stored"
            )
        consumed = await self._consume(before)
        await _answered(lambda: self._broker.remove_up_to(0, last))
        return published, consumed

    async def _last(self) -> int:
        return (await _answered(self._broker.life)).last

    async def _publish(self, before: int) -> float:
        numbers = iter(range(self._messages))

        async def sender() -> None:
            for number in numbers:
                message_id = f"{before}-{number}"
                await _answered(partial(self._broker.publish, 0, self._payload, message_id))

        began = time.perf_counter()
        await asyncio.gather(*(sender() for _ in range(self._in_flight)))
        return self._messages / (time.perf_counter() - began)

    async def _consume(self, before: int) -> float:
        consumer = await self._consumer(before)
        began = time.perf_counter()
        for first in range(1, self._messages, self._in_flight):
            count = min(self._in_flight, self._messages - first)
            await self._read(consumer, before + first, count)
        seconds = time.perf_counter() - began
        await consumer.close()
        return (self._messages - 1) / seconds

    async def _consumer(self, before: int) -> PullConsumer:
        """A consumer that has read the first message: a new one is not known to every broker yet."""
        for _ in range(CONSUMERS_MAX):
            consumer = await _answered(lambda: self._broker.consume(0, before + 1))
            try:
                await self._read(consumer, before, 1)
            except BrokerUnavailable:
                await consumer.close()
                await asyncio.sleep(AGAIN_SECONDS)
            else:
                return consumer
        raise WrongAnswer(f"{CONSUMERS_MAX} consumers were made, and none could be read from")

    async def _read(self, consumer: PullConsumer, before: int, count: int) -> None:
        await consumer.pull(count, PULL_SECONDS)
        for sequence in range(before + 1, before + count + 1):
            if await consumer.next(PULL_SECONDS) != (sequence, self._payload):
                raise WrongAnswer(f"message {sequence:,} was not read as it was published")
