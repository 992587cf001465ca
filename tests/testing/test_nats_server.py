"""The private brokers of the tests keep what they promise, and break when they are told to."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import nats
import pytest
from nats.aio.client import Client
from nats.errors import NoRespondersError
from nats.errors import TimeoutError as NatsTimeout
from nats.js import JetStreamContext
from nats.js.errors import APIError, NoStreamResponseError, NotFoundError

from engine.testing import nats_server as kit
from engine.testing.nats_server import NatsCluster, NatsServer
from engine.testing.ports import HeldPort
from tests.servers import need_nats

STREAM = "orders"
PUBLISH_TRIES_MAX = 600


@asynccontextmanager
async def connected(server: NatsServer | NatsCluster) -> AsyncIterator[Client]:
    async def ignore(error: Exception) -> None:
        """A server that goes away is what these tests are about."""

    client = await nats.connect(server.urls, reconnect_time_wait=0.05, error_cb=ignore)
    try:
        yield client
    finally:
        await client.close()


async def add_stream(jetstream: JetStreamContext, replicas: int = 1) -> None:
    await jetstream.add_stream(name=STREAM, subjects=[f"{STREAM}.*"], num_replicas=replicas)


async def publish(jetstream: JetStreamContext, text: str) -> int:
    """Publish until it is acknowledged, as one message. Returns its sequence."""
    for _ in range(PUBLISH_TRIES_MAX):
        try:
            ack = await jetstream.publish(
                f"{STREAM}.1", text.encode(), timeout=1, headers={"Nats-Msg-Id": text}
            )
        except (NatsTimeout, NoRespondersError, NoStreamResponseError, APIError):
            await asyncio.sleep(kit.POLL_SECONDS)
            continue
        return ack.seq
    raise AssertionError(f"{text} was never acknowledged")


async def stored(jetstream: JetStreamContext) -> list[str]:
    last = (await jetstream.stream_info(STREAM)).state.last_seq
    messages = [await jetstream.get_msg(STREAM, number) for number in range(1, last + 1)]
    return [(message.data or b"").decode() for message in messages]


async def test_what_was_acknowledged_is_there_after_kill_9_and_gone_after_a_wipe(
    own_nats: NatsServer,
) -> None:
    async with connected(own_nats) as client:
        await add_stream(client.jetstream())
        assert await publish(client.jetstream(), "one") == 1
        await asyncio.to_thread(own_nats.kill)
    await asyncio.to_thread(own_nats.start)
    async with connected(own_nats) as client:
        assert await stored(client.jetstream()) == ["one"]
    await asyncio.to_thread(own_nats.stop)
    await asyncio.to_thread(own_nats.wipe)
    await asyncio.to_thread(own_nats.start)
    async with connected(own_nats) as client:
        with pytest.raises(NotFoundError):
            await client.jetstream().stream_info(STREAM)


def test_a_started_server_serves_at_once(own_nats: NatsServer) -> None:
    for _ in range(3):
        own_nats.kill()
        own_nats.start()
        assert own_nats.ask(kit.READY) == {"status": "ok"}


@pytest.mark.parametrize(("interval", "always"), [("always", True), ("2m", False)])
def test_the_monitor_tells_whether_every_write_is_synced(
    tmp_path: Path, interval: str, always: bool
) -> None:
    need_nats()
    with kit.nats_server(tmp_path, sync_interval=interval) as server:
        settings = server.ask("/varz")
    assert settings is not None
    assert settings["jetstream"]["config"].get("sync_always", False) is always
    assert settings["max_payload"] == 8 * 1024 * 1024
    assert (settings["host"], settings["http_host"]) == ("127.0.0.1", "127.0.0.1")


def test_a_paused_server_is_deaf_until_it_goes_on(own_nats: NatsServer) -> None:
    own_nats.pause()
    assert own_nats.ask(kit.READY) is None
    own_nats.resume()
    assert own_nats.ask(kit.READY) == {"status": "ok"}


def test_a_running_server_keeps_its_store(own_nats: NatsServer) -> None:
    with pytest.raises(RuntimeError, match="nats runs; only the store of one that is down"):
        own_nats.wipe()
    with pytest.raises(RuntimeError, match="nats runs already"):
        own_nats.start()


def test_a_server_that_does_not_start_says_why(tmp_path: Path) -> None:
    need_nats()
    server = NatsServer(tmp_path, max_payload="none")
    with pytest.raises(RuntimeError, match=r"nats did not start:\n.*nats.conf"):
        server.start()
    server.close()


async def test_a_cluster_goes_on_without_the_leader_of_a_stream(
    own_nats_cluster: NatsCluster,
) -> None:
    async with connected(own_nats_cluster) as client:
        jetstream = client.jetstream(timeout=20)
        await add_stream(jetstream, replicas=3)
        await publish(jetstream, "one")
        first = await asyncio.to_thread(own_nats_cluster.leader_of, STREAM)
        await asyncio.to_thread(own_nats_cluster.kill, first)
        await publish(jetstream, "two")
        second = await asyncio.to_thread(own_nats_cluster.leader_of, STREAM)
        assert second != first
        # One that lost its disk gets everything from the others.
        await asyncio.to_thread(own_nats_cluster.wipe, first)
        await asyncio.to_thread(own_nats_cluster.start, first)
        await asyncio.to_thread(own_nats_cluster.kill, 3 - first - second)
        await publish(jetstream, "three")
        assert await stored(jetstream) == ["one", "two", "three"]


async def test_a_cluster_that_was_killed_as_a_whole_keeps_its_messages(
    own_nats_cluster: NatsCluster,
) -> None:
    async with connected(own_nats_cluster) as client:
        await add_stream(client.jetstream(timeout=20), replicas=3)
        await publish(client.jetstream(), "one")
    await asyncio.to_thread(own_nats_cluster.kill)
    # One of three: JetStream runs and cannot serve.
    await asyncio.to_thread(own_nats_cluster.start, 0)
    assert await asyncio.to_thread(own_nats_cluster.servers[0].ask, kit.READY) is None
    await asyncio.to_thread(own_nats_cluster.start)
    # Until a stream has a leader, what is asked about it is not answered.
    await asyncio.to_thread(own_nats_cluster.leader_of, STREAM)
    async with connected(own_nats_cluster) as client:
        assert await stored(client.jetstream(timeout=20)) == ["one"]


def test_nobody_leads_a_stream_that_does_not_exist(
    own_nats_cluster: NatsCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kit, "LEADER_POLLS_MAX", 2)
    with pytest.raises(RuntimeError, match="no server leads the stream none"):
        own_nats_cluster.leader_of("none")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux holds a port for a server")
def test_a_held_port_is_for_a_server_and_for_no_other_holder_or_connection() -> None:
    held = HeldPort()
    address = ("127.0.0.1", held.number)
    with socket.socket() as other, pytest.raises(OSError, match="Address already in use"):
        other.bind(address)
    for _ in range(2):
        with socket.socket() as server:
            server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            server.bind(address)
            server.listen()
    held.release()
    with socket.socket() as other:
        other.bind(address)


def test_a_missing_program_is_a_failure_on_a_build_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.servers.find_nats_server", lambda: None)
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="nats-server is not installed"):
        need_nats()
    monkeypatch.delenv("CI")
    with pytest.raises(pytest.skip.Exception, match="nats-server is not installed"):
        need_nats()
