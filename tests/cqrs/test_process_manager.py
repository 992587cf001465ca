"""What a process manager could not react to waits, in order, until somebody asks or skips."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from engine.clock import SystemClock, Timer
from engine.config import COMMAND_SIDE_KEYS, load_settings
from engine.cqrs.messages import Answer, Command, Event
from engine.cqrs.partitioning import partition_of
from engine.cqrs.process_manager import WAITS, ProcessManager, Send
from engine.cqrs.query_side.query_side import QuerySide
from engine.cqrs.query_side.subscription import Feed
from engine.engine import Engine
from engine.errors import (
    ConfigError,
    Overloaded,
    PartitionLost,
    SeckillError,
    StoreUnavailable,
)
from engine.inventory.commands import Reserve
from engine.inventory.events import Reserved
from engine.inventory.sale import sale_registry
from engine.runtime import open_engine
from engine.stores.sqlite_views import SqliteViews


class ImpatientClock(SystemClock):
    """Whatever is waited for is due at the next turn of the event loop."""

    def call_later(self, seconds: float, callback: functools.partial[None] | object) -> Timer:
        assert callable(callback)
        return asyncio.get_running_loop().call_soon(callback)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(0)


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


class HastyClock(ImpatientClock):
    """Time goes on when somebody sleeps, and only then."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.now += seconds
        await asyncio.sleep(0)


class Passing:
    """Passes every order of a SKU on to the SKU of the same name behind `to-`."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.down: dict[str, SeckillError] = {}
        self.asked: list[str] = []
        self.begun: list[str] = []

    async def execute(self, command: Command) -> Answer:
        self.asked.append(command.aggregate_id)
        if (error := self.down.get(command.aggregate_id)) is not None:
            raise error
        return await self._engine.execute(command)

    async def react(self, sku: str, event: Event, send: Send) -> None:
        self.begun.append(event.command_id)
        if event.command_id == "bad":
            raise RuntimeError("I do not like it")
        await send(Reserve(send.id("on"), f"to-{sku}", "passed on"))

    def manager(self) -> ProcessManager:
        return ProcessManager("passing", "stock", (Reserved,), self.react)

    async def passed_on(self, sku: str) -> int:
        stock = await self._engine.stock(f"to-{sku}")
        assert stock is not None
        return stock.reserved


class Chain:
    """A manager whose commands go to other partitions; `names` are SKUs of one partition."""

    def __init__(self, engine: Engine, views: SqliteViews, names: list[str], own: str) -> None:
        self.engine, self.views, self.names, self.own = engine, views, names, own
        self.passing = Passing(engine)
        self.partition = partition_of(names[0], PARTITIONS)
        self.side = QuerySide(engine.reader, sale_registry(), {}, Feed(), HastyClock())

    def start(self) -> None:
        self.side.start_manager(
            self.passing.manager(), self.passing.execute, self.views, [self.partition]
        )

    async def order(self, sku: str, command_id: str) -> None:
        await self.engine.reserve(sku, buyer="ann", command_id=command_id)

    async def reasons(self) -> list[str]:
        found = await self.side.dead_letters("passing")
        return [each.reason for each in found if each.partition == self.partition]

    async def until_reasons(self, *wanted: str) -> None:
        while await self.reasons() != list(wanted):  # noqa: ASYNC110
            await asyncio.sleep(0)

    async def until_passed_on(self, sku: str, orders: int) -> None:
        while await self.passing.passed_on(sku) != orders:  # noqa: ASYNC110
            await asyncio.sleep(0)


PARTITIONS = 4


@asynccontextmanager
async def chain() -> AsyncIterator[Chain]:
    """Two SKUs of one partition that are passed on to others, and `own` that stays in it."""
    settings = load_settings(
        None, {**COMMAND_SIDE_KEYS, "store.url": "memory:", "store.partitions": PARTITIONS}, {}
    )
    candidates = [f"sku-{n}" for n in range(1_000)]
    home = partition_of(candidates[0], PARTITIONS)
    here = [each for each in candidates if partition_of(each, PARTITIONS) == home]
    away = [each for each in here if partition_of(f"to-{each}", PARTITIONS) != home]
    (own, *_) = (each for each in here if each not in away)
    views = await SqliteViews.open(":memory:")
    async with open_engine(settings) as engine:
        for sku in (*away[:2], own):
            for name in (sku, f"to-{sku}"):
                await engine.open_sale(name, stock=9)
        built = Chain(engine, views, away[:2], own)
        yield built
        await built.side.close()
    await views.close()


LOST = PartitionLost("nobody owns partition 3 now")
BUSY = Overloaded(9, 9, 0.1)


@pytest.mark.parametrize("error", [LOST, BUSY])
async def test_what_waits_for_another_partition_holds_nobody_up_and_goes_on_by_itself(
    error: SeckillError,
) -> None:
    async with chain() as here:
        stuck, well = here.names
        here.passing.down[f"to-{stuck}"] = error
        await here.order(stuck, "first")
        await here.order(stuck, "second")
        here.start()
        await here.order(well, "other")
        await here.until_passed_on(well, 1)
        await here.until_reasons(f"{WAITS}{error}", "")
        here.passing.down.clear()
        await here.until_reasons()
        assert await here.passing.passed_on(stuck) == 2
        # One after the other, and each once.
        await here.order(stuck, "third")
        await here.until_passed_on(stuck, 3)
        assert await here.passing.passed_on(well) == 1


async def test_what_its_own_partition_cannot_do_is_no_dead_letter() -> None:
    async with chain() as here:
        here.passing.down[f"to-{here.own}"] = LOST
        await here.order(here.own, "first")
        here.start()
        while len(here.passing.asked) < 5:  # noqa: ASYNC110
            await asyncio.sleep(0)
        assert await here.reasons() == []
        here.passing.down.clear()
        await here.until_passed_on(here.own, 1)


async def test_poison_is_not_reacted_to_again_because_others_wait() -> None:
    async with chain() as here:
        stuck, poison = here.names
        here.passing.down[f"to-{stuck}"] = LOST
        await here.order(stuck, "first")
        await here.order(poison, "bad")
        here.start()
        bad = repr(RuntimeError("I do not like it"))
        await here.until_reasons(f"{WAITS}{LOST}", bad)
        while here.passing.begun.count("first") < 5:  # noqa: ASYNC110
            await asyncio.sleep(0)
        assert here.passing.begun.count("bad") == 1
        here.passing.down.clear()
        await here.until_reasons(bad)
