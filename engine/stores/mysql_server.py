"""What the server promises: read at start, graded, and refused when it is less than asked for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from engine.errors import ConfigError
from engine.stores.mysql_connection import MysqlConnection
from engine.stores.mysql_url import MysqlAddress

VARIABLES: Final = (
    "version",
    "innodb_flush_log_at_trx_commit",
    "innodb_doublewrite",
    "log_bin",
    "sync_binlog",
    "binlog_format",
    "read_only",
    "max_allowed_packet",
)

PACKET_SHARE: Final = 4
"""A statement takes at most this fraction of max_allowed_packet (1/4)."""


class MysqlServer(msgspec.Struct, frozen=True):
    """The server's settings that matter. `gaps` says what a strict store lacks, empty when none."""

    version: str
    durability: str
    gaps: tuple[str, ...]
    read_only: bool
    packet_bytes_max: int

    @property
    def statement_bytes_max(self) -> int:
        return self.packet_bytes_max // PACKET_SHARE


async def read_server(connection: MysqlConnection) -> MysqlServer:
    """Ask the server. Raises StoreUnavailable."""
    names = ", ".join(f"'{name}'" for name in VARIABLES)
    answer = await connection.run(f"SHOW GLOBAL VARIABLES WHERE Variable_name IN ({names})")
    return grade({str(name).lower(): str(value) for name, value in answer.rows})


def grade(variables: Mapping[str, str]) -> MysqlServer:
    """Judge the settings: strict is a redo log and, where one is written, a binlog fsynced at COMMIT."""
    flush = variables["innodb_flush_log_at_trx_commit"]
    binlog = _is_on(variables["log_bin"])
    doublewrite = _is_on(variables["innodb_doublewrite"])
    sync = variables["sync_binlog"]
    # 3 (MariaDB) syncs at commit as 1 does, and at prepare besides.
    gaps: list[str] = []
    if flush not in ("1", "3"):
        gaps.append(f"innodb_flush_log_at_trx_commit = {flush} (needs 1)")
    if binlog and sync != "1":
        gaps.append(f"sync_binlog = {sync} (needs 1)")
    if not doublewrite:
        gaps.append("innodb_doublewrite = OFF (needs ON)")
    # READ COMMITTED, which every session of ours uses, cannot be logged as statements.
    if binlog and variables["binlog_format"].upper() == "STATEMENT":
        raise ConfigError("the server's binlog_format is STATEMENT; a store needs ROW or MIXED")
    log = f"sync_binlog={sync}" if binlog else "no binlog"
    settings = (
        f"innodb_flush_log_at_trx_commit={flush}, {log}, "
        f"doublewrite {'on' if doublewrite else 'off'}, READ COMMITTED"
    )
    return MysqlServer(
        version=variables["version"],
        durability=f"{'relaxed' if gaps else 'strict'}: {settings}",
        gaps=tuple(gaps),
        read_only=_is_on(variables["read_only"]),
        packet_bytes_max=int(variables["max_allowed_packet"]),
    )


def check_server(server: MysqlServer, address: MysqlAddress, *, strict: bool) -> None:
    """Raise ConfigError when the server cannot keep what the settings promise."""
    if server.read_only:
        raise ConfigError(f"{address} is read-only; a store needs the server that takes writes")
    if strict and server.gaps:
        raise ConfigError(
            f"{address} can lose acknowledged orders: {', '.join(server.gaps)}; change the server, "
            'or accept that with durability = "relaxed" in [store]'
        )


def _is_on(value: str) -> bool:
    # MariaDB 11 and MySQL also know other doublewrite values, such as DETECT_AND_RECOVER.
    return value.upper() not in ("0", "OFF", "NO")
