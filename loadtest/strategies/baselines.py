"""What people do today, done well: each strategy as a shop that takes one order at a time.

They sell from tables of their own (BASELINE_TABLES) on the same server, one transaction an order,
over a bounded pool. An order's id is a primary key, so that a repeat is found and nothing is sold
twice. Statements that need no answer in between share a round trip, and the row of the stock is
locked as late as the strategy allows.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final

from engine.cqrs.messages import Answer, Command
from engine.inventory.commands import Reserve
from engine.inventory.events import Reserved
from engine.inventory.stock import SOLD_OUT
from engine.stores.mysql_connection import MysqlConnection
from engine.stores.mysql_sql import quote
from engine.stores.mysql_url import MysqlAddress

BASELINE_TABLES: Final = (
    """
    CREATE TABLE baseline_stock (
        sku VARCHAR(64) NOT NULL PRIMARY KEY,
        available BIGINT NOT NULL,
        version BIGINT NOT NULL,
        CONSTRAINT baseline_never_oversold CHECK (available >= 0)
    ) ENGINE = InnoDB CHARACTER SET utf8mb4 COLLATE utf8mb4_bin
    """,
    """
    CREATE TABLE baseline_orders (
        command_id VARCHAR(64) NOT NULL PRIMARY KEY,
        sku VARCHAR(64) NOT NULL,
        buyer VARCHAR(64) NOT NULL,
        quantity BIGINT NOT NULL
    ) ENGINE = InnoDB CHARACTER SET utf8mb4 COLLATE utf8mb4_bin
    """,
)


ROWS_PER_INSERT: Final = 1_000


class Pool:
    """A fixed number of connections, handed out to whoever waited longest."""

    def __init__(self, address: MysqlAddress, connections: Sequence[MysqlConnection]) -> None:
        self._address = address
        self._free = list(connections)
        # Fair, unlike a queue: who gives a connection back cannot take it before those who wait.
        self._turns = asyncio.Semaphore(len(connections))

    @classmethod
    async def open(cls, address: MysqlAddress, size: int) -> Pool:
        return cls(address, [await MysqlConnection.open(address) for _ in range(size)])

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[MysqlConnection]:
        async with self._turns:
            taken = self._free.pop()
            try:
                if taken.closed:
                    # One order failed on it; those after it are no worse off.
                    taken = await MysqlConnection.open(self._address)
                yield taken
            finally:
                self._free.append(taken)

    def close(self) -> None:
        for each in self._free:
            each.close()


class RowLock:
    """A conditional UPDATE and an INSERT in a transaction; buyers queue for the row's lock."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def execute(self, order: Command, /) -> Answer:
        assert isinstance(order, Reserve)
        async with self._pool.connection() as connection:
            # The stock comes last: its row is locked for the COMMIT and little else.
            _, inserted, taken = await connection.run_all(
                ["BEGIN", _insert(order), _take(order, f"available >= {order.quantity}")]
            )
            if inserted.matched and taken.matched:
                await connection.run("COMMIT")
                return _reserved(order)
            await connection.run("ROLLBACK")
            return SOLD_OUT if inserted.matched else _reserved(order)

    async def settle(self) -> None:
        """Return when every answer is durable: here it was when it was given."""

    async def close(self) -> None:
        self._pool.close()


class SelectForUpdate(RowLock):
    """Lock the row, look, then write: the row is locked during the round trips in between."""

    async def execute(self, order: Command, /) -> Answer:
        assert isinstance(order, Reserve)
        async with self._pool.connection() as connection:
            _, found = await connection.run_all(["BEGIN", f"{_look(order)} FOR UPDATE"])
            if found.rows[0][0] < order.quantity:
                await connection.run("ROLLBACK")
                return SOLD_OUT if not await _known(connection, order) else _reserved(order)
            inserted, _ = await connection.run_all([_insert(order), _take(order, "TRUE")])
            await connection.run("COMMIT" if inserted.matched else "ROLLBACK")
            return _reserved(order)


class Optimistic(RowLock):
    """Look without a lock, write if the version is still the one seen, else look again."""

    async def execute(self, order: Command, /) -> Answer:
        assert isinstance(order, Reserve)
        async with self._pool.connection() as connection:
            while True:
                ((available, version),) = (await connection.run(_look(order))).rows
                if available < order.quantity:
                    return SOLD_OUT if not await _known(connection, order) else _reserved(order)
                _, inserted, taken = await connection.run_all(
                    ["BEGIN", _insert(order), _take(order, f"version = {version}")]
                )
                if inserted.matched and taken.matched:
                    await connection.run("COMMIT")
                    return _reserved(order)
                await connection.run("ROLLBACK")
                if not inserted.matched:
                    return _reserved(order)


class Queue(RowLock):
    """The row-lock transaction; buyers of one SKU queue in the application, not in the server."""

    def __init__(self, pool: Pool) -> None:
        super().__init__(pool)
        self._turns: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def execute(self, order: Command, /) -> Answer:
        async with self._turns[order.aggregate_id]:
            return await super().execute(order)


SHOPS: Final[dict[str, type[RowLock]]] = {
    "row-lock": RowLock,
    "select-for-update": SelectForUpdate,
    "optimistic": Optimistic,
    "queue": Queue,
}


async def _known(connection: MysqlConnection, order: Reserve) -> bool:
    found = await connection.run(
        f"SELECT 1 FROM baseline_orders WHERE command_id = {quote(order.id)}"
    )
    return bool(found.rows)


def _look(order: Reserve) -> str:
    return f"SELECT available, version FROM baseline_stock WHERE sku = {quote(order.aggregate_id)}"


def _insert(order: Reserve) -> str:
    # IGNORE: a repeat inserts no row, and is told by it.
    return (
        "INSERT IGNORE INTO baseline_orders (command_id, sku, buyer, quantity) VALUES "
        f"({quote(order.id)}, {quote(order.aggregate_id)}, {quote(order.buyer)}, {order.quantity})"
    )


def _take(order: Reserve, guard: str) -> str:
    return (
        f"UPDATE baseline_stock SET available = available - {order.quantity}, "
        f"version = version + 1 WHERE sku = {quote(order.aggregate_id)} AND {guard}"
    )


def _reserved(order: Reserve) -> Answer:
    return (Reserved(order.id, order.buyer, order.quantity),)


async def make_tables(address: MysqlAddress, skus: Sequence[str], units: int) -> None:
    """Make the baselines' tables, with `units` of every SKU in stock."""
    connection = await MysqlConnection.open(address)
    try:
        await connection.run_all(BASELINE_TABLES)
        for first in range(0, len(skus), ROWS_PER_INSERT):
            rows = ", ".join(
                f"({quote(sku)}, {units}, 0)" for sku in skus[first : first + ROWS_PER_INSERT]
            )
            await connection.run(f"INSERT INTO baseline_stock VALUES {rows}")
    finally:
        connection.close()


async def count_stock(address: MysqlAddress, units: int) -> tuple[int, set[str]]:
    """Units sold beyond the stock or beyond what it lost, and the ids of all stored orders."""
    connection = await MysqlConnection.open(address)
    try:
        sums = await connection.run(
            "SELECT s.sku, s.available, COALESCE(SUM(o.quantity), 0) FROM baseline_stock AS s "
            "LEFT JOIN baseline_orders AS o ON o.sku = s.sku GROUP BY s.sku, s.available"
        )
        orders = await connection.run("SELECT command_id FROM baseline_orders")
    finally:
        connection.close()
    oversold = sum(
        max(0, int(sold) - units, int(sold) - (units - int(available)))
        for _, available, sold in sums.rows
    )
    return oversold, {str(row[0]) for row in orders.rows}
