"""The proxy of the tests: what it loses is lost, what it keeps back arrives, and it hides servers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from itertools import count

import nats as nats_client
import pytest
from nats.aio.client import Client
from nats.errors import TimeoutError as NatsTimeout
from nats.js.api import PubAck

from engine.testing.nats_frames import (
    Frame,
    hide_servers,
    publication,
    read_frame,
    stored_in,
    with_message_id,
)
from engine.testing.nats_proxy import NatsProxy, nats_proxy
from engine.testing.nats_server import NatsCluster, NatsServer
from tests.gate.waiting import until

LOST_SECONDS = 0.3
"""How long a client waits for an answer that never comes."""

TRIES_MAX = 100

_NUMBERS = count(1)


class Shop:
    """A stream of its own on a shared broker: a client through the proxy, and one around it."""

    def __init__(self, proxy: NatsProxy, client: Client, around: Client) -> None:
        self.proxy = proxy
        self.client = client
        self.around = around
        self.stream = f"proxy-{next(_NUMBERS)}"
        self.subject = f"{self.stream}.orders"

    async def publish(self, text: str, seconds: float = 20.0) -> PubAck:
        return await self.client.jetstream().publish(
            self.subject, text.encode(), timeout=seconds, headers={"Nats-Msg-Id": text}
        )

    async def publish_for_nothing(self, text: str) -> None:
        with pytest.raises(NatsTimeout):
            await self.publish(text, LOST_SECONDS)

    async def publish_until_stored(self, text: str) -> PubAck:
        """As a client must that cannot tell whether what it sent went down with its connection."""
        for _ in range(TRIES_MAX):
            try:
                return await self.publish(text, LOST_SECONDS)
            except NatsTimeout:
                continue
        raise AssertionError(f"{text} was never acknowledged")

    async def stored(self) -> list[str]:
        jetstream = self.around.jetstream(timeout=20)
        last = (await jetstream.stream_info(self.stream)).state.last_seq
        found = [await jetstream.get_msg(self.stream, number + 1) for number in range(last)]
        return [(message.data or b"").decode() for message in found]

    def has_stored(self, *texts: str) -> Callable[[], Awaitable[bool]]:
        async def look() -> bool:
            return await self.stored() == list(texts)

        return look


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[Client]:
    async def ignore(error: Exception) -> None:
        """Connections that break are what these tests are about."""

    client = await nats_client.connect(
        url, reconnect_time_wait=0.05, max_reconnect_attempts=-1, error_cb=ignore
    )
    try:
        yield client
    finally:
        await client.close()


@asynccontextmanager
async def opened(server_port: int, server_url: str) -> AsyncIterator[Shop]:
    async with (
        nats_proxy(server_port) as proxy,
        connected(proxy.url) as client,
        connected(server_url) as around,
    ):
        shop = Shop(proxy, client, around)
        await client.jetstream().add_stream(name=shop.stream, subjects=[f"{shop.stream}.*"])
        yield shop


@pytest.fixture
async def shop(nats: NatsServer) -> AsyncIterator[Shop]:
    async with opened(nats.port, nats.url) as shop:
        yield shop


async def test_a_message_whose_acknowledgement_is_lost_is_stored(shop: Shop) -> None:
    shop.proxy.lose_acks()
    await shop.publish_for_nothing("one")
    assert shop.proxy.acks_lost == 1
    again = await shop.publish("one")
    assert (again.seq, again.duplicate) == (1, True)
    assert await shop.stored() == ["one"]


async def test_the_connection_can_be_cut_in_place_of_the_acknowledgement(shop: Shop) -> None:
    shop.proxy.lose_acks(cut=True)
    await shop.publish_for_nothing("one")
    assert (await shop.publish_until_stored("one")).duplicate
    assert (shop.proxy.acks_lost, shop.client.stats["reconnects"]) == (1, 1)


async def test_as_many_acknowledgements_are_lost_as_were_asked_for(shop: Shop) -> None:
    shop.proxy.lose_acks(2)
    await shop.publish_for_nothing("one")
    await shop.publish_for_nothing("two")
    assert (await shop.publish("three")).seq == 3
    assert shop.proxy.acks_lost == 2


async def test_only_acknowledgements_of_the_named_stream_are_lost(shop: Shop) -> None:
    shop.proxy.lose_acks(stream="another")
    await shop.publish("one")
    shop.proxy.lose_acks(stream=shop.stream)
    await shop.publish_for_nothing("two")
    assert shop.proxy.acks_lost == 1


async def test_what_is_held_arrives_when_it_is_released(shop: Shop) -> None:
    shop.proxy.hold("to_client")
    publishing = asyncio.create_task(shop.publish("one"))
    await until(shop.has_stored("one"))
    assert not publishing.done()
    shop.proxy.release()
    assert (await publishing).seq == 1

    shop.proxy.hold("to_server")
    await shop.publish_for_nothing("two")
    assert await shop.stored() == ["one"]
    shop.proxy.release()
    await until(shop.has_stored("one", "two"))
    assert shop.proxy.frames_lost == 0


async def test_what_is_sent_during_a_partition_is_lost(shop: Shop) -> None:
    shop.proxy.partition()
    await shop.publish_for_nothing("one")
    assert shop.proxy.frames_lost
    assert shop.client.is_connected
    shop.proxy.heal()
    assert (await shop.publish_until_stored("two")).seq == 1
    assert shop.client.stats["reconnects"] == 1
    assert await shop.stored() == ["two"]


async def test_a_partition_may_be_of_one_way(shop: Shop) -> None:
    shop.proxy.partition("to_client")
    await shop.publish_for_nothing("one")
    assert await shop.stored() == ["one"]
    shop.proxy.heal()
    assert (await shop.publish_until_stored("one")).duplicate


async def test_nobody_connects_through_a_partition(shop: Shop) -> None:
    shop.proxy.partition()
    source, target = await asyncio.open_connection("127.0.0.1", shop.proxy.port)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(read_frame(source), LOST_SECONDS)
    shop.proxy.heal()
    assert (await read_frame(source)).verb == "INFO"
    target.close()


async def test_a_cut_client_comes_back_through_the_proxy(shop: Shop) -> None:
    shop.proxy.cut()

    async def is_back() -> bool:
        return shop.client.stats["reconnects"] == 1

    await until(is_back)
    assert (await shop.publish("one")).seq == 1
    assert shop.proxy.published[-1].payload == b"one"


async def test_a_repeated_message_is_stored_twice(shop: Shop) -> None:
    await shop.publish("one")
    message = shop.proxy.published[-1]
    assert await shop.proxy.repeat(message) == 2
    assert await shop.proxy.repeat(message, "another id") == 3
    assert await shop.stored() == ["one", "one", "one"]
    with pytest.raises(RuntimeError, match=r'not stored: .*"duplicate": ?true'):
        await shop.proxy.repeat(message, "one")
    with pytest.raises(RuntimeError, match=r"not stored: NATS/1\.0 503"):
        await shop.proxy.repeat(publication("nowhere", "", b"", b"one"))
    assert await shop.stored() == ["one", "one", "one"]


async def test_messages_of_any_bytes_pass_whole(shop: Shop) -> None:
    heard = await shop.around.subscribe("proxy.bytes")
    # The client's PING overtakes what it has not written yet: only the second follows its SUB.
    await shop.around.flush()
    await shop.around.flush()
    for payload in (b"", b"\r\n", b"MSG a 1 3\r\nabc\r\n" * 40_000):
        await shop.client.publish("proxy.bytes", payload, headers={"a": "b"})
        await shop.client.publish("proxy.bytes", payload)
        assert (await heard.next_msg(20)).data == payload
        assert (await heard.next_msg(20)).data == payload


async def test_a_client_is_told_when_the_server_has_gone_and_comes_back_with_it(
    own_nats: NatsServer,
) -> None:
    async with opened(own_nats.port, own_nats.url) as shop:
        await shop.publish("one")
        await asyncio.to_thread(own_nats.kill)

        async def is_told() -> bool:
            return not shop.client.is_connected

        await until(is_told)
        await asyncio.to_thread(own_nats.start)
        assert (await shop.publish_until_stored("two")).seq == 2


async def test_that_the_server_has_gone_is_not_heard_through_a_partition(
    own_nats: NatsServer,
) -> None:
    async with opened(own_nats.port, own_nats.url) as shop:
        shop.proxy.partition()
        await asyncio.to_thread(own_nats.kill)
        await shop.publish_for_nothing("one")
        assert shop.client.is_connected
        await asyncio.to_thread(own_nats.start)
        shop.proxy.heal()
        assert (await shop.publish_until_stored("two")).seq == 1


async def test_a_client_learns_no_address_behind_the_proxy(own_nats_cluster: NatsCluster) -> None:
    server = own_nats_cluster.servers[0]
    async with nats_proxy(server.port) as proxy, connected(proxy.url) as client:
        assert [each.netloc for each in client.servers] == [f"127.0.0.1:{proxy.port}"]
    async with connected(server.url) as client:
        assert len(client.servers) > 1


def test_info_names_the_proxy_alone() -> None:
    info = Frame(b'INFO {"host":"10.0.0.1","port":4222,"ip":"10.0.0.1","connect_urls":["b:1"]}')
    assert hide_servers(info, "127.0.0.1", 7).line == b'INFO {"host": "127.0.0.1", "port": 7}'


@pytest.mark.parametrize(
    ("headers", "message_id", "expected"),
    [
        (b"", None, b""),
        (b"NATS/1.0\r\nNats-Msg-Id: a\r\n\r\n", None, b""),
        (b"NATS/1.0\r\nnats-msg-id:a\r\nB: c\r\n\r\n", None, b"NATS/1.0\r\nB: c\r\n\r\n"),
        (b"", "z", b"NATS/1.0\r\nNats-Msg-Id: z\r\n\r\n"),
        (b"NATS/1.0\r\nNats-Msg-Id: a\r\n\r\n", "z", b"NATS/1.0\r\nNats-Msg-Id: z\r\n\r\n"),
    ],
)
def test_a_message_id_is_replaced_or_removed(
    headers: bytes, message_id: str | None, expected: bytes
) -> None:
    assert with_message_id(headers, message_id) == expected


@pytest.mark.parametrize(
    ("verb", "payload", "stream"),
    [
        (b"MSG", b'{"stream":"s","seq":4}', "s"),
        (b"MSG", b'{"stream":"s","seq":4,"duplicate":true}', "s"),
        (b"MSG", b'{"error":{"code":503},"stream":"s","seq":0}', ""),
        (b"MSG", b'{"type":"io.nats.jetstream.api.v1.stream_info_response"}', ""),
        (b"MSG", b"{not json", ""),
        (b"MSG", b"\x93\x01\x02\x03", ""),
        (b"PUB", b'{"stream":"s","seq":4}', ""),
    ],
)
def test_only_an_acknowledgement_that_something_is_stored_is_taken_for_one(
    verb: bytes, payload: bytes, stream: str
) -> None:
    frame = Frame(b"%s _INBOX.a 1 %d" % (verb, len(payload)), payload)
    assert stored_in(frame) == stream
