"""The live read models of a MySQL store as they were at one moment, for the audit.

The transaction sees one state of all rows for as long as it lasts, whoever writes meanwhile. It
does not see tables that are dropped: a rebuild that ends meanwhile takes the rows away.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from engine.cqrs.event_store import Value
from engine.cqrs.query_side.read_model import DeadLetter, LiveModel, ReadTable
from engine.errors import StoreUnavailable
from engine.stores import mysql_views_sql as sql
from engine.stores.mysql_connection import READ_SECONDS_MAX, MysqlConnection, code_of
from engine.stores.mysql_url import MysqlAddress
from engine.stores.read_tables import tables_of

GONE: Final = frozenset({1146, 1412})
"""Error codes of a table that was dropped, or made, since the transaction began."""

NO_SUCH_TABLE: Final = 1146

SESSION: Final = (
    "SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ",
    # The events are read over another connection meanwhile; this one is silent for as long.
    "SET SESSION wait_timeout = 86400",
)


class MysqlSnapshot:
    """A ReadModelSnapshot of a database. Made by `open`."""

    def __init__(self, address: MysqlAddress, connection: MysqlConnection) -> None:
        self._address = address
        self._connection = connection
        self._replaced = False

    @property
    def location(self) -> str:
        return str(self._address)

    @classmethod
    async def open(cls, address: MysqlAddress) -> MysqlSnapshot | None:
        """Return what the database holds now, None when it has no tables for read models.

        Raises ConfigError for a wrong user, password or database, StoreUnavailable.
        """
        connection = await MysqlConnection.open(address, *SESSION)
        try:
            await connection.run("START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY")
            await connection.run("SELECT COUNT(*) FROM projections")
        except BaseException as error:
            connection.close()
            if code_of(error) == NO_SUCH_TABLE:
                return None
            raise
        return cls(address, connection)

    async def live(self, projection: str) -> LiveModel | None:
        found = (await self._connection.run(sql.generations(projection))).rows
        for generation, live, shape in found:
            if live:
                reached = await self._connection.run(sql.checkpoints(projection, generation))
                letters = await self._connection.run(
                    sql.dead_letters(projection, generation, None), READ_SECONDS_MAX
                )
                return LiveModel(
                    generation,
                    tables_of(shape),
                    dict(reached.rows),
                    tuple(DeadLetter(*row) for row in letters.rows),
                )
        return None

    async def page(
        self, model: LiveModel, table: ReadTable, after: Sequence[Value], limit: int
    ) -> list[dict[str, Value]] | None:
        if self._replaced:
            return None
        statement = sql.page(table, model.generation, after, limit)
        try:
            found = (await self._connection.run(statement, READ_SECONDS_MAX)).rows
        except StoreUnavailable as error:
            if code_of(error) not in GONE:
                raise
            # The error closed the connection, and the moment that it saw is gone with it.
            self._replaced = True
            return None
        return [dict(zip(table.columns, row, strict=True)) for row in found]

    async def close(self) -> None:
        self._connection.close()
