"""A store URL is taken apart, or refused without showing its password."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.errors import ConfigError
from engine.stores.mysql_url import MysqlAddress, parse_mysql_url


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("mysql://u:p@h:33/db", MysqlAddress("h", 33, "u", "p", "db")),
        ("mysql://u@h/db", MysqlAddress("h", 3306, "u", "", "db")),
        ("mysql://u:p%40%3A%2F@h/my%20db", MysqlAddress("h", 3306, "u", "p@:/", "my db")),
        ("mysql://u:p@[::1]:33/db", MysqlAddress("::1", 33, "u", "p", "db")),
        ("mysql://u:p@h/db?tls=on", MysqlAddress("h", 3306, "u", "p", "db", "on")),
        (
            "mysql://u:p@h/db?tls=on&tls_ca=%2Fetc%2Fca.pem",
            MysqlAddress("h", 3306, "u", "p", "db", "on", "/etc/ca.pem"),
        ),
    ],
)
def test_a_url_names_everything(url: str, address: MysqlAddress) -> None:
    assert parse_mysql_url(url) == address
    assert parse_mysql_url(address.url()) == address


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("mysql://u:secret@h", "names no database"),
        ("mysql://h/db", "names no user"),
        ("mysql://u:secret@/db", "names no host"),
        ("mysql:/db", "names no user and no host"),
        ("mysql://u:secret@h:99999/db", "port of the store URL must be from 1 to 65535"),
        ("mysql://u:secret@h:0/db", "port of the store URL must be from 1 to 65535"),
        ("mysql://u:[secret@h/db", "the store URL cannot be read"),
        ("mysql://u:secret@h/db/x", "'db/x' is no name of a database"),
        ("mysql://u:secret@h/db?ssl=1", "unknown option ssl"),
        ("mysql://u:secret@h/db?tls=yes", "tls in the store URL must be off, on, unverified"),
        ("mysql://u:secret@h/db?tls_ca=x", "tls_ca in the store URL needs tls=on"),
    ],
)
def test_a_wrong_url_is_refused_and_its_password_not_shown(url: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_mysql_url(url)
    assert message in str(caught.value)
    assert "secret" not in str(caught.value)


def test_an_address_is_shown_without_its_password() -> None:
    assert str(parse_mysql_url("mysql://u:secret@h/db")) == "mysql://u@h:3306/db"


def test_tls_checks_the_server_unless_told_otherwise(tmp_path: Path) -> None:
    assert parse_mysql_url("mysql://u@h/db").tls_context() is None
    checked = parse_mysql_url("mysql://u@h/db?tls=on").tls_context()
    assert checked is not None
    assert checked.check_hostname
    blind = parse_mysql_url("mysql://u@h/db?tls=unverified").tls_context()
    assert blind is not None
    assert not blind.check_hostname
    missing = parse_mysql_url(f"mysql://u@h/db?tls=on&tls_ca={tmp_path}/none.pem")
    with pytest.raises(ConfigError, match="cannot read tls_ca"):
        missing.tls_context()
