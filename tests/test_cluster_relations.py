"""Settings of a cluster that do not fit together are named before anything is opened."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.config import Settings, load_settings
from engine.errors import ConfigError


def load(**changes: object) -> Settings:
    """Of a cluster; changes use `__` for the dot of a setting."""
    servers = ("nats://127.0.0.1:4222",)
    overrides = {key.replace("__", "."): value for key, value in changes.items()}
    return load_settings(None, {"cluster.servers": servers, **overrides}, {})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"cluster__message_delay_ms_max": 500, "queue__deadline_ms": 500},
            "must be below queue.deadline_ms: a lonely command would always miss its deadline (500 >=",
        ),
        (
            {"cluster__dead_after_ms": 1_499},
            "cluster.dead_after_ms must be at least three times cluster.heartbeat_ms",
        ),
        ({"cluster__servers": ("http://a:1",)}, "cluster.servers must be URLs such as nats://"),
        (
            {"cluster__monitor_urls": ("a:8222",)},
            "cluster.monitor_urls must be URLs such as http://127.0.0.1:8222; got 'a:8222'",
        ),
        (
            {"cluster__servers": (), "cluster__role": "engine"},
            "cluster.role engine needs cluster.servers",
        ),
    ],
)
def test_what_does_not_fit_together_is_named(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(**changes)
    assert message in str(caught.value)


def test_what_just_fits_is_taken() -> None:
    found = load(cluster__message_delay_ms_max=499.5, queue__deadline_ms=500)
    assert found.cluster.message_delay_ms_max == 499.5
    # Only advised: a take-over may take longer than the deadline of whoever waits for it.
    assert load(cluster__dead_after_ms=60_000).cluster.dead_after_ms == 60_000
    # Of no use to one process alone, whose other settings need not fit.
    alone = {"cluster.message_delay_ms_max": 900, "queue.deadline_ms": 100}
    assert load_settings(None, alone, {}).queue.deadline_ms == 100


@pytest.mark.parametrize("name", ["none.creds", ""])
def test_credentials_that_cannot_be_read_are_named_with_their_whole_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"cluster.credentials must be a file") as caught:
        load(cluster__credentials=name or ".")
    assert str(tmp_path / name) in str(caught.value)


def test_credentials_that_can_be_read_are_taken(tmp_path: Path) -> None:
    path = tmp_path / "shop.creds"
    path.write_text("-----BEGIN NATS USER JWT-----")
    assert load(cluster__credentials=str(path)).cluster.credentials == str(path)
