"""The real broker and the scripted one keep one contract; and what only a real one can show."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Any

import msgspec
import nats as nats_client
import pytest
from nats.aio.msg import Msg
from nats.js.api import DiscardPolicy, RetentionPolicy, StorageType, StreamConfig

from engine.clock import SystemClock
from engine.cluster.broker import Broker, BrokerFull
from engine.cluster_settings import ClusterSettings
from engine.errors import BrokerUnavailable, ConfigError
from engine.testing.broker_contract import BrokerContract
from engine.testing.nats_proxy import nats_proxy
from engine.testing.nats_server import NatsCluster, NatsServer, nats_server
from engine.testing.scripted_broker import ScriptedServer
from tests.gate.waiting import until
from tests.servers import need_nats

_NUMBERS = count(1)


def settings_of(server: NatsServer, **changes: object) -> ClusterSettings:
    """Of a prefix that no other test has."""
    found = ClusterSettings(
        servers=(server.url,),
        monitor_urls=tuple(server.monitor_urls),
        prefix=f"broker-{next(_NUMBERS)}",
        # The broker sets that much of its disk aside for each stream.
        stream_bytes_max=10_000_000,
    )
    return msgspec.structs.replace(found, **changes)


@asynccontextmanager
async def connected(settings: ClusterSettings) -> AsyncIterator[Broker]:
    broker = await Broker.connect(settings, "test")
    try:
        await broker.ensure_commands()
        yield broker
    finally:
        await broker.close()


class TestRealBroker(BrokerContract):
    @pytest.fixture(autouse=True)
    def _server(self, nats: NatsServer) -> None:
        self.settings = settings_of(nats)

    @asynccontextmanager
    async def connected(self, *, bytes_max: int = 10_000_000) -> AsyncIterator[Broker]:
        settings = msgspec.structs.replace(self.settings, stream_bytes_max=bytes_max)
        async with connected(settings) as broker:
            yield broker

    async def fill(self, broker: Broker) -> None:
        with pytest.raises(BrokerFull):  # noqa: PT012 -- whichever is too much
            for n in range(20):
                await broker.publish(0, b"m" * 200_000, f"fill {n}")

    async def lose_stream(self, broker: Broker) -> None:
        client = await nats_client.connect(self.settings.servers[0])
        await client.jetstream().delete_stream(broker.stream)
        await client.close()


class TestScriptedBroker(BrokerContract):
    @pytest.fixture(autouse=True)
    def _server(self) -> None:
        self.server: ScriptedServer | None = None

    @asynccontextmanager
    async def connected(self, *, bytes_max: int = 10_000_000) -> AsyncIterator[Broker]:
        self.server = self.server or ScriptedServer(SystemClock())
        broker = self.server.connect()
        await broker.ensure_commands()
        try:
            yield broker
        finally:
            await broker.close()

    async def fill(self, broker: Broker) -> None:
        assert self.server is not None
        self.server.is_full = True

    async def lose_stream(self, broker: Broker) -> None:
        assert self.server is not None
        self.server.wipe()


async def test_a_stream_keeps_its_life_and_its_end_when_the_broker_starts_again(
    own_nats: NatsServer,
) -> None:
    async with connected(settings_of(own_nats)) as broker:
        await broker.publish(0, b"m", "a")
        before = await broker.life()
        await asyncio.to_thread(own_nats.kill)
        with pytest.raises(BrokerUnavailable):
            await broker.life()
        await asyncio.to_thread(own_nats.start)

        async def is_back() -> bool:
            return broker.is_connected

        await until(is_back)
        assert await broker.life() == before
        assert await broker.publish(0, b"m", "a") == 1


async def test_a_message_whose_acknowledgement_is_lost_is_stored_once(nats: NatsServer) -> None:
    async with nats_proxy(nats.port) as proxy:
        settings = settings_of(nats, servers=(proxy.url,))
        async with connected(settings) as broker:
            proxy.lose_acks(1, cut=True, stream=broker.stream)
            with pytest.raises(BrokerUnavailable):
                await broker.publish(0, b"m", "a")
            assert proxy.acks_lost == 1
            assert await broker.publish(0, b"m", "a") == 1
            assert (await broker.life()).last == 1


async def test_a_consumer_notices_a_message_that_is_missing(nats: NatsServer) -> None:
    async with connected(settings_of(nats)) as broker:
        await broker.publish(0, b"m", "a")
        consumer = await broker.consume(0, 1)
        consumer._number = 1
        await consumer.pull(1, 10.0)
        with pytest.raises(BrokerUnavailable, match="message 2 of the consumer is missing"):
            await consumer.next(10.0)
        await consumer.close()


async def test_a_silent_broker_is_noticed_while_a_pull_waits(own_nats: NatsServer) -> None:
    async with connected(settings_of(own_nats)) as broker:
        consumer = await broker.consume(0, 1)
        await consumer.pull(1, 10.0)
        own_nats.pause()
        with pytest.raises(BrokerUnavailable, match="silent"):
            await consumer.next(0.2)
        own_nats.resume()
        await consumer.close()


async def found_there(settings: ClusterSettings, **others: Any) -> StreamConfig:
    """Make a stream as others might have made it; as the broker shows it."""
    client = await nats_client.connect(settings.servers[0])
    made = {"subjects": [f"{settings.prefix}.commands.*"], "max_bytes": 10_000_000, **others}
    info = await client.jetstream().add_stream(StreamConfig(f"{settings.prefix}-commands", **made))
    await client.close()
    return info.config


async def config_of(broker: Broker) -> StreamConfig:
    found = await broker._find_stream()
    assert found is not None
    return found.config


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"storage": StorageType.MEMORY}, "its storage is 'memory', where 'file' is needed"),
        ({"subjects": ["else"]}, "its subjects is .'else'"),
        ({"retention": RetentionPolicy.WORK_QUEUE}, "its retention is 'workqueue'"),
        ({"no_ack": True}, "its no_ack is True"),
        ({"deny_purge": True}, "its deny_purge is True"),
        ({"max_consumers": 2}, "its max_consumers is 2"),
    ],
)
async def test_a_stream_of_another_kind_is_left_alone(
    nats: NatsServer, other: dict[str, Any], said: str
) -> None:
    settings = settings_of(nats)
    before = await found_there(settings, **other)
    with pytest.raises(ConfigError, match=rf"{said}.*choose another cluster\.prefix"):
        async with connected(settings):
            pass
    broker = await Broker.connect(settings, "test")
    assert await config_of(broker) == before
    await broker.close()


@pytest.mark.parametrize(
    ("other", "wanted"),
    [
        ({"max_age": 5, "duplicate_window": 1}, {"max_age": 900, "duplicate_window": 120}),
        ({"max_msgs": 10}, {"max_msgs": -1}),
        ({"max_msgs_per_subject": 10}, {"max_msgs_per_subject": -1}),
        ({"max_msg_size": 10}, {"max_msg_size": -1}),
        ({"discard": DiscardPolicy.OLD}, {"discard": "new"}),
    ],
)
async def test_what_would_lose_messages_of_a_stream_that_is_there_is_changed_and_told(
    nats: NatsServer,
    caplog: pytest.LogCaptureFixture,
    other: dict[str, Any],
    wanted: dict[str, Any],
) -> None:
    settings = settings_of(nats)
    made = {"discard": DiscardPolicy.NEW, "max_age": 900, "duplicate_window": 120, **other}
    before = await found_there(settings, description="ours", **made)
    async with connected(settings) as broker:
        after = await config_of(broker)
    assert after == before.evolve(**wanted)
    for name, value in wanted.items():
        was = made[name].value if name == "discard" else made.get(name, -1)
        assert f"the stream {before.name}: {name} was {was} and is {value} now" in caplog.text


async def test_a_stream_that_is_as_wanted_is_left_without_a_word(
    nats: NatsServer, caplog: pytest.LogCaptureFixture
) -> None:
    settings = settings_of(nats)
    for _ in range(2):
        async with connected(settings):
            pass
    assert caplog.records == []


async def test_replicas_that_one_broker_alone_cannot_have_are_a_wrong_setting(
    nats: NatsServer,
) -> None:
    settings = settings_of(nats)
    with pytest.raises(ConfigError, match=r"^cluster\.replicas is 3, and the broker is one alone"):
        async with connected(msgspec.structs.replace(settings, replicas=3)):
            pass
    async with connected(settings):
        pass
    with pytest.raises(ConfigError, match=r"^cluster\.replicas is 3, and the broker is one alone"):
        async with connected(msgspec.structs.replace(settings, replicas=3)):
            pass


async def test_replicas_for_which_brokers_are_missing_may_come_and_are_named(
    own_nats_cluster: NatsCluster,
) -> None:
    settings = settings_of(own_nats_cluster.servers[0], replicas=5)
    with pytest.raises(BrokerUnavailable, match=r"^cluster\.replicas is 5, and the brokers"):
        async with connected(settings):
            pass


async def test_a_client_that_gives_up_for_good_says_why(nats: NatsServer) -> None:
    told: list[str] = []
    async with connected(settings_of(nats)) as broker:
        broker.when_ended = told.append
        # What the broker does not understand it answers as it does a login that is no longer valid.
        broker.client._transport.write(b"NONSENSE\r\n")  # type: ignore[union-attr]

        async def is_told() -> bool:
            return bool(told)

        await until(is_told)
        assert told == [broker.ended]
        assert "ended the connection for good: nats: unknown protocol operation" in broker.ended
        with pytest.raises(BrokerUnavailable):
            await broker.life()


async def test_a_client_that_fails_while_it_gives_up_has_ended_too(
    nats: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken() -> None:
        raise ConnectionResetError("Connection lost")

    told: list[str] = []
    async with connected(settings_of(nats)) as broker:
        client = broker.client
        broker.when_ended = told.append
        # It writes what is left before it tells anybody.
        monkeypatch.setattr(client, "_flush_pending", broken)
        client._transport.write(b"NONSENSE\r\n")  # type: ignore[union-attr]

        async def is_closed() -> bool:
            return client.is_closed

        await until(is_closed)
        try:
            assert told == []
            for _ in range(2):
                with pytest.raises(BrokerUnavailable, match="connection closed"):
                    await broker.send(broker.subject("nodes", "a"), b"")
            assert told == [broker.ended]
            assert "ended the connection for good: nats: unknown" in broker.ended
        finally:
            client._transport.close()  # type: ignore[union-attr]


async def test_a_connection_that_is_closed_here_has_not_ended(nats: NatsServer) -> None:
    told: list[str] = []
    async with connected(settings_of(nats)) as broker:
        broker.when_ended = told.append
    assert (told, broker.ended) == ([], "")


async def test_a_stream_is_brought_up_to_the_settings_and_keeps_what_it_holds(
    nats: NatsServer,
) -> None:
    settings = settings_of(nats)
    async with connected(settings) as broker:
        await broker.publish(0, b"m", "a")
    async with connected(msgspec.structs.replace(settings, stream_bytes_max=2_000_000)) as broker:
        assert (await broker.life()).last == 1
        assert (await config_of(broker)).max_bytes == 2_000_000


async def test_who_fails_to_take_a_message_in_is_shown_and_gets_the_next(
    nats: NatsServer, caplog: pytest.LogCaptureFixture
) -> None:
    heard: list[bytes] = []

    async def fail(message: Msg) -> None:
        heard.append(message.data)
        raise ZeroDivisionError("a bug in who listens")

    async with connected(settings_of(nats)) as broker:
        await broker.listen(broker.subject("nodes", "*"), fail)
        for each in (b"1", b"2"):
            await broker.send(broker.subject("nodes", "a"), each)

        async def both_are_heard() -> bool:
            return heard == [b"1", b"2"]

        await until(both_are_heard)
    assert [each.levelno for each in caplog.records if each.exc_info] == [logging.ERROR] * 2


async def test_no_broker_that_answers_is_an_error_that_says_so(
    nats: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.cluster.broker.CONNECT_SECONDS_MAX", 0.2)
    with pytest.raises(BrokerUnavailable, match=r"no broker of cluster\.servers answers"):
        await Broker.connect(settings_of(nats, servers=("nats://127.0.0.1:1",)), "test")


@pytest.fixture
def guarded_nats(tmp_path: Path) -> Iterator[NatsServer]:
    """A broker that wants a token."""
    need_nats()
    with nats_server(tmp_path / "nats", authorization='{ token: "secret" }') as server:
        yield server


async def test_a_broker_that_refuses_the_login_is_a_wrong_setting(guarded_nats: NatsServer) -> None:
    with pytest.raises(ConfigError, match="refused the login"):
        await Broker.connect(settings_of(guarded_nats), "test")
    url = guarded_nats.url.replace("//", "//secret@")
    async with connected(settings_of(guarded_nats, servers=(url,))) as broker:
        assert (await broker.life()).last == 0
