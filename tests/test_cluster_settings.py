"""Wrong settings of a cluster are refused with the key and what is allowed."""

from __future__ import annotations

import pytest

from engine.cluster_settings import ClusterSettings
from engine.config import load_settings
from engine.errors import ConfigError

SERVERS = ("nats://127.0.0.1:4222",)


def loaded(**values: object) -> ClusterSettings:
    overrides = {f"cluster.{key}": value for key, value in values.items()}
    return load_settings(None, {"store.url": "sqlite:x.db", **overrides}, {}).cluster


def test_by_default_there_is_no_cluster() -> None:
    assert loaded() == ClusterSettings()
    assert ClusterSettings().servers == ()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"role": "engine"}, "cluster.role engine needs cluster.servers"),
        ({"role": "gateway"}, "cluster.role gateway needs cluster.servers"),
        ({"servers": ("127.0.0.1:4222",)}, "must be URLs such as nats://"),
        ({"servers": ("nats://",)}, "must be URLs such as nats://"),
        ({"servers": (*SERVERS, "http://a")}, "must be URLs such as nats://"),
        ({"servers": SERVERS, "monitor_urls": ("nats://a",)}, "got 'nats://a'"),
        (
            {"servers": SERVERS, "heartbeat_ms": 1_000, "dead_after_ms": 2_999},
            "cluster.dead_after_ms must be at least three times cluster.heartbeat_ms",
        ),
        ({"servers": SERVERS, "role": "chief"}, "cluster.role"),
        ({"servers": SERVERS, "node": "a.b"}, "cluster.node"),
        ({"servers": SERVERS, "node": "a" * 65}, "cluster.node"),
        ({"servers": SERVERS, "prefix": ""}, "cluster.prefix"),
        ({"servers": SERVERS, "prefix": "a b"}, "cluster.prefix"),
        ({"servers": SERVERS, "prefix": "a.*"}, "cluster.prefix"),
        ({"servers": SERVERS, "replicas": 0}, "cluster.replicas"),
        ({"servers": SERVERS, "durability": "hope"}, "cluster.durability"),
        ({"servers": SERVERS, "message_commands_max": 0}, "cluster.message_commands_max"),
        ({"servers": SERVERS, "message_delay_ms_max": -1}, "cluster.message_delay_ms_max"),
        ({"servers": SERVERS, "heartbeat_ms": 1}, "cluster.heartbeat_ms"),
        ({"servers": SERVERS, "stream_bytes_max": 1}, "cluster.stream_bytes_max"),
        ({"server": SERVERS}, "cluster.server"),
    ],
)
def test_what_is_wrong_is_named(values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        loaded(**values)
    assert message in str(caught.value)


@pytest.mark.parametrize("role", ["engine", "gateway", "all"])
def test_what_is_right_is_taken(role: str) -> None:
    found = loaded(
        servers=(*SERVERS, "tls://broker.example:4222"),
        role=role,
        node="e-1_A",
        dead_after_ms=1_500,
        monitor_urls=("https://broker.example:8222",),
    )
    assert (found.role, found.node) == (role, "e-1_A")


def test_a_url_with_a_password_is_not_shown() -> None:
    with pytest.raises(ConfigError) as caught:
        loaded(servers=("user:secret@127.0.0.1",))
    assert "secret" not in str(caught.value)


def test_a_store_in_memory_cannot_be_shared() -> None:
    with pytest.raises(ConfigError, match="a memory: store ends with its process"):
        load_settings(
            None,
            {"store.url": "memory:", "cluster.servers": SERVERS, "cluster.role": "engine"},
            {},
        )
