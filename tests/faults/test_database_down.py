"""One of two databases is killed: the other one's partitions are sold on, and then both again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from engine.config import Settings, load_settings
from engine.cqrs.partitioning import partition_of
from engine.engine import Engine
from engine.errors import DeadlineExceeded, OutcomeUnknown, StoreUnavailable
from engine.inventory.events import Reserved
from engine.inventory.sale import sale_registry
from engine.runtime import (
    audit_store,
    initialise_store,
    move_partition,
    open_engine,
    open_queries,
    open_reader,
)
from engine.stores.mysql_url import parse_mysql_url
from engine.stores.spread import SpreadStore
from engine.testing.mariadb_server import MariadbServer, mariadb_server
from tests.servers import need

HERE = next(f"S{n}" for n in range(9) if partition_of(f"S{n}", 2) == 0)
THERE = next(f"S{n}" for n in range(9) if partition_of(f"S{n}", 2) == 1)
NOT_NOW = (StoreUnavailable, OutcomeUnknown, DeadlineExceeded)


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[tuple[MariadbServer, MariadbServer]]:
    need("mariadbd", "mysqld")
    with mariadb_server(tmp_path / "a") as first, mariadb_server(tmp_path / "b") as second:
        for each in (first, second):
            each.execute("CREATE DATABASE seckill")
        yield first, second


def settings_of(*servers: MariadbServer, **more: object) -> Settings:
    overrides = {"store.urls": [each.url() for each in servers], "store.partitions": 2, **more}
    return load_settings(None, overrides, {})


@asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[Engine]:
    await initialise_store(settings)
    async with open_engine(settings) as engine:
        for sku in (HERE, THERE):
            await engine.open_sale(sku, stock=1_000, hold_seconds=600, command_id=f"open-{sku}")
        yield engine


async def until_sold(engine: Engine, sku: str, command_id: str) -> None:
    """Send one order again and again; bounded by the time that the server takes to start."""
    for _ in range(600):
        try:
            answer = await engine.reserve(sku, buyer="ann", command_id=command_id, timeout_ms=500)
        except NOT_NOW:
            continue
        assert isinstance(answer, Reserved)
        return
    pytest.fail(f"{sku} was not sold again")


async def test_what_lives_in_the_other_database_is_sold_on(
    servers: tuple[MariadbServer, MariadbServer],
) -> None:
    settings = settings_of(*servers)
    async with opened(settings) as engine:
        await engine.reserve(THERE, buyer="ann", command_id="before")
        await engine.queries.caught_up()
        await asyncio.to_thread(servers[1].kill)
        for number in range(20):
            assert isinstance(await engine.reserve(HERE, buyer=f"b{number}"), Reserved)
        with pytest.raises(NOT_NOW):
            await engine.reserve(THERE, buyer="ann", command_id="in doubt", timeout_ms=500)
        # Questions about what lives here are answered; those about all of it are not.
        assert (await engine.stock(HERE)) is not None
        assert await engine.queries.sales_of(HERE)
        with pytest.raises(StoreUnavailable):
            await engine.stock(THERE)
        with pytest.raises(StoreUnavailable):
            await engine.queries.reservations_of("ann")
        assert {each.partition for each in await engine.queries.lag()} == {0}
        reader = await open_reader(settings.store.places)
        places = await reader.read_places()
        await reader.close()
        assert [each.epoch >= 0 for each in places] == [True, False]
        async with open_queries(settings) as queries:
            assert {each.partition for each in await queries.lag()} == {0}
            assert await queries.dead_letters("checkout") == []
            with pytest.raises(StoreUnavailable):
                await queries.retry_dead_letters("checkout")
        with pytest.raises(StoreUnavailable, match="database db2 does not answer"):
            async with open_engine(settings):
                pass
        await asyncio.to_thread(servers[1].start)
        await until_sold(engine, THERE, "in doubt")
        await engine.queries.caught_up()
        assert len(await engine.queries.reservations_of("ann")) == 2
    report = await audit_store(settings.store.places)
    assert report.ok, report
    assert report.checked_events >= 24


async def test_a_store_is_opened_without_the_database_that_is_down_and_takes_it_in_later(
    servers: tuple[MariadbServer, MariadbServer],
) -> None:
    settings = settings_of(*servers)
    await initialise_store(settings)
    await asyncio.to_thread(servers[1].kill)
    addresses = [parse_mysql_url(each) for each in settings.store.places]
    store = await SpreadStore.open(addresses, partitions=2, tables=sale_registry().tables)
    try:
        assert (await store.acquire(0)).position == 0
        with pytest.raises(StoreUnavailable, match="database db2 does not answer"):
            await store.acquire(1)
        await asyncio.to_thread(servers[1].start)
        assert (await store.acquire(1)).position == 0
    finally:
        await store.close()


async def test_with_all_of_them_down_nothing_is_opened(
    servers: tuple[MariadbServer, MariadbServer],
) -> None:
    settings = settings_of(*servers)
    await initialise_store(settings)
    for each in servers:
        await asyncio.to_thread(each.kill)
    with pytest.raises(StoreUnavailable, match="cannot connect to mysql://"):
        await open_reader(settings.store.places)


@pytest.mark.parametrize("mode", ["async", "inline"])
async def test_a_sale_goes_on_while_one_of_its_partitions_is_moved(
    servers: tuple[MariadbServer, MariadbServer], mode: str
) -> None:
    settings = settings_of(
        *servers,
        **{"query_side.orders": mode, "query_side.sales": mode, "queue.deadline_ms": 60_000},
    )
    async with opened(settings) as engine:
        # The databases number what is built anew by themselves.
        for name in ("orders", "sales"):
            await engine.queries.rebuild(name)
        stop = asyncio.Event()
        sold = {HERE: 0, THERE: 0}

        async def buy(sku: str) -> None:
            while not stop.is_set():
                number = sold[sku]
                answer = await engine.reserve(sku, buyer=f"b{number}", command_id=f"{sku}-{number}")
                assert isinstance(answer, Reserved)
                sold[sku] += 1

        buyers = [asyncio.create_task(buy(sku)) for sku in (HERE, THERE)]
        while min(sold.values()) < 20:  # noqa: ASYNC110
            await asyncio.sleep(0)
        before = dict(sold)
        await move_partition(settings.store.places, 0, "db2", lambda *_: None)
        while min(sold[sku] - before[sku] for sku in sold) < 20:  # noqa: ASYNC110
            await asyncio.sleep(0)
        stop.set()
        await asyncio.gather(*buyers)
        assert engine.stopped() == []
        await engine.queries.caught_up()
        for sku, count in sold.items():
            stock = await engine.stock(sku)
            assert stock is not None
            assert stock.reserved == count
            figures = await engine.queries.sales_of(sku)
            assert sum(each.sold for each in figures) == count
    report = await audit_store(settings.store.places)
    assert report.ok, report
    # The events that stayed behind are of no interest to anybody, and what is kept is in one place.
    spread = await servers[1].query("SELECT COUNT(DISTINCT partition_id) FROM commits", "seckill")
    assert int(spread) == 2
