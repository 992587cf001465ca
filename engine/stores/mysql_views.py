"""Read models on a MySQL or MariaDB server, in the database of the store.

Rows travel as one JSON text that the server opens (JSON_TABLE): thousands of rows are one
statement, encoded by C code. Statements that make tables are no transactions there, so the
catalogue row comes last and says what counts.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

from engine.cqrs.event_store import Value
from engine.cqrs.query_side.read_model import DeadLetter, Progress, ReadTable, Select, Step
from engine.errors import StoreUnavailable
from engine.stores import mysql_views_sql as sql
from engine.stores.mysql_connection import (
    AND_IN_A_TRANSACTION,
    READ_SECONDS_MAX,
    WRITER_IDLE_SECONDS,
    MysqlConnection,
    code_of,
)
from engine.stores.mysql_url import MysqlAddress
from engine.stores.read_tables import (
    check_read_tables,
    check_select,
    check_shape,
    next_generation,
    tables_of,
)

BAD_ROW: Final = frozenset(
    {167, 1048, 1136, 1264, 1265, 1366, 1406, 3140, 3141, 3156, 3819, 4025, 4174}
)
"""Error codes of values that a column cannot hold: null, out of range, too long, no number."""

LOCK_SECONDS: Final = 30

WAIT_AS_BEFORE: Final = "SET SESSION wait_timeout = DEFAULT"


class MysqlViews:
    """A ReadStore in a database that `seckill init` made. Made by `open`."""

    def __init__(self, address: MysqlAddress, connection: MysqlConnection) -> None:
        self._address = address
        self._connection = connection
        self._tables: dict[str, ReadTable] = {}
        self._turn = asyncio.Lock()
        self._closed = False

    @classmethod
    async def open(cls, address: MysqlAddress) -> MysqlViews:
        """Raises ConfigError for a wrong user, password or database, StoreUnavailable."""
        return cls(address, await MysqlConnection.open(address))

    async def prepare(self, projection: str, tables: Sequence[ReadTable], partitions: int) -> int:
        self._tables |= check_read_tables(tables)
        async with self._conversation() as connection:
            generation = await self._live(connection, projection, tables, mend=False)
            if generation is None:
                async with _only_one(connection):
                    generation = await self._live(connection, projection, tables, mend=True)
                    if generation is None:
                        generation = await _make(connection, projection, tables, partitions)
                        await _go_live(connection, projection, generation, tables)
            return generation

    async def draft(self, projection: str, tables: Sequence[ReadTable], partitions: int) -> int:
        self._tables |= check_read_tables(tables)
        async with self._conversation() as connection, _only_one(connection):
            for generation, live, shape in await _generations(connection, projection):
                if not live:
                    await _drop(connection, projection, generation, tables_of(shape))
            return await _make(connection, projection, tables, partitions)

    async def promote(self, projection: str, generation: int) -> None:
        async with self._conversation() as connection, _only_one(connection):
            found = await _generations(connection, projection)
            shape = next((each[2] for each in found if each[0] == generation and not each[1]), None)
            if shape is None:
                raise StoreUnavailable(f"another rebuild of {projection} began; try again")
            await _go_live(connection, projection, generation, tables_of(shape))
            for number, _, old in found:
                if number != generation:
                    await _drop(connection, projection, number, tables_of(old))

    async def progress(self, projection: str, generation: int, partition: int) -> Progress | None:
        found = await self._rows(sql.progress(projection, generation, partition))
        return Progress(*found[0]) if found else None

    async def advance(self, step: Step) -> bool:
        statements = [*sql.writes(step), *sql.letters(step)]
        async with self._conversation() as connection:
            try:
                # A process that sleeps in here would keep every other one from its checkpoint.
                drop_me_when_silent = (
                    f"SET SESSION wait_timeout = {WRITER_IDLE_SECONDS} {AND_IN_A_TRANSACTION}"
                )
                *_, moved = await connection.run_all([drop_me_when_silent, "BEGIN", sql.move(step)])
                if moved.matched != 1:
                    await connection.run_all(["ROLLBACK", WAIT_AS_BEFORE])
                    return False
                for statement in statements:
                    await connection.run(statement, READ_SECONDS_MAX)
                await connection.run_all(["COMMIT", WAIT_AS_BEFORE])
            except StoreUnavailable as error:
                if code_of(error) in BAD_ROW:
                    raise ValueError(str(error)) from error
                raise
        return True

    async def dead_letters(
        self, projection: str, generation: int, partition: int | None = None
    ) -> list[DeadLetter]:
        found = await self._rows(sql.dead_letters(projection, generation, partition))
        return [DeadLetter(*row) for row in found]

    async def select(self, query: Select) -> list[dict[str, Value]]:
        table = self._tables.get(query.table)
        if table is None:
            raise ValueError(f"there is no table {query.table!r}; there is: {list(self._tables)}")
        check_select(table, query)
        found = await self._rows(sql.select(table, query))
        return [dict(zip(table.columns, row, strict=True)) for row in found]

    async def close(self) -> None:
        self._closed = True
        self._connection.close()

    async def _live(
        self,
        connection: MysqlConnection,
        projection: str,
        tables: Sequence[ReadTable],
        *,
        mend: bool,
    ) -> int | None:
        """The live generation. With `mend`, which needs the lock, its views are put right; without
        it, None when they are not."""
        for generation, live, shape in await _generations(connection, projection):
            if live:
                check_shape(projection, shape, tables)
                # A process that died while it promoted may have left the older views.
                if not await _views_are_of(connection, generation, tables):
                    if not mend:
                        return None
                    await _replace_views(connection, generation, tables)
                return generation
        return None

    async def _rows(self, statement: str) -> Sequence[tuple[Any, ...]]:
        async with self._conversation() as connection:
            return (await connection.run(statement, READ_SECONDS_MAX)).rows

    @asynccontextmanager
    async def _conversation(self) -> AsyncIterator[MysqlConnection]:
        """The connection, for one caller at a time; a new one where the old one failed."""
        async with self._turn:
            if self._closed:
                raise StoreUnavailable("the store is closed")
            if self._connection.closed:
                self._connection = await MysqlConnection.reopen(self._address)
            yield self._connection


@asynccontextmanager
async def _only_one(connection: MysqlConnection) -> AsyncIterator[None]:
    """Keep other processes from making or dropping tables for the block."""
    taken = await connection.run(sql.lock(LOCK_SECONDS), LOCK_SECONDS + 5)
    if taken.rows[0][0] != 1:
        raise StoreUnavailable("another process is changing the read models")
    try:
        yield
    finally:
        if not connection.closed:
            await connection.run(sql.UNLOCK)


async def _generations(connection: MysqlConnection, projection: str) -> list[tuple[int, int, str]]:
    return [
        (int(n), int(live), str(shape))
        for n, live, shape in (await connection.run(sql.generations(projection))).rows
    ]


async def _make(
    connection: MysqlConnection, projection: str, tables: Sequence[ReadTable], partitions: int
) -> int:
    newest = await connection.run(sql.newest(projection))
    generation = next_generation(int(newest.rows[0][0]))
    for table in tables:
        for statement in sql.create(table, generation):
            await connection.run(statement)
    await connection.run_all(
        ["BEGIN", *sql.register(projection, generation, tables, partitions), "COMMIT"]
    )
    return generation


async def _go_live(
    connection: MysqlConnection, projection: str, generation: int, tables: Sequence[ReadTable]
) -> None:
    await connection.run(sql.go_live(projection, generation))
    await _replace_views(connection, generation, tables)


async def _replace_views(
    connection: MysqlConnection, generation: int, tables: Sequence[ReadTable]
) -> None:
    for table in tables:
        await connection.run(sql.replace_view(table, generation))


async def _views_are_of(
    connection: MysqlConnection, generation: int, tables: Sequence[ReadTable]
) -> bool:
    for table in tables:
        found = await connection.run(sql.view_is_of(table, generation))
        if found.rows[0][0] != 1:
            return False
    return True


async def _drop(
    connection: MysqlConnection, projection: str, generation: int, tables: Sequence[ReadTable]
) -> None:
    await connection.run_all(["BEGIN", *sql.forget(projection, generation), "COMMIT"])
    for table in tables:
        await connection.run(sql.drop(table, generation))
