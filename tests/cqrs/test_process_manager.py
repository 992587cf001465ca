"""What a process manager could not react to waits, in order, until somebody asks or skips."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from engine.config import COMMAND_SIDE_KEYS, load_settings
from engine.cqrs.messages import Event
from engine.cqrs.process_manager import ProcessManager
from engine.cqrs.query_side.query_side import QuerySide
from engine.cqrs.query_side.subscription import Feed
from engine.cqrs.send import Send
from engine.engine import Engine
from engine.errors import (
    ConfigError,
    StoreUnavailable,
)
from engine.inventory.events import Reserved
from engine.inventory.sale import sale_registry
from engine.runtime import open_engine
from engine.stores.sqlite_views import SqliteViews
from tests.cqrs.impatient_clock import ImpatientClock


class Picky:
    """Reacts to orders, but not to those that are bad today. `tried` is every reaction begun."""

    def __init__(self, *bad: str) -> None:
        self.bad = set(bad)
        self.tried: list[str] = []
        self.done: list[str] = []

    async def react(self, sku: str, event: Event, send: Send) -> None:
        self.tried.append(event.command_id)
        await asyncio.sleep(0)
        if event.command_id in self.bad:
            raise RuntimeError("I do not like it")
        self.done.append(event.command_id)

    def manager(self) -> ProcessManager:
        return ProcessManager("picky", "stock", (Reserved,), self.react)


class Lab:
    """Runs managers and settles letters, in query sides that share nothing but the stores."""

    def __init__(self, engine: Engine, views: SqliteViews) -> None:
        self.engine, self.views = engine, views
        self.outside = self.side()
        self.outside.add_manager(Picky().manager(), views)
        self.sides: list[QuerySide] = [self.outside]

    def side(self) -> QuerySide:
        return QuerySide(self.engine.reader, sale_registry(), {}, Feed(), ImpatientClock())

    def start(self, picky: Picky) -> QuerySide:
        side = self.side()
        self.sides.append(side)
        side.start_manager(picky.manager(), self.engine.execute, self.views)
        return side

    async def letters(self) -> list[tuple[str, bool]]:
        """The position in its stream is the number of the order; true for one with a reason."""
        found = await self.outside.dead_letters("picky")
        return [(each.aggregate_id, bool(each.reason)) for each in found]

    async def until_letters(self, *wanted: tuple[str, bool]) -> None:
        while await self.letters() != list(wanted):  # noqa: ASYNC110
            await asyncio.sleep(0)


@asynccontextmanager
async def lab() -> AsyncIterator[Lab]:
    """Three orders of each of two SKUs."""
    settings = load_settings(None, {**COMMAND_SIDE_KEYS, "store.url": "memory:"}, {})
    views = await SqliteViews.open(":memory:")
    async with open_engine(settings) as engine:
        for sku in ("A", "B"):
            await engine.open_sale(sku, stock=9)
            for n in range(3):
                await engine.reserve(sku, buyer="ann", command_id=f"{sku}-{n}")
        built = Lab(engine, views)
        yield built
        for side in built.sides:
            await side.close()
    await views.close()


WAITING = (("A", True), ("A", False), ("A", False))


async def test_a_running_manager_reacts_again_in_order_when_another_process_asks() -> None:
    async with lab() as here:
        picky = Picky("A-0")
        side = here.start(picky)
        await side.caught_up()
        assert picky.done == ["B-0", "B-1", "B-2"]
        assert await here.letters() == list(WAITING)
        picky.bad.clear()
        assert await here.outside.retry("picky") == 3
        await here.until_letters()
        # What comes meanwhile stands behind them.
        await here.engine.reserve("A", buyer="ann", command_id="A-3")
        await side.caught_up()
        assert picky.done[3:] == ["A-0", "A-1", "A-2", "A-3"]


async def test_what_comes_before_the_manager_has_noticed_stays_behind_the_letters() -> None:
    async with lab() as here:
        picky = Picky("A-0")
        side = here.start(picky)
        await side.caught_up()
        picky.bad.clear()
        await here.outside.retry("picky")
        await here.engine.reserve("A", buyer="ann", command_id="A-3")
        await here.until_letters()
        await side.caught_up()
        assert [each for each in picky.done if each[0] == "A"] == ["A-0", "A-1", "A-2", "A-3"]


async def test_what_comes_after_a_retry_in_vain_still_stands_behind_the_letters() -> None:
    async with lab() as here:
        picky = Picky("A-0")
        side = here.start(picky)
        await side.caught_up()
        tried = len(picky.tried)
        await here.outside.retry("picky")
        while len(picky.tried) == tried:  # noqa: ASYNC110
            await asyncio.sleep(0)
        await here.engine.reserve("A", buyer="ann", command_id="A-3")
        await side.caught_up()
        assert await here.letters() == [*WAITING, ("A", False)]
        assert [each for each in picky.tried if each[0] == "A"] == ["A-0"] * 2


async def test_a_skipped_letter_is_given_up_and_what_waited_behind_it_is_not() -> None:
    async with lab() as here:
        picky = Picky("A-0", "A-2")
        side = here.start(picky)
        await side.caught_up()
        assert await here.outside.retry("picky", skip=True) == 2
        await here.until_letters(("A", True))
        assert picky.done[3:] == ["A-1"]
        assert picky.tried.count("A-0") == 1


async def test_what_was_not_tried_yet_is_not_skipped() -> None:
    async with lab() as here:
        picky = Picky("A-0")
        await here.start(picky).caught_up()
        await here.sides[-1].close()
        assert await here.outside.retry("picky", skip=True) == 2
        # Nobody runs, so the next one has not been tried: it is no poison yet.
        assert await here.outside.retry("picky", skip=True) == 2
        here.start(picky)
        await here.until_letters()
        assert picky.done[3:] == ["A-1", "A-2"]


async def test_two_loops_with_the_same_poison_do_not_call_each_other_for_ever() -> None:
    async with lab() as here:
        both = Picky("A-0"), Picky("A-0")
        for each in both:
            await here.start(each).caught_up()
        before = await here.views.progress("picky", 1, 0)
        tried = [each.tried.count("A-0") for each in both]
        await here.engine.reserve("B", buyer="ann", command_id="B-3")
        await here.outside.caught_up()
        after = await here.views.progress("picky", 1, 0)
        assert before is not None
        assert after is not None
        assert after.revision == before.revision
        # The one whose checkpoint was moved by the other looks at the letters once more, and it may
        # not have begun when the first count was taken.
        again = [each.tried.count("A-0") for each in both]
        assert all(now - then <= 2 for now, then in zip(again, tried, strict=True))


async def test_nothing_to_hand_back_changes_nothing_and_a_race_is_told() -> None:
    async with lab() as here:
        picky = Picky()
        await here.start(picky).caught_up()
        before = await here.views.progress("picky", 1, 0)
        assert await here.outside.retry("picky", skip=True) == 0
        assert await here.views.progress("picky", 1, 0) == before
        with pytest.raises(ConfigError, match="nothing is called 'nope' here; there is: picky"):
            await here.outside.retry("nope")


async def test_a_letter_that_is_settled_meanwhile_is_not_skipped_besides(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with lab() as here:
        picky = Picky("A-0")
        side = here.start(picky)
        await side.caught_up()
        await side.close()
        read = here.views.dead_letters
        picky.bad.clear()

        async def read_and_lose(name: str, generation: int, partition: int | None = None) -> object:
            found = await read(name, generation, partition)
            if partition is not None:
                monkeypatch.setattr(here.views, "dead_letters", read)
                here.start(picky)
                await here.until_letters()
            return found

        monkeypatch.setattr(here.views, "dead_letters", read_and_lose)
        with pytest.raises(StoreUnavailable, match="try again"):
            await here.outside.retry("picky", skip=True)
        assert picky.done[3:] == ["A-0", "A-1", "A-2"]
