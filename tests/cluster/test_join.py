"""The whole engine as a node of a cluster, on real stores and a real broker."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from itertools import count
from pathlib import Path

import pytest

from engine import Rejected, Reserve, Reserved, open_engine
from engine.cluster.join import node_name
from engine.config import Settings, load_settings
from engine.engine import Engine
from engine.errors import ConfigError, EngineClosed, PartitionLost
from engine.inventory.events import (
    Confirmed,
    HoldExtended,
    Released,
    Restocked,
    SaleClosed,
    SaleOpened,
    SalePaused,
    SaleResumed,
    Withdrawn,
)
from engine.inventory.order import Order
from engine.inventory.stock import SOLD_OUT
from engine.live_stock import StockRow
from engine.runtime import audit_store, initialise_store
from engine.testing.nats_server import NatsServer
from tests.gate.waiting import until

PARTITIONS = 3
_NUMBERS = count(1)


def settings_of(nats: NatsServer, store_url: str, **more: object) -> Settings:
    """Of a cluster of its own, unless `more` names its prefix."""
    return load_settings(
        None,
        {
            "store.url": store_url,
            "store.partitions": PARTITIONS,
            "query_side.refusals_every_seconds": 1,
            "cluster.servers": (nats.url,),
            "cluster.monitor_urls": tuple(nats.monitor_urls),
            "cluster.prefix": f"join-{next(_NUMBERS)}",
            # The broker sets that much of its disk aside for each stream.
            "cluster.stream_bytes_max": 10_000_000,
            "cluster.events_bytes_max": 10_000_000,
            "cluster.heartbeat_ms": 100,
            "cluster.dead_after_ms": 1_000,
            **{key.replace("__", "."): value for key, value in more.items()},
        },
        {},
    )


def served(engine: Engine) -> Callable[[], Awaitable[bool]]:
    async def look() -> bool:
        return not engine.stopped() and len(engine.served()) == PARTITIONS

    return look


def shows(engine: Engine, sku: str, available: int) -> Callable[[], Awaitable[bool]]:
    """Whether the live rows have come so far."""

    async def look() -> bool:
        row = engine.live.row(sku)
        return row is not None and row.available == available

    return look


async def test_one_node_of_both_roles_does_everything_that_an_engine_does(
    nats: NatsServer, tmp_path: Path
) -> None:
    url = f"sqlite:{tmp_path / 'sale.db'}"
    async with open_engine(settings_of(nats, url)) as engine:
        await until(served(engine))
        opened = await engine.open_sale("A", stock=6, limit_per_buyer=4, hold_seconds=600)
        assert isinstance(opened, SaleOpened)
        sold = [await engine.reserve("A", buyer=f"b{n}", command_id=f"{n}") for n in range(4)]
        assert all(isinstance(each, Reserved) for each in sold)
        assert isinstance(await engine.confirm("A", "1"), Confirmed)
        assert isinstance(await engine.release("A", "2"), Released)
        assert isinstance(await engine.extend_hold("A", "3"), HoldExtended)
        assert isinstance(await engine.restock("A", quantity=1), Restocked)
        assert isinstance(await engine.withdraw("A", quantity=1), Withdrawn)
        assert await engine.reserve("A", buyer="big", quantity=4) == SOLD_OUT
        assert isinstance(await engine.pause_sale("A"), SalePaused)
        assert isinstance(await engine.reserve("A", buyer="p"), Rejected)
        assert isinstance(await engine.resume_sale("A"), SaleResumed)
        # What became of orders, also of one that was refused and of one that never was.
        found = await engine.outcome("A", "1")
        assert (found.status, found.reservation is not None) == ("executed", True)
        assert (await engine.outcome("A", "never")).status == "unknown"
        row = await engine.stock("A")
        # Its version goes up with every count of refusals as well.
        assert row is not None
        assert row == StockRow("A", "open", 3, 2, 1, 4, 600, row.version)
        await until(shows(engine, "A", 3))
        # An order over several SKUs, in different partitions.
        for sku in ("B", "C"):
            await engine.open_sale(sku, stock=5, hold_seconds=600)
        placed = await engine.place_order("cart", buyer="c", lines={"B": 2, "C": 1})
        assert isinstance(placed, Order)
        await engine.pay_order("cart")

        async def is_paid() -> bool:
            order = await engine.queries.order("cart")
            return order is not None and order.step == "confirmed"

        await until(is_paid)

        async def is_counted() -> bool:
            rows = await engine.queries.sales_of("A")
            return sum(each.refused_sold_out for each in rows) == 1

        await until(is_counted)
        many = await engine.reserve_many([Reserve(f"m{n}", "A", f"m{n}", 1) for n in range(6)])
        assert [type(each) for each in many] == [Reserved] * 3 + [Rejected] * 3

        async def knows_reservations() -> bool:
            return len(await engine.queries.reservations_of("b1")) == 1

        await until(knows_reservations)
        assert isinstance(await engine.close_sale("B"), SaleClosed)
        waiting = [asyncio.create_task(engine.reserve("C", buyer=f"w{n}")) for n in range(20)]
        await asyncio.sleep(0)
    # Closing answers who waits: nothing is in doubt, and nothing is left.
    assert {type(each) for each in await asyncio.gather(*waiting)} == {Reserved, Rejected}
    with pytest.raises(EngineClosed):
        await engine.reserve("A", buyer="late")
    assert (await audit_store(url)).ok


async def test_holds_whose_time_is_up_are_given_back(nats: NatsServer, tmp_path: Path) -> None:
    settings = settings_of(nats, f"sqlite:{tmp_path / 'sale.db'}")
    async with open_engine(settings) as engine:
        await until(served(engine))
        await engine.open_sale("A", stock=1, hold_seconds=1)
        assert isinstance(await engine.reserve("A", buyer="b"), Reserved)

        async def is_released() -> bool:
            return [each.state for each in await engine.queries.reservations_of("b")] == [
                "released"
            ]

        # Not by the stock, which looks alike before the hold is seen.
        await until(is_released)
        await until(shows(engine, "A", 1))


async def test_an_engine_and_a_gateway_share_a_database_and_every_gateway_sees_everything(
    nats: NatsServer, mariadb_url: str
) -> None:
    prefix = f"join-{next(_NUMBERS)}"
    engine_settings = settings_of(
        nats, mariadb_url, cluster__role="engine", cluster__prefix=prefix, cluster__node="e"
    )
    gateway_settings = settings_of(
        nats, mariadb_url, cluster__role="gateway", cluster__prefix=prefix, cluster__node="g"
    )
    await initialise_store(engine_settings)
    async with open_engine(gateway_settings) as gateway:
        assert gateway.served() == []
        assert len(gateway.stopped()) == PARTITIONS
        async with open_engine(engine_settings) as engine:
            await until(served(gateway))
            await until(served(engine))
            assert {each.owner for each in gateway.served()} == {"e"}
            await gateway.open_sale("A", stock=3)
            assert await gateway.stock("A") == await engine.stock("A")
            first = await gateway.reserve("A", buyer="b", command_id="1")
            # Both are gateways of the same cluster; the command is the same wherever it is sent.
            assert await engine.reserve("A", buyer="b", command_id="1") == first
            await until(shows(gateway, "A", 2))

            async def counts() -> bool:
                return gateway.statistics().accepted == 2 and gateway.statistics().repeated == 1

            await until(counts)
            assert (await gateway.outcome("A", "1")).status == "executed"

        # It says so when it leaves; after its patience the gateway refuses what nobody would read.
        async def nobody_owns_anything() -> bool:
            return len(gateway.stopped()) == PARTITIONS

        await until(nobody_owns_anything)
        with pytest.raises(PartitionLost):
            await gateway.reserve("A", buyer="b", command_id="1")
    assert (await audit_store(mariadb_url)).ok


async def test_an_engine_alone_says_that_its_store_is_a_clusters(
    nats: NatsServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = settings_of(nats, f"sqlite:{tmp_path / 'sale.db'}")
    async with open_engine(settings) as engine:
        await until(served(engine))
        await engine.open_sale("A", stock=1)
    assert "cluster of the stream" not in caplog.text
    alone = {"store.url": settings.store.url, "store.partitions": PARTITIONS}
    async with open_engine(load_settings(None, alone, {})) as engine:
        assert "was last fed by the cluster of the stream join-" in caplog.text
        assert isinstance(await engine.reserve("A", buyer="b"), Reserved)


async def test_two_nodes_of_one_name_are_refused(nats: NatsServer, mariadb_url: str) -> None:
    settings = settings_of(nats, mariadb_url, cluster__node="same")
    await initialise_store(settings)
    async with open_engine(settings) as engine:
        await until(served(engine))
        with pytest.raises(ConfigError, match="another node that runs is called 'same'"):
            async with open_engine(settings):
                pass
        await engine.open_sale("A", stock=1)


def test_a_node_has_the_name_it_is_given_or_one_that_no_other_has() -> None:
    assert node_name("e-1") == "e-1"
    made = {node_name("") for _ in range(20)}
    assert len(made) == 20
    for each in made:
        load_settings(None, {"cluster.node": each}, {})
