"""The schema of a MySQL store: applied by `seckill init`, checked at every start."""

from __future__ import annotations

import asyncio
import re
import uuid
from importlib.resources import files
from pathlib import Path
from typing import Final

import msgspec

from engine.cqrs.event_store import Table
from engine.errors import ConfigError, SchemaMismatch, StoreUnavailable
from engine.stores import mysql_sql as sql
from engine.stores.layout import Layout, check_layout
from engine.stores.mysql_connection import MysqlConnection, code_of
from engine.stores.mysql_server import check_server, read_server
from engine.stores.mysql_url import MysqlAddress

SCHEMA_VERSION: Final = 5
"""Raised with every change of schema.sql. A program opens stores of exactly its own version."""

NO_SUCH_TABLE: Final = 1146

NO_RIGHT: Final = {
    1142: "a right on its tables",
    1143: "a right on its tables",
    1227: "the right to create triggers while the server writes a binary log: SUPER, or "
    "log_bin_trust_function_creators = 1",
    1419: "the right to create triggers while the server writes a binary log: SUPER, or "
    "log_bin_trust_function_creators = 1",
}
"""Error codes for rights that `init` needs."""


def schema_sql() -> str:
    """The text of schema.sql: in the package when it is installed, else at the repository's root."""
    packaged = files("engine").joinpath("schema.sql")
    if packaged.is_file():
        return packaged.read_text(encoding="utf-8")
    return (Path(__file__).parents[2] / "schema.sql").read_text(encoding="utf-8")


def statements_of(script: str) -> list[str]:
    """The statements of a script whose comments have lines of their own and whose ends are `;`."""
    code = re.sub(r"^\s*--.*$", "", script, flags=re.MULTILINE)
    return [each for part in code.split(";\n") if (each := part.strip().rstrip(";"))]


async def initialise(address: MysqlAddress, layout: Layout, *, strict: bool = True) -> None:
    """Make the database a store, or find that it is one already; then nothing changes.

    Raises ConfigError (address, missing rights), SchemaMismatch (another version, partition count
    or tables), StoreUnavailable.
    """
    connection = await MysqlConnection.open(address)
    try:
        # First: a store on a server that is then refused would keep its number of partitions.
        check_server(await read_server(connection), address, strict=strict)
        if await _has_meta(connection):
            check_layout(await read_layout(connection, address), layout, str(address))
        for statement in statements_of(await asyncio.to_thread(schema_sql)):
            await connection.run(statement)
        for table in layout.tables:
            await connection.run(sql.create_table(table))
        # The mark comes last, and all at once: a store without it is only half made.
        numbers = ", ".join(f"({number}, 0, 0, '', '')" for number in range(layout.partitions))
        await connection.run_all(
            [
                "BEGIN",
                f"INSERT IGNORE INTO partitions (partition_id, epoch, position, owner, source) VALUES {numbers}",
                "INSERT IGNORE INTO meta (name, value) VALUES "
                + ", ".join(
                    f"({sql.quote(name)}, {sql.quote(value)})"
                    for name, value in (
                        ("schema_version", str(SCHEMA_VERSION)),
                        ("identity", uuid.uuid4().hex),
                        ("partitions", str(layout.partitions)),
                        ("tables", msgspec.json.encode(layout.tables).decode()),
                    )
                ),
                "COMMIT",
            ]
        )
        check_layout(await read_layout(connection, address), layout, str(address))
    except StoreUnavailable as error:
        right = NO_RIGHT.get(code_of(error))
        if right is None:
            raise
        raise ConfigError(f"{address}: user {address.user} lacks {right}") from error
    finally:
        connection.close()


async def read_layout(connection: MysqlConnection, address: MysqlAddress) -> Layout:
    """Return what the store was initialised with.

    Raises ConfigError when it is none, SchemaMismatch when it is one of another schema version.
    """
    meta: dict[str, str] = {}
    try:
        meta = dict((await connection.run("SELECT name, value FROM meta")).rows)
    except StoreUnavailable as error:
        if code_of(error) != NO_SUCH_TABLE:
            raise
    if "schema_version" not in meta:
        raise ConfigError(
            f"{address} is not a store yet; make it one with: seckill init --config FILE "
            "(or --store-url URL for one with a single partition)"
        )
    if meta["schema_version"] != str(SCHEMA_VERSION):
        raise SchemaMismatch(
            f"{address} has schema version {meta['schema_version']} and this program reads version "
            f"{SCHEMA_VERSION}; use the program version that made it"
        )
    tables = msgspec.json.decode(meta["tables"], type=tuple[Table, ...])
    return Layout(int(meta["partitions"]), tables, meta.get("identity", ""))


async def _has_meta(connection: MysqlConnection) -> bool:
    found = await connection.run(
        "SELECT COUNT(*) FROM information_schema.tables "
        "WHERE table_schema = DATABASE() AND table_name = 'meta'"
    )
    if not found.rows[0][0]:
        return False
    rows = await connection.run("SELECT COUNT(*) FROM meta")
    return bool(rows.rows[0][0])
