"""Brokers that could lose with their power what they acknowledged are refused, or warned of."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import msgspec
import pytest

from engine.cluster.durability import check_durability
from engine.cluster_settings import ClusterSettings
from engine.errors import BrokerUnavailable, ConfigError
from engine.testing.nats_server import NatsServer, nats_server
from tests.servers import need_nats

NOBODY = "http://127.0.0.1:1"


def looking_at(*monitor_urls: str, **changes: object) -> ClusterSettings:
    return msgspec.structs.replace(ClusterSettings(monitor_urls=monitor_urls), **changes)


@pytest.fixture(scope="module")
def lazy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    """A broker that syncs its disk as one does by default."""
    need_nats()
    with nats_server(tmp_path_factory.mktemp("lazy"), sync_interval="2m") as server:
        yield server


async def test_a_broker_that_syncs_always_is_fine(
    nats: NatsServer, caplog: pytest.LogCaptureFixture
) -> None:
    await check_durability(looking_at(f"{nats.monitor_urls[0]}/"))
    assert caplog.records == []


async def test_strict_refuses_a_broker_that_does_not_and_names_the_remedy(
    nats: NatsServer, lazy: NatsServer
) -> None:
    with pytest.raises(ConfigError) as caught:
        await check_durability(looking_at(*nats.monitor_urls, *lazy.monitor_urls))
    assert lazy.monitor_urls[0] in str(caught.value)
    assert nats.monitor_urls[0] not in str(caught.value)
    assert "sync_interval: always" in str(caught.value)
    assert "relaxed" in str(caught.value)


async def test_relaxed_warns_and_goes_on(
    lazy: NatsServer, caplog: pytest.LogCaptureFixture
) -> None:
    await check_durability(looking_at(*lazy.monitor_urls, durability="relaxed"))
    assert "syncs its disk every two minutes or so" in caplog.text
    await check_durability(looking_at(durability="relaxed"))
    assert "names none of them" in caplog.text
    await check_durability(looking_at(NOBODY, durability="relaxed"))


async def test_strict_wants_to_be_told_where_to_look() -> None:
    with pytest.raises(ConfigError, match="monitor_urls names none of them"):
        await check_durability(looking_at())


async def test_one_that_is_down_is_passed_over_as_long_as_another_answers(
    nats: NatsServer, caplog: pytest.LogCaptureFixture
) -> None:
    await check_durability(looking_at(NOBODY, *nats.monitor_urls))
    assert f"cannot be read: {NOBODY}" in caplog.text
    with pytest.raises(BrokerUnavailable, match="says how it syncs its disk"):
        await check_durability(looking_at(NOBODY))


async def test_it_asks_past_a_proxy_of_the_environment(
    nats: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", NOBODY)
    monkeypatch.setenv("no_proxy", "")
    await check_durability(looking_at(*nats.monitor_urls))


async def test_what_is_no_monitor_says_nothing(nats: NatsServer) -> None:
    # The port of the clients is the likeliest mistake; it speaks no HTTP.
    with pytest.raises(BrokerUnavailable, match="says how it syncs its disk"):
        await check_durability(looking_at(f"http://127.0.0.1:{nats.port}"))


@asynccontextmanager
async def monitor(body: bytes) -> AsyncIterator[str]:
    """Something that answers every question with `body`."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(b"HTTP/1.0 200 OK\r\n\r\n" + body)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def test_a_broker_without_jetstream_is_refused() -> None:
    async with monitor(b'{"jetstream": {}}') as url:
        with pytest.raises(ConfigError, match="has no JetStream"):
            await check_durability(looking_at(url))


@pytest.mark.parametrize(
    "body", [b"", b"[]", b'{"jetstream": 7}', b'{"jetstream": {"config": {"a": "\xff"}}}']
)
async def test_an_answer_that_cannot_be_read_says_nothing(body: bytes) -> None:
    async with monitor(body) as url:
        with pytest.raises(BrokerUnavailable, match="says how it syncs its disk"):
            await check_durability(looking_at(url))
