"""`seckill partitions`, and the other commands on a store of two databases."""

from __future__ import annotations

import asyncio
import json

import msgspec
import pytest

from engine.config import load_settings
from engine.cqrs.event_store import PartitionPlace
from engine.partition_table import UNKNOWN, PartitionRow, read_rows
from engine.runtime import open_engine
from engine.stores.memory import MemoryStore
from engine.stores.mysql_url import MysqlAddress, parse_mysql_url
from engine.testing.mariadb_server import MariadbServer
from tests.shell import Shell

SKUS = tuple(f"S{number}" for number in range(6))


@pytest.fixture
def config(shell: Shell, two_databases: list[MysqlAddress]) -> str:
    """A config file of a store of two databases, in which six SKUs were sold."""
    urls = json.dumps([each.url() for each in two_databases])
    name = shell.write("two.toml", f"[store]\nurls = {urls}\npartitions = 4\n")
    assert shell.run("init", "--config", name) == 0
    first, *each = shell.out.splitlines()
    assert first.count("mysql://root@") == 2
    assert first.endswith(", 4 partitions")
    assert each == [f"db{n} {place}: 2 partitions" for n, place in enumerate(two_databases, 1)]
    assert shell.run("init", "--config", name) == 0
    asyncio.run(sell(two_databases))
    return name


async def sell(addresses: list[MysqlAddress]) -> None:
    urls = [each.url() for each in addresses]
    settings = load_settings(None, {"store.urls": urls, "store.partitions": 4}, {})
    async with open_engine(settings) as engine:
        for sku in SKUS:
            await engine.open_sale(sku, stock=9)
            await engine.reserve(sku, buyer="ann", quantity=2)
        await engine.queries.caught_up()


def rows_of(shell: Shell, *store: str, code: int = 0) -> list[PartitionRow]:
    assert shell.run("partitions", *store, "--json") == code
    return [PartitionRow(**each) for each in json.loads(shell.out)]


def test_partitions_are_shown_moved_and_audited(
    shell: Shell, config: str, two_databases: list[MysqlAddress]
) -> None:
    store = ("--config", config)
    before = rows_of(shell, *store)
    assert [each.database.split()[0] for each in before] == ["db1", "db2", "db1", "db2"]
    assert {each.database.split()[1] for each in before} == {str(each) for each in two_databases}
    assert sum(each.position for each in before) >= 12
    assert all(each.epoch == 1 and len(each.owner) == 32 for each in before)
    urls = [part for each in two_databases for part in ("--store-url", each.url())]
    assert {each.lag_commits for each in before} == {0}
    assert rows_of(shell, *urls) == [
        msgspec.structs.replace(each, lag_commits=UNKNOWN) for each in before
    ]
    assert shell.run("partitions", "move", "0", "--to", "db2", *store) == 0
    assert "partition 0 moved from db1 to db2" in shell.out
    after = rows_of(shell, *store)
    assert [each.database.split()[0] for each in after] == ["db2", "db2", "db1", "db2"]
    assert [each.position for each in after] == [each.position for each in before]
    assert shell.run("partitions", *store) == 0
    assert "db2" in shell.out
    assert shell.run("project", "status", *store) == 0
    assert "orders: partition 0 at 0, " in shell.out
    for name in ("orders", "sales"):
        assert shell.run("project", "rebuild", name, *store) == 0
    assert shell.run("audit", *store, "--json") == 0
    assert json.loads(shell.out)["ok"]
    assert shell.run("inspect", *urls, "--json") == 0
    view = json.loads(shell.out)
    assert [row["sku"] for row in view["rows"]] == list(SKUS)
    assert [row["available"] for row in view["rows"]] == [7] * len(SKUS)
    assert shell.run("dead-letters", "list", "checkout", *store) == 0
    assert "0 dead letters" in shell.out


def test_a_move_that_was_cut_off_is_shown_and_finished(
    shell: Shell, config: str, two_databases: list[MysqlAddress], mariadb: MariadbServer
) -> None:
    mariadb.execute(
        "UPDATE partitions SET epoch = epoch + 1, place = '>db2' WHERE partition_id = 2",
        two_databases[0].database,
    )
    states = [each.state for each in rows_of(shell, "--config", config, code=1)]
    assert states == ["ok", "ok", "moving to db2", "ok"]
    assert shell.run("partitions", "move", "2", "--to", "db2", "--config", config) == 0
    assert [each.state for each in rows_of(shell, "--config", config)] == ["ok"] * 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["move", "9", "--to", "db2"], "no partition 9: there are 0..3"),
        (["move", "0", "--to", "db3"], "there is no database 'db3'; there is: db1 (mysql://"),
        (["move", "0"], "--to"),
        (["move", "zero", "--to", "db2"], "valid int"),
    ],
)
def test_what_cannot_be_moved_is_refused(
    shell: Shell, config: str, arguments: list[str], message: str
) -> None:
    assert shell.run("partitions", *arguments, "--config", config) == 2
    assert message in " ".join(shell.err.split())


def test_the_audit_finds_read_models_behind_in_what_lives_beside_them_only(
    shell: Shell, config: str, two_databases: list[MysqlAddress]
) -> None:
    store = ("--config", config)
    assert shell.run("audit", *store, "--json") == 0
    assert json.loads(shell.out)["notes"] == []
    moved = rows_of(shell, *store)[0].position
    assert moved > 1
    assert shell.run("partitions", "move", "0", "--to", "db2", *store) == 0
    assert shell.run("audit", *store, "--json") == 0
    # They begin anew where the partition went, and nobody feeds them here.
    assert json.loads(shell.out)["notes"] == [
        f"read model {name} in {two_databases[1]} is {moved} commits behind: compared up to there"
        for name in ("orders", "sales")
    ]


def test_init_names_a_database_that_is_added_and_has_no_partition(
    shell: Shell, config: str, two_databases: list[MysqlAddress], mariadb_url: str
) -> None:
    urls = json.dumps([*(each.url() for each in two_databases), mariadb_url])
    more = shell.write("three.toml", f"[store]\nurls = {urls}\npartitions = 4\n")
    assert shell.run("init", "--config", more) == 0
    last = shell.out.splitlines()[-1]
    assert last == f"db3 {parse_mysql_url(mariadb_url)}: 0 partitions"


def test_init_counts_one_partition_as_one(shell: Shell) -> None:
    assert shell.run("init", "--store-url", "sqlite:shop.db") == 0
    assert shell.out.rstrip().endswith(", 1 partition")
    name = shell.write("two.toml", '[store]\nurl = "sqlite:shop.db"\npartitions = 2\n')
    assert shell.run("init", "--config", name) == 2
    assert "was initialised with 1 partition and the settings say 2" in shell.err
    assert "take another database, or set store.partitions = 1\n" in shell.err


def test_one_of_two_databases_is_no_store(
    shell: Shell, config: str, two_databases: list[MysqlAddress]
) -> None:
    for command in (["audit"], ["inspect"], ["partitions"], ["project", "status"]):
        assert shell.run(*command, "--store-url", two_databases[0].url()) == 2
        assert "is db1, one of the databases of a store (db1, db2)" in shell.err


def test_a_store_of_one_database_has_partitions_too(shell: Shell) -> None:
    assert shell.run("simulate", "--buyers", "5", "--store-url", "sqlite:sale.db") == 0
    (row,) = rows_of(shell, "--store-url", "sqlite:sale.db")
    assert (row.partition, row.epoch, row.state) == (0, 1, "ok")
    assert row.database.endswith("sale.db")
    moved = ("partitions", "move", "0", "--to", "db2", "--store-url", "sqlite:sale.db")
    assert shell.run(*moved) == 2
    assert "has nowhere to move a partition to" in shell.err


def test_a_store_must_be_named(shell: Shell) -> None:
    for command in (["partitions"], ["audit"], ["inspect"], ["project", "status"]):
        assert shell.run(*command) == 2
        assert "--store-url" in shell.err


def test_a_measurement_wants_one_database(shell: Shell) -> None:
    config = shell.write("two.toml", '[store]\nurls = ["mysql://u@a/s", "mysql://u@b/s"]\n')
    assert shell.run("simulate", "--buyers", "5", "--config", config) == 2
    assert "measures a store of one database" in shell.err


async def test_a_partition_whose_database_is_down_is_shown_as_down() -> None:
    class Down(MemoryStore):
        async def read_places(self) -> list[PartitionPlace]:
            return [PartitionPlace(0, "db1", "mysql://u@a:3306/s", -1, -1, "")]

    assert await read_rows(Down()) == [
        PartitionRow(0, "db1 mysql://u@a:3306/s", -1, -1, "", "down")
    ]
