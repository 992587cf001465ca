"""What the cluster may expect of its broker, held to by the real one and by the scripted one."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from contextlib import AbstractAsyncContextManager

import pytest
from nats.aio.msg import Msg

from engine.cluster.broker import Broker, BrokerFull
from engine.cluster.pull_consumer import PullConsumer
from engine.errors import BrokerUnavailable

SHORT_SECONDS = 0.5
LONG_SECONDS = 10.0


async def read(consumer: PullConsumer, messages: int) -> list[tuple[int, bytes]]:
    """So many messages of one pull."""
    await consumer.pull(messages, LONG_SECONDS)
    found = [await consumer.next(LONG_SECONDS) for _ in range(messages)]
    assert await consumer.next(LONG_SECONDS) is None
    return [each for each in found if each is not None]


class BrokerContract(ABC):
    """One sentence a test. Every test has a prefix of its own, so that its stream is new."""

    @abstractmethod
    def connected(self, *, bytes_max: int = 10_000_000) -> AbstractAsyncContextManager[Broker]:
        """A connection of this test; each more one is to the same stream, which is made."""

    @abstractmethod
    async def fill(self, broker: Broker) -> None:
        """Have the stream refuse the next message of some bytes."""

    @abstractmethod
    async def lose_stream(self, broker: Broker) -> None:
        """Delete the stream behind everybody's back."""

    async def test_a_new_stream_is_empty_and_is_the_same_for_everybody(self) -> None:
        async with self.connected() as one, self.connected() as other:
            await one.ensure_commands()
            life = await one.life()
            assert life.last == 0
            assert await other.life() == life

    async def test_messages_of_all_partitions_share_one_sequence(self) -> None:
        async with self.connected() as broker:
            found = [await broker.publish(n % 2, b"m", f"id {n}") for n in range(4)]
            assert found == [1, 2, 3, 4]
            assert (await broker.life()).last == 4

    async def test_a_message_id_is_stored_once_and_keeps_its_sequence(self) -> None:
        async with self.connected() as broker:
            await broker.publish(0, b"first", "a")
            first = await broker.publish(0, b"m", "b")
            await broker.publish(0, b"later", "c")
            assert await broker.publish(0, b"m", "b") == first
            assert (await broker.life()).last == 3

    async def test_a_consumer_reads_its_partition_in_order_from_a_sequence_on(self) -> None:
        async with self.connected() as broker:
            for n in range(6):
                await broker.publish(n % 2, f"{n}".encode(), f"id {n}")
            consumer = await broker.consume(0, 2)
            assert await read(consumer, 2) == [(3, b"2"), (5, b"4")]
            await consumer.close()

    async def test_a_message_that_comes_while_a_pull_waits_is_given_out(self) -> None:
        async with self.connected() as broker:
            consumer = await broker.consume(0, 1)
            waiting = asyncio.create_task(read(consumer, 1))
            await asyncio.sleep(0)
            await broker.publish(0, b"late", "a")
            assert await waiting == [(1, b"late")]
            await consumer.close()

    async def test_a_pull_that_finds_too_little_ends_after_its_time(self) -> None:
        async with self.connected() as broker:
            await broker.publish(0, b"m", "a")
            consumer = await broker.consume(0, 1)
            await consumer.pull(9, SHORT_SECONDS)
            assert await consumer.next(LONG_SECONDS) == (1, b"m")
            assert await consumer.next(LONG_SECONDS) is None
            await broker.publish(0, b"n", "b")
            assert await read(consumer, 1) == [(2, b"n")]
            await consumer.close()

    async def test_consumers_do_not_take_messages_from_each_other(self) -> None:
        async with self.connected() as one, self.connected() as other:
            await one.publish(0, b"m", "a")
            consumers = [await each.consume(0, 1) for each in (one, other)]
            assert [await read(each, 1) for each in consumers] == [[(1, b"m")]] * 2
            for each in consumers:
                await each.close()

    async def test_what_is_decided_is_forgotten_in_its_partition_only(self) -> None:
        async with self.connected() as broker:
            for n in range(6):
                await broker.publish(n % 2, b"m", f"id {n}")
            await broker.remove_up_to(0, 3)
            assert (await broker.life()).last == 6
            kept = [await broker.consume(number, 1) for number in (0, 1)]
            assert [number for number, _ in await read(kept[0], 1)] == [5]
            assert [number for number, _ in await read(kept[1], 3)] == [2, 4, 6]
            for each in kept:
                await each.close()

    async def test_a_message_is_heard_by_everybody_who_listens_in_its_order(self) -> None:
        heard: list[tuple[str, bytes]] = []
        done = asyncio.Event()

        async def hear(message: Msg) -> None:
            heard.append((message.subject.rpartition(".")[2], message.data))
            if len(heard) == 6:
                done.set()

        async with self.connected() as one, self.connected() as other:
            await one.listen(one.subject("nodes", "*"), hear)
            await other.listen(other.subject("nodes", "b"), hear)
            await other.life()
            for n in range(2):
                for node in ("a", "b"):
                    await one.send(one.subject("nodes", node), f"{n}".encode())
            await one.send(one.subject("others", "b"), b"none of theirs")
            await asyncio.wait_for(done.wait(), LONG_SECONDS)
        assert sorted(heard) == sorted([("a", b"0"), ("a", b"1"), *[("b", b"0"), ("b", b"1")] * 2])
        assert [data for node, data in heard if node == "a"] == [b"0", b"1"]

    async def test_what_is_larger_than_a_message_may_be_is_not_sent(self) -> None:
        async with self.connected() as broker:
            heard: asyncio.Future[int] = asyncio.get_running_loop().create_future()

            async def hear(message: Msg) -> None:
                heard.set_result(len(message.data))

            await broker.listen(broker.subject("nodes", "*"), hear)
            largest = broker.message_bytes_max
            with pytest.raises(BrokerUnavailable):
                await broker.send(broker.subject("nodes", "a"), bytes(largest + 1))
            assert broker.ended == ""
            await broker.send(broker.subject("nodes", "a"), bytes(largest))
            assert await asyncio.wait_for(heard, LONG_SECONDS) == largest

    async def test_a_full_stream_refuses_and_stores_nothing(self) -> None:
        async with self.connected(bytes_max=1_000_000) as broker:
            await self.fill(broker)
            before = await broker.life()
            with pytest.raises(BrokerFull):
                await broker.publish(0, b"m" * 200_000, "too much")
            assert await broker.life() == before

    async def test_a_stream_that_is_gone_is_made_anew_and_is_seen_to_be_another(self) -> None:
        async with self.connected() as broker:
            await broker.publish(0, b"m", "a")
            before = await broker.life()
            consumer = await broker.consume(0, 1)
            assert await read(consumer, 1)
            await self.lose_stream(broker)
            after = await broker.life()
            assert after.last == 0
            assert after.name != before.name
            with pytest.raises(BrokerUnavailable):  # noqa: PT012 -- whichever notices
                await consumer.pull(1, LONG_SECONDS)
                await consumer.next(LONG_SECONDS)
            assert await broker.publish(0, b"m", "a") == 1
            await consumer.close()

    async def test_a_closed_connection_says_so(self) -> None:
        async with self.connected() as broker:
            await broker.close()
            await broker.close()
            assert not broker.is_connected
            for call in (
                broker.publish(0, b"m", "a"),
                broker.send(broker.subject("nodes", "a"), b""),
                broker.life(),
                broker.consume(0, 1),
            ):
                with pytest.raises(BrokerUnavailable):
                    await call
