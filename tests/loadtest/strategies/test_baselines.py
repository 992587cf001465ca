"""Every baseline is honest: it never oversells, and knows a repeat when it sees one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from engine.cqrs.messages import Rejected
from engine.errors import StoreUnavailable
from engine.inventory.commands import Reserve
from engine.inventory.events import Reserved
from engine.stores.mysql_connection import MysqlConnection
from engine.stores.mysql_url import parse_mysql_url
from loadtest.strategies.baselines import SHOPS, Pool, RowLock, count_stock, make_tables
from loadtest.strategies.redis_lua import RedisLua


@asynccontextmanager
async def shop(url: str, strategy: str, units: int, connections: int) -> AsyncIterator[RowLock]:
    address = parse_mysql_url(url)
    await make_tables(address, ["A", "B"], units)
    pool = await Pool.open(address, connections)
    try:
        yield SHOPS[strategy](pool)
    finally:
        pool.close()


@pytest.mark.parametrize("strategy", SHOPS)
async def test_a_crowd_gets_every_unit_and_not_one_more(mariadb_url: str, strategy: str) -> None:
    address = parse_mysql_url(mariadb_url)
    orders = [Reserve(f"{n}", "AB"[n % 2], f"buyer-{n}", 1 + n % 3) for n in range(120)]
    async with shop(mariadb_url, strategy, 50, 8) as selling:
        answers = await asyncio.gather(*(selling.execute(each) for each in orders))
        won = [
            order
            for order, answer in zip(orders, answers, strict=True)
            if answer == (Reserved(order.id, order.buyer, order.quantity),)
        ]
        assert await count_stock(address, 50) == (0, {each.id for each in won})
        for sku in "AB":
            units = sum(each.quantity for each in won if each.aggregate_id == sku)
            assert 48 <= units <= 50
        again = await asyncio.gather(*(selling.execute(each) for each in won))
        assert again == [(Reserved(each.id, each.buyer, each.quantity),) for each in won]
        assert await count_stock(address, 50) == (0, {each.id for each in won})


@pytest.mark.parametrize("strategy", SHOPS)
async def test_an_order_that_is_refused_leaves_nothing(mariadb_url: str, strategy: str) -> None:
    async with shop(mariadb_url, strategy, 1, 1) as selling:
        refused = await selling.execute(Reserve("1", "A", "bob", 2))
        assert isinstance(refused, Rejected)
        assert refused.reason == "sold_out"
        assert await selling.execute(Reserve("1", "A", "bob", 1)) == (Reserved("1", "bob", 1),)
        assert await count_stock(parse_mysql_url(mariadb_url), 1) == (0, {"1"})


async def test_units_that_are_missing_are_counted_as_oversold(mariadb_url: str) -> None:
    address = parse_mysql_url(mariadb_url)
    async with shop(mariadb_url, "row-lock", 5, 1) as selling:
        for n in range(5):
            await selling.execute(Reserve(f"{n}", "A", "bob", 1))
        connection = await MysqlConnection.open(address)
        await connection.run("INSERT INTO baseline_orders VALUES ('x', 'A', 'eve', 2)")
        connection.close()
        assert (await count_stock(address, 5))[0] == 2


async def test_a_pool_serves_those_who_wait_before_those_who_come(mariadb_url: str) -> None:
    pool = await Pool.open(parse_mysql_url(mariadb_url), 1)
    served: list[int] = []

    async def customer(number: int) -> None:
        for _ in range(2):
            async with pool.connection():
                served.append(number)
                await asyncio.sleep(0)

    await asyncio.gather(*(customer(number) for number in range(3)))
    pool.close()
    assert served == [0, 1, 2, 0, 1, 2]


async def test_a_script_in_redis_sells_every_unit_once_and_the_database_follows(
    mariadb_url: str, redis_url: str
) -> None:
    address = parse_mysql_url(mariadb_url)
    async with shop(mariadb_url, "row-lock", 20, 1):
        selling = await RedisLua.open(redis_url, 4, address, ["A", "B"], 20)
        try:
            orders = [Reserve(f"{n}", "A", "bob", 1) for n in range(50)]
            answers = await asyncio.gather(*(selling.execute(each) for each in orders))
            won = [
                each for each, answer in zip(orders, answers, strict=True) if type(answer) is tuple
            ]
            assert len(won) == 20
            again = await asyncio.gather(*(selling.execute(each) for each in won))
            assert again == [(Reserved(each.id, "bob", 1),) for each in won]
            await selling.settle()
            assert await count_stock(address, 20) == (0, {each.id for each in won})
        finally:
            await selling.close()


async def test_what_cannot_be_written_behind_the_buyers_is_an_error_and_no_success(
    mariadb_url: str, redis_url: str
) -> None:
    address = parse_mysql_url(mariadb_url)
    async with shop(mariadb_url, "row-lock", 20, 1):
        selling = await RedisLua.open(redis_url, 4, address, ["A"], 20)
        try:
            await count_stock(address, 20)
            connection = await MysqlConnection.open(address)
            await connection.run("DROP TABLE baseline_orders")
            connection.close()
            await selling.execute(Reserve("1", "A", "bob", 1))
            with pytest.raises(StoreUnavailable, match="error 1146"):
                await selling.settle()
        finally:
            await selling.close()
