"""`init` makes a database a store once; what does not fit is refused in one line."""

from __future__ import annotations

import re

import msgspec
import pytest

from engine.config import Settings, load_settings
from engine.errors import ConfigError, SchemaMismatch
from engine.inventory.stock_table import STOCK_TABLE
from engine.runtime import initialise_store, open_engine, open_reader
from engine.stores import mysql_schema
from engine.stores.layout import Layout
from engine.stores.mysql_connection import MysqlConnection
from engine.stores.mysql_schema import initialise, schema_sql, statements_of
from engine.stores.mysql_server import MysqlServer, read_server
from engine.stores.mysql_sql import create_table
from engine.stores.mysql_url import parse_mysql_url
from engine.testing.mariadb_server import MariadbServer
from engine.testing.store_contract import TABLES


def settings_for(url: str, **more: object) -> Settings:
    return load_settings(None, {"store.url": url, **more}, {})


def database_of(url: str) -> str:
    return url.rpartition("/")[2]


def test_the_script_is_cut_into_whole_statements() -> None:
    statements = statements_of(schema_sql())
    assert len(statements) == 12
    assert [each.split()[0] for each in statements] == ["CREATE"] * 12
    assert all("--" not in each for each in statements)


async def test_a_store_is_initialised_once_and_then_left_alone(
    mariadb: MariadbServer, mariadb_url: str
) -> None:
    settings = settings_for(mariadb_url)
    info = await initialise_store(settings)
    assert info.durability.startswith("strict: innodb_flush_log_at_trx_commit=1, sync_binlog=1")
    async with open_engine(settings) as engine:
        await engine.open_sale("PHONE", stock=5, command_id="o")
        await engine.reserve("PHONE", buyer="al'ice", quantity=2, command_id="c")
    await initialise_store(settings)
    reader = await open_reader(mariadb_url)
    assert [each.version for each in await reader.read_streams()] == [2]
    await reader.close()
    query = (
        "SELECT version, command_id, quantity FROM events WHERE sku = 'PHONE' AND buyer = 'al''ice'"
    )
    assert await mariadb.query(query, database_of(mariadb_url)) == "2\tc\t2\n"


async def test_the_script_spells_out_the_stock_table_that_the_program_keeps(
    mariadb: MariadbServer, mariadb_url: str
) -> None:
    database = database_of(mariadb_url)
    await initialise(parse_mysql_url(mariadb_url), Layout(1, (STOCK_TABLE,)))
    spelled = await mariadb.query("SHOW CREATE TABLE stock", database)
    await mariadb.query("DROP TABLE stock; DELETE FROM meta", database)
    await mariadb.query(create_table(STOCK_TABLE), database)
    assert await mariadb.query("SHOW CREATE TABLE stock", database) == spelled


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        ("UPDATE meta SET value = '99' WHERE name = 'schema_version'", "has schema version 99"),
        ("UPDATE meta SET value = '4' WHERE name = 'partitions'", "with 4 partitions"),
    ],
)
async def test_another_version_or_layout_is_refused(
    mariadb: MariadbServer, mariadb_url: str, prepare: str, message: str
) -> None:
    settings = settings_for(mariadb_url)
    await initialise_store(settings)
    await mariadb.query(prepare, database_of(mariadb_url))
    with pytest.raises(SchemaMismatch, match=message):
        await initialise_store(settings)
    with pytest.raises(SchemaMismatch, match=message):
        async with open_engine(settings):
            pass


async def test_a_database_without_a_store_says_how_to_make_one(mariadb_url: str) -> None:
    how = re.escape(
        "seckill init --config FILE (or --store-url URL for one with a single partition)"
    )
    with pytest.raises(ConfigError, match=f"is not a store yet; make it one with: {how}"):
        async with open_engine(settings_for(mariadb_url)):
            pass
    with pytest.raises(ConfigError, match="is not a store yet"):
        await open_reader(mariadb_url)


async def test_history_cannot_be_rewritten(mariadb: MariadbServer, mariadb_url: str) -> None:
    settings = settings_for(mariadb_url)
    await initialise_store(settings)
    async with open_engine(settings) as engine:
        await engine.open_sale("PHONE", stock=5)
    for statement in ("UPDATE commits SET checksum = 1", "DELETE FROM commits"):
        with pytest.raises(RuntimeError, match="commits are append-only"):
            await mariadb.query(statement, database_of(mariadb_url))


@pytest.mark.parametrize(
    ("user", "password", "database", "message"),
    [
        ("weak", "wrong", "DATABASE", "wrong user or password"),
        ("nobody", "", "DATABASE", "wrong user or password"),
        ("weak", "pw", "mysql", "may not use the database"),
        ("root", "", "missing", "there is no such database"),
        ("weak", "pw", "DATABASE", "user weak lacks a right on its tables"),
        ("maker", "pw", "DATABASE", "user maker lacks the right to create triggers"),
    ],
)
async def test_what_the_user_may_not_do_is_said_in_one_line(
    mariadb: MariadbServer,
    mariadb_url: str,
    user: str,
    password: str,
    database: str,
    message: str,
) -> None:
    await mariadb.query(
        "CREATE USER IF NOT EXISTS weak@'%' IDENTIFIED BY 'pw', maker@'%' IDENTIFIED BY 'pw';"
        f"GRANT SELECT ON {database_of(mariadb_url)}.* TO weak@'%';"
        f"GRANT ALL ON {database_of(mariadb_url)}.* TO maker@'%'"
    )
    name = database_of(mariadb_url) if database == "DATABASE" else database
    url = mariadb.url(name, user, password)
    with pytest.raises(ConfigError) as caught:
        await initialise(parse_mysql_url(url), Layout(1, TABLES))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "pw" not in str(caught.value)


async def test_a_server_that_is_refused_is_left_as_it_was(
    mariadb: MariadbServer, mariadb_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    careless = msgspec.structs.replace(
        await _server_of(mariadb_url), gaps=("sync_binlog = 0 (needs 1)",)
    )

    async def read_careless(connection: MysqlConnection) -> MysqlServer:
        return careless

    monkeypatch.setattr(mysql_schema, "read_server", read_careless)
    with pytest.raises(ConfigError, match="can lose acknowledged orders"):
        await initialise_store(settings_for(mariadb_url))
    assert await mariadb.query("SHOW TABLES", database_of(mariadb_url)) == ""


async def _server_of(url: str) -> MysqlServer:
    connection = await MysqlConnection.open(parse_mysql_url(url))
    try:
        return await read_server(connection)
    finally:
        connection.close()
