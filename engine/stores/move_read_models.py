"""What a partition that moves has in read models.

Rows are not moved: they are folded again from the events where the partition goes. Nobody feeds them
meanwhile, because there is no checkpoint to move on. A process manager has no rows, and its
checkpoint goes along: what it says was done is not done again. It is put aside meanwhile, so that
nobody moves it on once it was read; what a manager was about then is done again where the partition
goes, as after a crash.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from engine.cqrs.partitioning import partition_of
from engine.cqrs.query_side.read_model import ReadTable
from engine.errors import ConfigError
from engine.stores import mysql_move_sql as sql
from engine.stores import mysql_views_sql as views_sql
from engine.stores.mysql_connection import READ_SECONDS_MAX, MysqlConnection
from engine.stores.mysql_url import MysqlAddress
from engine.stores.mysql_views import MysqlViews
from engine.stores.read_tables import tables_of

KEYS_AT_ONCE: Final = 100


class _Generation(NamedTuple):
    name: str
    generation: int
    live: bool
    tables: tuple[ReadTable, ...]


async def read_generations(connection: MysqlConnection) -> list[_Generation]:
    """Every generation of every read model and process manager of a database."""
    rows = (await connection.run(sql.PROJECTIONS)).rows
    return [_Generation(name, n, bool(live), tables_of(shape)) for name, n, live, shape in rows]


async def check_movable(connection: MysqlConnection) -> None:
    """Raise ConfigError for a read model whose rows cannot be told apart by partition."""
    for each in await read_generations(connection):
        for table in each.tables:
            if table.key[0] not in table.texts:
                raise ConfigError(
                    f"the read model {each.name} has rows of all partitions in one: the key of "
                    f"{table.name} must begin with the aggregate's id; drop it before the move"
                )


async def prepare_managers(source: MysqlConnection, target: MysqlAddress, partitions: int) -> None:
    """Make the process managers of a database known in another one."""
    names = [each.name for each in await read_generations(source) if not each.tables]
    views = await MysqlViews.open(target)
    try:
        for name in names:
            await views.prepare(name, (), partitions)
    finally:
        await views.close()


async def clear(connection: MysqlConnection, partition: int, partitions: int) -> None:
    """Take the rows and checkpoints of a partition out of every read model of a database."""
    fed = [each for each in await read_generations(connection) if each.tables]
    forget = sql.delete_progress(partition, [(each.name, each.generation) for each in fed])
    # First, and by itself: whoever feeds the rows can write no more of them then.
    await connection.run_all(["BEGIN", *forget, "COMMIT"])
    for each in fed:
        for table in each.tables:
            statement = sql.first_keys(table, each.generation)
            found = (await connection.run(statement, READ_SECONDS_MAX)).rows
            keys = [key for (key,) in found if partition_of(key, partitions) == partition]
            for first in range(0, len(keys), KEYS_AT_ONCE):
                some = keys[first : first + KEYS_AT_ONCE]
                statement = sql.delete_read_rows(table, each.generation, some)
                while (await connection.run(statement, READ_SECONDS_MAX)).matched:
                    pass


async def begin_again(connection: MysqlConnection, partition: int) -> list[str]:
    """The statements after which the read models of a database are fed from a partition's first
    event on."""
    return [
        sql.put_progress(partition, each.name, each.generation)
        for each in await read_generations(connection)
        if each.tables
    ]


async def stop_managers(connection: MysqlConnection, partition: int) -> None:
    """Let no process manager of a database move on in a partition. It waits for who is moving."""
    await connection.run_all(
        [
            "BEGIN",
            *(
                sql.put_aside(partition, each.name, each.generation)
                for each in await _managers(connection)
            ),
            "COMMIT",
        ]
    )


async def let_managers_go_on(connection: MysqlConnection, partition: int) -> list[str]:
    """The statements after which they go on where they were stopped, if they were."""
    return [
        sql.put_back(partition, each.name, each.generation) for each in await _managers(connection)
    ]


async def take_along(source: MysqlConnection, target: MysqlConnection, partition: int) -> list[str]:
    """The statements that bring the process managers of `target` to where those of `source` are."""
    there = {each.name: each for each in await _managers(target)}
    statements: list[str] = []
    for each in await _managers(source):
        own = there[each.name].generation
        stopped = sql.aside(each.generation)
        found = await source.run(views_sql.progress(each.name, stopped, partition))
        if not found.rows:
            continue
        statements += sql.delete_progress(partition, [(each.name, own)])
        statements.append(sql.put_progress(partition, each.name, own, *found.rows[0]))
        letters = await source.run(views_sql.dead_letters(each.name, each.generation, partition))
        statements += [
            sql.put_letter(partition, each.name, own, tuple(letter)) for _, *letter in letters.rows
        ]
    return statements


async def leave(connection: MysqlConnection, partition: int) -> list[str]:
    """The statements that take a partition out of the process managers of the database it left."""
    return sql.delete_progress(
        partition,
        [
            (each.name, number)
            for each in await _managers(connection)
            for number in (each.generation, sql.aside(each.generation))
        ],
    )


async def _managers(connection: MysqlConnection) -> list[_Generation]:
    return [each for each in await read_generations(connection) if not each.tables]
