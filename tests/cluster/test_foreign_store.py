"""Two stores over the same brokers and prefix: the second node is refused, and nothing of it is heard."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from engine.clock import SystemClock
from engine.cluster.wire import Wire, WireError
from engine.config import Settings, load_settings
from engine.errors import ConfigError
from engine.inventory.commands import Reserve
from engine.inventory.sale import sale_registry
from engine.runtime import open_engine
from engine.testing.nats_server import NatsServer


def settings_of(folder: Path, server: NatsServer, prefix: str, node: str) -> Settings:
    folder.mkdir()
    overrides = {
        "store.url": f"sqlite:{folder}/sale.db",
        "store.partitions": 2,
        "cluster.servers": server.urls,
        "cluster.monitor_urls": server.monitor_urls,
        "cluster.prefix": prefix,
        "cluster.node": node,
        "cluster.heartbeat_ms": 100,
        # An engine that is opened waits so long at most until it can sell.
        "cluster.dead_after_ms": 60_000,
        # The broker sets that much of its disk aside for each stream.
        "cluster.stream_bytes_max": 10_000_000,
        "cluster.events_bytes_max": 10_000_000,
    }
    return load_settings(None, json.loads(json.dumps(overrides)), {})


async def test_a_node_with_another_store_does_not_start_and_takes_nothing(
    tmp_path: Path, nats: NatsServer
) -> None:
    ours = settings_of(tmp_path / "ours", nats, "foreign-1", "one")
    async with open_engine(ours) as engine:
        await engine.open_sale("A", stock=1)
        other = settings_of(tmp_path / "other", nats, "foreign-1", "two")
        with pytest.raises(ConfigError, match="node 'one' sells from another store"):
            async with open_engine(other):
                raise AssertionError("it has started")
        await SystemClock().sleep(0.3)
        assert {each.owner for each in engine.served()} == {"one"}
        assert (await engine.reserve("A", buyer="ann")).__class__.__name__ == "Reserved"
        assert {each.epoch for each in engine.served()} == {1}


def test_a_message_for_another_store_is_not_read() -> None:
    ours, other = Wire(sale_registry(), "one"), Wire(sale_registry(), "other")
    data = other.encode_commands("inbox", 1, [("stock", 1, [Reserve("1", "A", "b")])])
    with pytest.raises(WireError, match=r"another store: give each its own cluster\.prefix"):
        ours.decode_message(data)


async def test_a_program_that_opens_an_engine_may_sell_at_once(
    tmp_path: Path, nats: NatsServer
) -> None:
    async with open_engine(settings_of(tmp_path / "s", nats, "foreign-2", "one")) as engine:
        assert engine.stopped() == []
