"""A projection follows the events, once each, whatever goes wrong in between."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from engine.clock import SystemClock
from engine.config import load_settings
from engine.cqrs.query_side.projection import Projection, RecordedCommit
from engine.cqrs.query_side.query_side import QuerySide
from engine.cqrs.query_side.read_model import DeadLetter, ReadStore, Select, Step, Write
from engine.cqrs.query_side.subscription import Feed
from engine.engine import Engine
from engine.errors import StoreUnavailable
from engine.inventory.orders_table import ORDERS
from engine.inventory.sale import sale_registry
from engine.inventory.sales_table import SALES
from engine.runtime import open_engine
from engine.stores.sqlite_views import SqliteViews


class Picky:
    """Projects orders, but not those of a SKU that is bad today."""

    def __init__(self) -> None:
        self.bad = {"BAD"}

    def project(self, commit: RecordedCommit) -> list[Write]:
        return self._unless_bad(commit, ORDERS)

    def project_sales(self, commit: RecordedCommit) -> list[Write]:
        return self._unless_bad(commit, SALES)

    def _unless_bad(self, commit: RecordedCommit, projection: Projection) -> list[Write]:
        if commit.aggregate_id in self.bad and commit.first_version == 2:
            raise RuntimeError("I do not like it")
        return list(projection.project(commit))


@asynccontextmanager
async def sold() -> AsyncIterator[Engine]:
    """An engine with three orders of each of two SKUs, and no read models of its own."""
    off = {"query_side.orders": "off", "query_side.sales": "off", "query_side.managers": False}
    async with open_engine(load_settings(None, {"store.url": "memory:", **off}, {})) as engine:
        for sku in ("BAD", "GOOD"):
            await engine.open_sale(sku, stock=9)
            for n in range(3):
                await engine.reserve(sku, buyer=f"{sku}-{n}", command_id=f"{sku}-{n}")
        yield engine


async def names(views: ReadStore) -> list[object]:
    return [row["reservation_id"] for row in await views.select(Select("orders"))]


async def test_a_poisoned_commit_stops_its_stream_only_until_it_is_settled() -> None:
    picky = Picky()
    projection = replace(ORDERS, project=picky.project)
    async with sold() as engine:
        views = await SqliteViews.open(":memory:")
        side = QuerySide(engine.reader, sale_registry(), {projection: views}, Feed(), SystemClock())
        side.start_projection(projection)
        await side.caught_up()
        assert await names(views) == ["GOOD-0", "GOOD-1", "GOOD-2"]
        letters = await side.dead_letters("orders")
        assert [(each.aggregate_id, bool(each.reason)) for each in letters] == [
            ("BAD", True),
            ("BAD", False),
            ("BAD", False),
        ]
        assert [each.dead_letters for each in await side.lag()] == [3]
        assert await side.retry("orders") == 3
        picky.bad.clear()
        assert await side.retry("orders") == 0
        # The running projector sees that the stream is free again.
        await engine.reserve("BAD", buyer="late", command_id="BAD-3")
        await side.caught_up()
        assert await names(views) == [*(f"BAD-{n}" for n in range(4)), "GOOD-0", "GOOD-1", "GOOD-2"]
        assert await side.dead_letters("orders") == []
        await side.close()
        await views.close()


async def test_a_skipped_commit_is_missing_and_what_follows_is_not() -> None:
    projection = replace(ORDERS, project=Picky().project)
    async with sold() as engine:
        views = await SqliteViews.open(":memory:")
        feed = Feed()
        side = QuerySide(engine.reader, sale_registry(), {projection: views}, feed, SystemClock())
        side.start_projection(projection)
        await side.caught_up()
        # What comes later waits too: it stands on what is missing.
        await engine.reserve("BAD", buyer="late", command_id="BAD-3")
        feed.announce(0)
        await side.caught_up()
        assert len(await side.dead_letters("orders")) == 4
        assert await side.retry("orders", skip=True) == 0
        assert await names(views) == ["BAD-1", "BAD-2", "BAD-3", "GOOD-0", "GOOD-1", "GOOD-2"]
        await side.close()
        await views.close()


class Overtaken(SqliteViews):
    """Somebody else does something just after the letters were read."""

    meanwhile: Callable[[], Coroutine[object, object, object]] | None = None

    async def dead_letters(
        self, projection: str, generation: int, partition: int | None = None
    ) -> list[DeadLetter]:
        letters = await super().dead_letters(projection, generation, partition)
        if partition is not None and (meanwhile := self.meanwhile) is not None:
            self.meanwhile = None
            await meanwhile()
        return letters


async def test_two_who_retry_at_once_count_no_letter_twice() -> None:
    picky = Picky()
    projection = replace(SALES, project=picky.project_sales)
    async with sold() as engine:
        views = await Overtaken.open(":memory:")
        side = QuerySide(engine.reader, sale_registry(), {projection: views}, Feed(), SystemClock())
        side.start_projection(projection)
        await side.caught_up()
        await side.close()
        picky.bad.clear()
        assert isinstance(views, Overtaken)
        views.meanwhile = lambda: side.retry("sales")
        with pytest.raises(StoreUnavailable, match="try again"):
            await side.retry("sales")
        rows = await views.select(Select("sales", {"sku": "BAD"}))
        assert sum(int(row["orders"]) for row in rows) == 3
        assert await side.retry("sales") == 0
        await views.close()


class Dying(SqliteViews):
    """Fails before or after every other step, as a process that is killed does."""

    steps = 0

    async def advance(self, step: Step) -> bool:
        self.steps += 1
        if self.steps % 4 == 1:
            raise StoreUnavailable("died before")
        done = await super().advance(step)
        if self.steps % 4 == 3:
            raise StoreUnavailable("died after")
        return done


@pytest.mark.parametrize("projectors", [1, 3])
async def test_figures_count_every_event_once_whatever_dies_between_two_steps(
    projectors: int,
) -> None:
    """`sales` adds up, so an event taken in twice or not at all shows in its sums."""
    async with sold() as engine:
        views = await Dying.open(":memory:")
        assert isinstance(views, Dying)
        feed, clock = Feed(), ImpatientClock()
        side = QuerySide(engine.reader, sale_registry(), {SALES: views}, feed, clock)
        for _ in range(projectors):
            side.start_projection(SALES)
        for n in range(20):
            await engine.reserve("GOOD", buyer=f"more-{n}")
            feed.announce(0)
            if n % 3 == 0:
                await side.caught_up()
        await side.caught_up()
        rows = await views.select(Select("sales", {"sku": "GOOD"}))
        assert sum(int(row["sold"]) for row in rows) == 9
        assert views.steps > 4
        await side.close()
        await views.close()


class ImpatientClock(SystemClock):
    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(0)
