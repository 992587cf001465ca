"""Read models in SQLite: a file of their own, so that they never hold up an order.

`synchronous` is NORMAL: after a loss of power the file may be a moment behind, whole and with the
checkpoint that belongs to its rows, and catches up from the events.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

import apsw
import msgspec

from engine.cqrs.event_store import Value
from engine.cqrs.query_side.read_model import (
    DeadLetter,
    Progress,
    Put,
    ReadTable,
    Select,
    Step,
)
from engine.errors import ConfigError, StoreUnavailable
from engine.stores.read_tables import (
    check_read_tables,
    check_select,
    check_shape,
    next_generation,
    physical,
    shape_of,
    tables_of,
)
from engine.stores.sqlite_file import translate
from engine.stores.sqlite_views_sql import (
    create_statements,
    names,
    put_statement,
    row_statement,
)
from engine.stores.worker import Worker, open_on_thread

T = TypeVar("T")

APPLICATION_ID: Final = 0x53_4B_76_77
"""Marks a file as the read models of this program ("SKvw")."""

SCHEMA_VERSION: Final = 1
BUSY_TIMEOUT_MS: Final = 5_000

CACHE_KIB: Final = 64 << 10
"""Pages kept in memory: keys are random, so every row of a batch may touch a page of its own."""

BAD_ROW: Final = (apsw.ConstraintError, apsw.BindingsError, OverflowError, TypeError, KeyError)
"""What a value raises that the declared table cannot hold, or a table that was not declared."""

CATALOGUE_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS projections (
    name TEXT NOT NULL, generation INTEGER NOT NULL, live INTEGER NOT NULL, shape TEXT NOT NULL,
    PRIMARY KEY (name, generation)
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS checkpoints (
    projection TEXT NOT NULL, generation INTEGER NOT NULL, partition_id INTEGER NOT NULL,
    position INTEGER NOT NULL, revision INTEGER NOT NULL,
    PRIMARY KEY (projection, generation, partition_id)
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS dead_letters (
    projection TEXT NOT NULL, generation INTEGER NOT NULL, partition_id INTEGER NOT NULL,
    position INTEGER NOT NULL, aggregate_type TEXT NOT NULL, aggregate_id TEXT NOT NULL,
    reason TEXT NOT NULL,
    PRIMARY KEY (projection, generation, partition_id, position)
) STRICT, WITHOUT ROWID;
"""


def views_path(store_path: str) -> str:
    """Where the read models of a store are: `sale-views.db` beside `sale.db`."""
    stem, suffix = os.path.splitext(store_path)
    return f"{stem}-views{suffix}"


class SqliteViews:
    """A ReadStore in one file, which several processes may use. Made by `open`."""

    def __init__(self, path: str, connection: apsw.Connection) -> None:
        self._path = path
        self._connection = connection
        self._tables: dict[str, ReadTable] = {}
        self._worker = Worker("sqlite-views")
        self._closed = False

    @classmethod
    async def open(cls, path: str, *, in_store: bool = False) -> SqliteViews:
        """Open the file at `path`, made when it is not there; `:memory:` keeps nothing.

        `in_store`: the file is that of an event store, which is there, for inline projections.
        Raises ConfigError when something else is there, StoreUnavailable.
        """
        return await open_on_thread(_open, cls, path, in_store)

    async def prepare(self, projection: str, tables: Sequence[ReadTable], partitions: int) -> int:
        self._tables |= check_read_tables(tables)
        return await self._call(lambda: self._prepare(projection, tables, partitions))

    async def draft(self, projection: str, tables: Sequence[ReadTable], partitions: int) -> int:
        self._tables |= check_read_tables(tables)
        return await self._call(lambda: self._draft(projection, tables, partitions))

    async def promote(self, projection: str, generation: int) -> None:
        await self._call(lambda: self._promote(projection, generation))

    async def progress(self, projection: str, generation: int, partition: int) -> Progress | None:
        found = await self._rows(
            "SELECT position, revision FROM checkpoints "
            "WHERE projection = ? AND generation = ? AND partition_id = ?",
            (projection, generation, partition),
        )
        return Progress(*found[0]) if found else None

    async def advance(self, step: Step) -> bool:
        return await self._call(lambda: advance(self._connection, step))

    async def dead_letters(
        self, projection: str, generation: int, partition: int | None = None
    ) -> list[DeadLetter]:
        found = await self._rows(
            "SELECT partition_id, position, aggregate_type, aggregate_id, reason FROM dead_letters "
            "WHERE projection = ?1 AND generation = ?2 AND (?3 IS NULL OR partition_id = ?3) "
            "ORDER BY partition_id, position",
            (projection, generation, partition),
        )
        return [DeadLetter(*row) for row in found]

    async def select(self, query: Select) -> list[dict[str, Value]]:
        table = self._tables.get(query.table)
        if table is None:
            raise ValueError(f"there is no table {query.table!r}; there is: {list(self._tables)}")
        check_select(table, query)
        where = [f'"{name}" = ?' for name in query.equal]
        values: list[Value] = list(query.equal.values())
        if query.at_most is not None:
            where.append(f'"{query.at_most[0]}" <= ?')
            values.append(query.at_most[1])
        direction = " DESC" if query.descending else ""
        order = ", ".join(f'"{name}"{direction}' for name in query.order_by or table.key)
        found = await self._rows(
            f'SELECT {names(table.columns)} FROM "{table.name}" '
            f"WHERE {' AND '.join(where) or '1'} ORDER BY {order} "
            f"LIMIT {int(query.limit)} OFFSET {int(query.skip)}",
            tuple(values),
        )
        return [dict(zip(table.columns, row, strict=True)) for row in found]

    async def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._worker.post(self._connection.close, True)
        await self._worker.close()

    # -- on the thread

    def _prepare(self, projection: str, tables: Sequence[ReadTable], partitions: int) -> int:
        found: list[Any] = self._connection.execute(
            "SELECT generation, shape FROM projections WHERE name = ? AND live", (projection,)
        ).fetchall()
        if found:
            check_shape(projection, found[0][1], tables)
            return int(found[0][0])
        generation = self._make(projection, tables, partitions)
        self._go_live(projection, generation)
        return generation

    def _draft(self, projection: str, tables: Sequence[ReadTable], partitions: int) -> int:
        self._drop_generations(projection, live=0)
        return self._make(projection, tables, partitions)

    def _promote(self, projection: str, generation: int) -> None:
        drafted = self._connection.execute(
            "SELECT 1 FROM projections WHERE name = ? AND generation = ? AND NOT live",
            (projection, generation),
        ).fetchall()
        if not drafted:
            raise StoreUnavailable(f"another rebuild of {projection} began; try again")
        self._drop_generations(projection, live=1)
        self._go_live(projection, generation)

    def _make(self, projection: str, tables: Sequence[ReadTable], partitions: int) -> int:
        newest: list[Any] = self._connection.execute(
            "SELECT coalesce(max(generation), 0) FROM projections WHERE name = ?", (projection,)
        ).fetchall()
        generation = next_generation(int(newest[0][0]))
        for table in tables:
            for statement in create_statements(table, generation):
                self._connection.execute(statement)
        self._connection.execute(
            "INSERT INTO projections VALUES (?, ?, 0, ?)",
            (projection, generation, shape_of(tables)),
        )
        self._connection.executemany(
            "INSERT INTO checkpoints VALUES (?, ?, ?, 0, 0)",
            [(projection, generation, number) for number in range(partitions)],
        )
        return generation

    def _go_live(self, projection: str, generation: int) -> None:
        self._connection.execute(
            "UPDATE projections SET live = 1 WHERE name = ? AND generation = ?",
            (projection, generation),
        )
        for table in self._shape(projection, generation):
            self._connection.execute(f'DROP VIEW IF EXISTS "{table.name}"')
            self._connection.execute(
                f'CREATE VIEW "{table.name}" AS SELECT * FROM "{physical(table.name, generation)}"'
            )

    def _drop_generations(self, projection: str, live: int) -> None:
        found: list[Any] = self._connection.execute(
            "SELECT generation FROM projections WHERE name = ? AND live = ?", (projection, live)
        ).fetchall()
        for (generation,) in found:
            self._drop(projection, generation)

    def _drop(self, projection: str, generation: int) -> None:
        for table in self._shape(projection, generation):
            name = physical(table.name, generation)
            self._connection.execute(f'DROP TABLE IF EXISTS "{name}"')
        for catalogue, column in (
            ("projections", "name"),
            ("checkpoints", "projection"),
            ("dead_letters", "projection"),
        ):
            self._connection.execute(
                f"DELETE FROM {catalogue} WHERE {column} = ? AND generation = ?",
                (projection, generation),
            )

    def _shape(self, projection: str, generation: int) -> tuple[ReadTable, ...]:
        ((shape,),) = self._connection.execute(
            "SELECT shape FROM projections WHERE name = ? AND generation = ?",
            (projection, generation),
        ).fetchall()
        return tables_of(str(shape))

    async def _rows(self, statement: str, values: tuple[Value | None, ...]) -> list[Any]:
        def read() -> list[Any]:
            try:
                return self._connection.execute(statement, values).fetchall()
            except (apsw.Error, UnicodeDecodeError) as error:
                raise _unavailable(error, f"cannot read {self._path}") from error

        return await self._worker.call(read)

    async def _call(self, work: Callable[[], T]) -> T:
        """Run `work` in one transaction on the thread."""
        return await self._worker.call(self._in_transaction, work)

    def _in_transaction(self, work: Callable[[], T]) -> T:
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            result = work()
            self._connection.execute("COMMIT")
        except BaseException as error:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            if isinstance(error, BAD_ROW):
                raise ValueError(f"{type(error).__name__}: {error}") from error  # noqa: TRY004  # the port says so
            if isinstance(error, apsw.Error):
                raise _unavailable(error, f"{self._path}: nothing was written") from error
            raise
        return result


def advance(connection: apsw.Connection, step: Step) -> bool:
    """Do a step inside the caller's transaction, as `ReadStore.advance` says.

    Raises what `BAD_ROW` lists for a row that the tables cannot hold.
    """
    tables = {each.name: each for each in step.tables}
    moved = connection.execute(
        "UPDATE checkpoints SET position = ?, revision = ? WHERE projection = ? "
        "AND generation = ? AND partition_id = ? AND position = ? AND revision = ? RETURNING 1",
        (
            step.reached.position,
            step.reached.revision,
            step.projection,
            step.generation,
            step.partition,
            step.expected.position,
            step.expected.revision,
        ),
    ).fetchall()
    if not moved:
        return False
    for write in step.writes:
        table = tables[write.table]
        if isinstance(write, Put):
            _put(connection, table, step.generation, write)
        else:
            connection.executemany(row_statement(table, step.generation, write), write.rows)
    where = (step.projection, step.generation, step.partition)
    connection.executemany(
        "DELETE FROM dead_letters WHERE projection = ? AND generation = ? "
        "AND partition_id = ? AND position = ?",
        [(*where, position) for position in step.settled],
    )
    connection.executemany(
        "INSERT INTO dead_letters VALUES (?, ?, ?, ?, ?, ?, ?)",
        [
            (*where, each.position, each.aggregate_type, each.aggregate_id, each.reason)
            for each in step.letters
        ],
    )
    return True


def _put(connection: apsw.Connection, table: ReadTable, generation: int, write: Put) -> None:
    """Write all rows in one statement, sorted by their keys.

    A statement a row would take and give back the interpreter's lock for each, against an event loop
    that is busy selling; keys in order touch each page of the index once.
    """
    key, width = len(table.key), len(table.columns)
    if any(len(row) != width for row in write.rows):
        raise TypeError(f"a row of {table.name} has {width} values")
    # The sort is stable: of two rows of one key the later one still wins.
    rows = sorted(write.rows, key=lambda row: tuple(row[:key]))
    connection.execute(
        put_statement(table, generation),
        (msgspec.json.encode(rows).decode(),),
    )


def _unavailable(error: BaseException, action: str) -> BaseException:
    """What the port says of an error, with the cure for a damaged file."""
    if isinstance(error, apsw.CorruptError | apsw.NotADBError | UnicodeDecodeError):
        action += (
            " (the file is damaged: stop the engine and remove it with its -wal and -shm, and it"
        )
        action += " is built again from the events)"
    return translate(error, action)


def _open(kind: type[SqliteViews], path: str, in_store: bool) -> SqliteViews:
    in_memory = path == ":memory:"
    path = path if in_memory else os.path.realpath(path)
    try:
        connection = apsw.Connection(path)
        try:
            connection.set_busy_timeout(BUSY_TIMEOUT_MS)
            if in_store:
                # Copying the log into the database belongs to the store's own connection.
                connection.wal_autocheckpoint(0)
            elif not in_memory:
                _check_mark(connection, path)
                connection.execute("PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL")
            connection.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
            with connection:
                connection.execute(CATALOGUE_SCHEMA)
                if not in_store:
                    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
                    connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        except BaseException:
            connection.close(True)
            raise
    except (apsw.NotADBError, apsw.CantOpenError, apsw.ReadOnlyError) as error:
        raise ConfigError(f"cannot open the read models {path}: {error}") from error
    except apsw.Error as error:
        raise translate(error, f"cannot open the read models {path}") from error
    return kind(path, connection)


def _check_mark(connection: apsw.Connection, path: str) -> None:
    """Raise ConfigError for a file that is not ours, or of another version of the program."""
    ((tables,),) = connection.execute("SELECT count(*) FROM sqlite_schema").fetchall()
    if not tables:
        return
    if connection.pragma("application_id") != APPLICATION_ID:
        raise ConfigError(f"{path} is a SQLite database of another program; it was left as it is")
    version = connection.pragma("user_version")
    if version != SCHEMA_VERSION:
        raise ConfigError(
            f"{path} holds read models of version {version} and this program keeps version "
            f"{SCHEMA_VERSION}; remove the file, and they are built again from the events"
        )
