"""A node that cannot start says in one line what is wrong, and leaves those that run alone."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import httpx
import nats as nats_client
import pytest
from nats.js.api import StorageType, StreamConfig

from engine.cluster import broker, join
from engine.cluster.broker import Broker
from engine.cluster_settings import ClusterSettings
from engine.config import load_settings
from engine.errors import BrokerUnavailable
from engine.runtime import open_engine
from engine.service import command
from engine.service import serve as program
from engine.service.command import _print_where as print_where
from engine.service.service import Urls
from engine.testing import nats_server as kit
from engine.testing.nats_server import NatsServer, nats_cluster, nats_server
from tests.architecture.source_tree import ROOT
from tests.cluster.town import eventually, served, town
from tests.gate.waiting import until
from tests.servers import need_nats
from tests.shell import Shell

BAD_INPUT, FAILED = 2, 1


class Ended(NamedTuple):
    """A program that has ended; `error` is what it said last."""

    code: int
    out: str
    error: str


def serve(folder: Path, settings: Mapping[str, object], *arguments: str) -> Ended:
    """`seckill serve`, which must not start."""
    environment = {
        **{name: text for name, text in os.environ.items() if "SECKILL" not in name},
        **{
            f"SECKILL_{key.upper().replace('.', '__')}": str(value).replace("'", '"')
            for key, value in settings.items()
        },
        "PYTHONPATH": str(ROOT),
    }
    command = "from engine.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", command, "serve", "--port=0", "--admin-port=0", *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    return Ended(done.returncode, done.stdout, done.stderr.splitlines()[-1])


def at(server: NatsServer, **changes: object) -> dict[str, object]:
    return {
        "cluster.servers": server.urls,
        "cluster.monitor_urls": server.monitor_urls,
        **{key.replace("__", "."): value for key, value in changes.items()},
    }


@pytest.fixture
def bare_nats(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[NatsServer]:
    """A broker without JetStream."""
    need_nats()
    block = re.compile(r"^jetstream \{\{.*?^\}\}", re.DOTALL | re.MULTILINE)
    assert block.search(kit.CONFIGURATION)
    monkeypatch.setattr(kit, "CONFIGURATION", block.sub("", kit.CONFIGURATION))
    server = NatsServer(tmp_path / "nats")
    try:
        server.launch()
        server.wait_until("/varz")
        yield server
    finally:
        server.close()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ("role = 'boss'", "cluster.role: Invalid enum value 'boss'; allowed: all, gateway, engine"),
        ("role = 'gateway'", "cluster.role gateway needs cluster.servers"),
        ("role = 'engine'", "cluster.role engine needs cluster.servers"),
        ("servers = ['localhost:4222']", "URLs such as nats://127.0.0.1:4222"),
        ("servers = ['nats://a']\nmonitor_urls = ['a:8222']", "such as http://127.0.0.1:8222"),
        ("servers = ['nats://a']\nheartbeat_ms = 500\ndead_after_ms = 1_000", "three times"),
        ("servers = ['nats://a']\nnode = 'a.b'", "cluster.node"),
        ("servers = ['nats://a']\nrole = 'gateway'\n[store]\nurl = 'memory:'", "memory: store"),
    ],
)
def test_settings_that_do_not_fit_are_bad_input(shell: Shell, settings: str, said: str) -> None:
    config = shell.write("cluster.toml", f"[cluster]\n{settings}\n")
    assert shell.run("serve", "--config", config) == BAD_INPUT
    assert said in shell.err
    assert shell.err.startswith("error: ")
    assert len(shell.err.splitlines()) == 1
    assert list(shell.files()) == [config]


def test_a_role_without_brokers_is_refused_when_it_comes_as_a_flag(shell: Shell) -> None:
    assert shell.run("serve", "--role", "engine") == BAD_INPUT
    assert "needs cluster.servers" in shell.err
    assert shell.run("serve", "--role", "boss") == BAD_INPUT
    assert "allowed: all, gateway, engine" in shell.err


def test_without_a_broker_it_fails(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broker, "CONNECT_SECONDS_MAX", 0.5)
    # They would stay as `serve` wants them for the whole test process.
    monkeypatch.setattr(command, "set_up_logging", lambda _: None)
    monkeypatch.setattr(command, "tune_garbage_collector", lambda: None)
    config = shell.write(
        "cluster.toml",
        '[cluster]\nservers = ["nats://127.0.0.1:9"]\nmonitor_urls = ["http://127.0.0.1:9"]\n',
    )
    assert shell.run("serve", "--config", config, "--port=0", "--admin-port=0") == FAILED
    assert shell.out == ""
    assert "error: no broker of cluster.servers answers" in shell.err


def test_a_broker_without_jetstream_is_refused(tmp_path: Path, bare_nats: NatsServer) -> None:
    ended = serve(tmp_path, at(bare_nats))
    assert (ended.code, ended.out) == (BAD_INPUT, "")
    assert "has no JetStream: every broker needs a jetstream block" in ended.error


async def test_without_jetstream_it_fails_also_when_nobody_looks_at_durability(
    bare_nats: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(join, "START_TRIES_MAX", 0)
    settings = {"store.url": "memory:", **at(bare_nats, cluster__durability="relaxed")}
    client = await nats_client.connect(bare_nats.url)
    heard = await client.subscribe("seckill.nodes.*")
    await client.flush()
    with pytest.raises(BrokerUnavailable, match="JetStream does not answer: it is not on"):
        async with open_engine(load_settings(None, settings, {})):
            pass
    await client.flush()
    # It would not have been heard by everybody: the brokers may not have found one another.
    assert heard.pending_msgs == 0
    await client.close()


async def test_an_engine_listens_to_the_operator_alone(
    mariadb_url: str, nats: NatsServer, capsys: pytest.CaptureFixture[str]
) -> None:
    async with town(mariadb_url, nats) as made:
        settings = made.settings(**{"cluster.role": "engine", "service.admin_port": 0})
        told: asyncio.Future[Urls] = asyncio.get_running_loop().create_future()
        serving = asyncio.create_task(program.serve(settings, told.set_result))
        await asyncio.wait((told, serving), return_when=asyncio.FIRST_COMPLETED)
        urls = await told
        assert urls.public == ""
        print_where(settings, urls)
        printed = capsys.readouterr().out
        assert "Buyers" not in printed
        assert f"Operator  {urls.admin}" in printed
        assert "role engine" in printed
        async with httpx.AsyncClient(base_url=urls.admin, timeout=20) as operator:

            async def is_ready() -> bool:
                return (await operator.get("/readyz")).status_code == 200

            await until(is_ready)
            assert (await operator.get("/readyz")).json()["role"] == "engine"
            assert "seckill_commands_total" in (await operator.get("/metrics")).text
            assert (await operator.get("/v1/about")).json()["public_url"] == ""
            # Nothing of the buyers' is there.
            order = await operator.post("/v1/skus/PHONE/reservations", json={"buyer": "alice"})
            assert order.status_code == 404
        signal.raise_signal(signal.SIGTERM)
        await serving


async def test_a_node_whose_client_gives_up_for_good_ends_as_failed(
    mariadb_url: str, nats: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect, made_by = Broker.connect, []

    async def connect_and_show(settings: ClusterSettings, name: str) -> Broker:
        made_by.append(await connect(settings, name))
        return made_by[-1]

    monkeypatch.setattr(Broker, "connect", connect_and_show)
    async with town(mariadb_url, nats) as made:
        settings = made.settings(**{"service.port": 0, "service.admin_port": 0})
        told: asyncio.Future[Urls] = asyncio.get_running_loop().create_future()
        serving = asyncio.create_task(program.serve(settings, told.set_result))
        await asyncio.wait((told, serving), return_when=asyncio.FIRST_COMPLETED)
        (found,) = made_by
        found.client._transport.write(b"NONSENSE\r\n")  # type: ignore[union-attr]
        with pytest.raises(BrokerUnavailable, match="ended the connection for good"):
            await serving


async def test_who_uses_the_library_is_told_that_a_node_can_go_on_no_more(
    mariadb_url: str, nats: NatsServer
) -> None:
    async with town(mariadb_url, nats) as made:
        site = await made.join("all")
        failing = asyncio.create_task(site.engine.failed())
        broker = site.gateway._broker
        broker.client._transport.write(b"NONSENSE\r\n")  # type: ignore[union-attr]
        assert "ended the connection for good" in await failing


async def test_an_engine_outside_a_cluster_never_fails_so() -> None:
    async with open_engine(load_settings(None, {"store.url": "memory:"}, {})) as engine:
        failing = asyncio.create_task(engine.failed())
        await engine.open_sale("A", stock=1)
        assert not failing.done()
        failing.cancel()


def test_a_broker_that_syncs_now_and_then_is_refused_under_strict(tmp_path: Path) -> None:
    need_nats()
    with nats_server(tmp_path / "nats", sync_interval="2m") as server:
        ended = serve(tmp_path, at(server))
    assert (ended.code, ended.out) == (BAD_INPUT, "")
    assert "syncs its disk every two minutes" in ended.error
    assert "`sync_interval: always`" in ended.error
    assert 'cluster.durability = "relaxed"' in ended.error


@pytest.mark.parametrize(
    ("setting", "stream"),
    [("stream_bytes_max", "small-commands"), ("events_bytes_max", "small-events")],
)
@pytest.mark.parametrize("replicas", [1, 3])
def test_brokers_without_room_for_a_stream_are_refused(
    tmp_path: Path, replicas: int, setting: str, stream: str
) -> None:
    need_nats()
    sizes = {"stream_bytes_max": 1_000_000, "events_bytes_max": 1_000_000, setting: 30_000_000}
    with nats_cluster(tmp_path / "nats", replicas, max_file_store="20MB") as brokers:
        settings = {
            "cluster.servers": brokers.urls,
            "cluster.monitor_urls": brokers.monitor_urls,
            "cluster.prefix": "small",
            "cluster.replicas": replicas,
            **{f"cluster.{name}": value for name, value in sizes.items()},
        }
        ended = serve(tmp_path, settings)
    assert f"no room for the stream {stream}, which sets 30,000,000 bytes aside" in ended.error
    assert f"lower cluster.{setting}, or raise max_file_store" in ended.error
    assert (ended.code, ended.out) == (BAD_INPUT, "")


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("commands", "the stream shaped-commands is not one for commands"),
        ("events", "the stream shaped-events is not one for events"),
    ],
)
def test_a_stream_of_another_shape_is_refused_and_left_as_it_is(
    tmp_path: Path, own_nats: NatsServer, kind: str, said: str
) -> None:
    name = f"shaped-{kind}"

    async def make() -> None:
        client = await nats_client.connect(own_nats.url)
        wanted = StreamConfig(name=name, subjects=["shaped.x"], storage=StorageType.MEMORY)
        await client.jetstream().add_stream(wanted)
        await client.close()

    async def subjects() -> list[str] | None:
        client = await nats_client.connect(own_nats.url)
        found = await client.jetstream().stream_info(name)
        await client.close()
        return found.config.subjects

    asyncio.run(make())
    ended = serve(tmp_path, at(own_nats, cluster__prefix="shaped"))
    assert said in ended.error
    assert "choose another" in ended.error
    assert (ended.code, ended.out) == (BAD_INPUT, "")
    assert asyncio.run(subjects()) == ["shaped.x"]


@pytest.mark.parametrize("role", ["engine", "gateway"])
async def test_a_namesake_is_refused_and_the_node_that_runs_keeps_its_partitions(
    mariadb_url: str, nats: NatsServer, tmp_path: Path, role: str
) -> None:
    async with town(mariadb_url, nats) as made:
        gateway = await made.join("gateway", "gateway-1")
        await made.join("engine", "other")
        await made.join("engine", "engine-1")

        await served(gateway)

        async def owners() -> list[tuple[int, str, int]]:
            return [(each.partition, each.owner, each.epoch) for each in gateway.engine.served()]

        async def own_something() -> set[str]:
            return {owner for _, owner, _ in await owners()}

        await eventually(own_something, {"engine-1", "other"})
        await made.settled(gateway)
        before = await owners()
        settings = at(
            nats,
            store__url=mariadb_url,
            store__partitions=4,
            cluster__prefix=made.prefix,
            cluster__node="engine-1",
            # It listens for two of them before it takes part.
            cluster__heartbeat_ms=500,
            cluster__role=role,
            cluster__stream_bytes_max=2_000_000,
            cluster__events_seconds_max=1,
        )
        broker = gateway.gateway._broker
        js = broker.client.jetstream()
        names = [f"{made.prefix}-{kind}" for kind in ("commands", "events")]
        streams = [(await js.stream_info(each)).config for each in names]
        ended = await asyncio.to_thread(serve, tmp_path, settings)
        assert "another node that runs is called 'engine-1'" in ended.error
        assert (ended.code, ended.out) == (BAD_INPUT, "")
        await made.settled(gateway)
        assert await owners() == before
        # They are of those that run, whatever it would have wanted of them.
        assert [(await js.stream_info(each)).config for each in names] == streams
