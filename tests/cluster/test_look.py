"""Somebody who only looks sees who owns what, and changes nothing."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

from engine.clock import SystemClock
from engine.cluster.look import live_owners
from engine.config import Settings, load_settings
from engine.runtime import open_engine
from engine.testing.nats_server import NatsServer
from tests.gate.waiting import until
from tests.shell import Shell


def settings_of(folder: Path, server: NatsServer, prefix: str) -> Settings:
    path = folder / "node.toml"
    path.write_text(
        f"""
[store]
url = "sqlite:{folder}/sale.db"
partitions = 3
[cluster]
servers = {json.dumps(server.urls)}
monitor_urls = {json.dumps(server.monitor_urls)}
prefix = "{prefix}"
node = "one"
heartbeat_ms = 100
stream_bytes_max = 10_000_000
events_bytes_max = 10_000_000
"""
    )
    return load_settings(path, {}, {})


async def test_the_owner_of_every_partition_is_seen_and_nothing_moves(
    tmp_path: Path, nats: NatsServer
) -> None:
    settings = settings_of(tmp_path, nats, "look-1")
    clock = SystemClock()
    assert await live_owners(settings.cluster, clock) == {}
    async with open_engine(settings) as engine:

        async def is_served() -> bool:
            return len(engine.served()) == 3

        await until(is_served)
        await engine.open_sale("A", stock=1)
        found = await live_owners(settings.cluster, clock)
        assert {number: node for number, (node, _) in found.items()} == dict.fromkeys(
            range(3), "one"
        )
        assert sum(held.position for _, held in found.values()) >= 1
        assert {each.epoch for each in engine.served()} == {1}
        assert "look" not in {each.owner for each in engine.served()}


def test_the_command_names_the_node_and_says_when_nobody_owns_a_partition(
    shell: Shell, tmp_path: Path, nats: NatsServer
) -> None:
    settings = settings_of(tmp_path, nats, "look-2")

    async def sell_and_leave() -> None:
        async with open_engine(settings):
            pass

    asyncio.run(sell_and_leave())
    assert shell.run("partitions", "--config", str(tmp_path / "node.toml")) == 1
    assert shell.out.count("nobody") == 3
    assert "lag" in shell.out
    assert "waiting" in shell.out
