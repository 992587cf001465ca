"""The strategy most write-ups end with: a script in Redis decides, the database is told later.

Buyers are answered as soon as the script has run, so an answer is not durable: what waits to be
written when the process or Redis dies is lost. That is why accepted and durable orders a second are
reported apart.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

from redis.asyncio import ConnectionPool, Redis
from redis.exceptions import RedisError

from engine.cqrs.messages import Answer, Command
from engine.errors import ConfigError, StoreUnavailable
from engine.inventory.commands import Reserve
from engine.inventory.events import Reserved
from engine.inventory.stock import SOLD_OUT
from engine.stores.mysql_connection import MysqlConnection
from engine.stores.mysql_sql import quote
from engine.stores.mysql_url import MysqlAddress

SCRIPT: Final = """
if redis.call('SISMEMBER', KEYS[2], ARGV[1]) == 1 then return 2 end
if tonumber(redis.call('GET', KEYS[1]) or '0') < tonumber(ARGV[2]) then return 0 end
redis.call('DECRBY', KEYS[1], ARGV[2])
redis.call('SADD', KEYS[2], ARGV[1])
return 1
"""
"""0: sold out, 1: taken, 2: this order was taken before."""

ORDERS_PER_TRANSACTION: Final = 1_000


async def check_redis(url: str) -> None:
    """Raise ConfigError unless a Redis server answers at `url`."""
    try:
        redis = Redis.from_url(url)
    except ValueError as error:
        raise ConfigError(f"--redis-url: {error}") from None
    try:
        await redis.ping()
    except RedisError as error:
        raise ConfigError(f"--redis-url: Redis cannot be used: {error}") from error
    finally:
        await redis.aclose()


class RedisLua:
    """Takes orders in Redis and writes them to the baselines' tables behind the buyers' backs."""

    def __init__(
        self, redis: Redis, connections: int, writer: MysqlConnection, prefix: str
    ) -> None:
        self._redis = redis
        # Fair, unlike the library's own pools, which leave who waits longest to chance.
        self._turns = asyncio.Semaphore(connections)
        self._script: Any = redis.register_script(SCRIPT)
        self._writer = writer
        self._prefix = prefix
        self._waiting: asyncio.Queue[Reserve] = asyncio.Queue()
        self._writing = asyncio.create_task(self._write())

    @classmethod
    async def open(
        cls, url: str, connections: int, place: MysqlAddress, skus: Sequence[str], units: int
    ) -> RedisLua:
        """Put the stock into Redis, under keys that start with the name of the database.

        Raises ConfigError for a wrong URL, StoreUnavailable when Redis does not answer.
        """
        try:
            pool = ConnectionPool.from_url(url, max_connections=connections)
        except ValueError as error:
            raise ConfigError(f"--redis-url: {error}") from None
        redis = Redis.from_pool(pool)
        prefix = f"{place.database}:"
        try:
            await redis.mset({f"{prefix}stock:{sku}": units for sku in skus})
        except RedisError as error:
            await redis.aclose()
            raise StoreUnavailable(f"Redis cannot be used: {error}") from error
        return cls(redis, connections, await MysqlConnection.open(place), prefix)

    async def execute(self, order: Command, /) -> Answer:
        assert isinstance(order, Reserve)
        keys = [f"{self._prefix}stock:{order.aggregate_id}", f"{self._prefix}orders"]
        try:
            async with self._turns:
                taken = await self._script(keys=keys, args=[order.id, order.quantity])
        except RedisError as error:
            raise StoreUnavailable(f"Redis: {error}") from error
        if not taken:
            return SOLD_OUT
        if taken == 1:
            self._waiting.put_nowait(order)
        return (Reserved(order.id, order.buyer, order.quantity),)

    async def settle(self) -> None:
        """Return when everything that was acknowledged is durable. Raises what writing raised."""
        empty = asyncio.create_task(self._waiting.join())
        await asyncio.wait([empty, self._writing], return_when=asyncio.FIRST_COMPLETED)
        if self._writing.done():
            empty.cancel()
            self._writing.result()

    async def close(self) -> None:
        self._writing.cancel()
        await asyncio.gather(self._writing, return_exceptions=True)
        self._writer.close()
        keys = [key async for key in self._redis.scan_iter(f"{self._prefix}*")]
        if keys:
            await self._redis.delete(*keys)
        await self._redis.aclose()

    async def _write(self) -> None:
        while True:
            orders = [await self._waiting.get()]
            while len(orders) < ORDERS_PER_TRANSACTION and not self._waiting.empty():
                orders.append(self._waiting.get_nowait())
            await self._writer.run_all(["BEGIN", *_statements(orders), "COMMIT"])
            for _ in orders:
                self._waiting.task_done()


def _statements(orders: Sequence[Reserve]) -> list[str]:
    rows = ", ".join(
        f"({quote(each.id)}, {quote(each.aggregate_id)}, {quote(each.buyer)}, {each.quantity})"
        for each in orders
    )
    sums: Counter[str] = Counter()
    for each in orders:
        sums[each.aggregate_id] += each.quantity
    return [
        f"INSERT INTO baseline_orders (command_id, sku, buyer, quantity) VALUES {rows}",
        *(
            f"UPDATE baseline_stock SET available = available - {units}, version = version + 1 "
            f"WHERE sku = {quote(sku)}"
            for sku, units in sums.items()
        ),
    ]
