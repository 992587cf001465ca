"""A gate URL is taken apart, or refused without showing its password."""

from __future__ import annotations

import pytest

from engine.errors import ConfigError
from engine.gate.redis_address import RedisAddress, parse_redis_url


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("redis://h", RedisAddress("h")),
        ("redis://h:7000/3", RedisAddress("h", 7000, 3)),
        ("redis://:p%40%3A%2F@h/", RedisAddress("h", password="p@:/")),
        ("redis://u:p@[::1]:33/0", RedisAddress("::1", 33, 0, "u", "p")),
        ("rediss://h", RedisAddress("h", tls=True)),
        ("rediss://h?tls_ca=%2Fetc%2Fca.pem", RedisAddress("h", tls=True, tls_ca="/etc/ca.pem")),
    ],
)
def test_a_url_names_everything(url: str, address: RedisAddress) -> None:
    assert parse_redis_url(url) == address


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("user:secret@h", 'gate.url must be "" (no gate), "memory:" or redis://'),
        ("http://u:secret@h", "gate.url must be"),
        ("redis://:secret@", "names no host"),
        ("redis://:secret@h:99999", "port of gate.url must be from 1 to 65535"),
        ("redis://:secret@h:0", "port of gate.url must be from 1 to 65535"),
        ("redis://:[secret@h", "gate.url cannot be read"),
        ("redis://:secret@h/sale", "the database 'sale', which is no number"),
        ("redis://:secret@h?timeout=1", "unknown option timeout"),
        ("redis://:secret@h?tls_ca=x", "tls_ca in gate.url needs rediss://"),
        ("redis://user@h", "names a user and no password"),
    ],
)
def test_a_wrong_url_is_refused_and_its_password_not_shown(url: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_redis_url(url)
    assert message in str(caught.value)
    assert "secret" not in str(caught.value)


def test_an_address_is_shown_without_its_password() -> None:
    assert str(parse_redis_url("redis://u:secret@h")) == "redis://u@h:6379/0"
    assert str(parse_redis_url("rediss://:secret@[::1]:7/2")) == "rediss://[::1]:7/2"
