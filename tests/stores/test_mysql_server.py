"""A server is graded by what it syncs at COMMIT; strict refuses less than everything."""

from __future__ import annotations

import pytest

from engine.errors import ConfigError
from engine.stores.mysql_server import check_server, grade
from engine.stores.mysql_url import parse_mysql_url

STRICT = {
    "version": "10.11.19-MariaDB",
    "innodb_flush_log_at_trx_commit": "1",
    "innodb_doublewrite": "ON",
    "log_bin": "ON",
    "sync_binlog": "1",
    "binlog_format": "MIXED",
    "read_only": "OFF",
    "max_allowed_packet": "16777216",
}
ADDRESS = parse_mysql_url("mysql://u:p@h/db")


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"innodb_flush_log_at_trx_commit": "3"},
        {"log_bin": "OFF", "sync_binlog": "0"},
        {"innodb_doublewrite": "DETECT_AND_RECOVER"},
    ],
)
def test_a_strict_server_is_taken(settings: dict[str, str]) -> None:
    server = grade({**STRICT, **settings})
    assert server.durability.startswith("strict: ")
    check_server(server, ADDRESS, strict=True)


@pytest.mark.parametrize(
    ("settings", "gap"),
    [
        ({"innodb_flush_log_at_trx_commit": "2"}, "innodb_flush_log_at_trx_commit = 2"),
        ({"innodb_flush_log_at_trx_commit": "0"}, "innodb_flush_log_at_trx_commit = 0"),
        ({"sync_binlog": "0"}, "sync_binlog = 0"),
        ({"sync_binlog": "1000"}, "sync_binlog = 1000"),
        ({"innodb_doublewrite": "OFF"}, "innodb_doublewrite"),
    ],
)
def test_a_server_that_could_lose_an_order_is_refused_unless_relaxed(
    settings: dict[str, str], gap: str
) -> None:
    server = grade({**STRICT, **settings})
    assert server.durability.startswith("relaxed: ")
    with pytest.raises(ConfigError) as caught:
        check_server(server, ADDRESS, strict=True)
    assert gap in str(caught.value)
    assert 'durability = "relaxed"' in str(caught.value)
    check_server(server, ADDRESS, strict=False)


def test_a_read_only_server_is_refused_whatever_is_asked() -> None:
    server = grade({**STRICT, "read_only": "ON"})
    with pytest.raises(ConfigError, match="is read-only"):
        check_server(server, ADDRESS, strict=False)


def test_a_server_that_logs_statements_is_refused() -> None:
    with pytest.raises(ConfigError, match="needs ROW or MIXED"):
        grade({**STRICT, "binlog_format": "STATEMENT"})


def test_a_statement_takes_a_quarter_of_a_packet() -> None:
    assert grade(STRICT).statement_bytes_max == 4 << 20
