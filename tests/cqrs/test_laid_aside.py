"""What a process manager lays aside waits for another partition, and holds nobody else up."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from itertools import pairwise

import pytest

from engine.clock import Timer
from engine.config import COMMAND_SIDE_KEYS, load_settings
from engine.cqrs.messages import Answer, Command, Event
from engine.cqrs.partitioning import partition_of
from engine.cqrs.process_manager import ProcessManager
from engine.cqrs.query_side.query_side import QuerySide
from engine.cqrs.query_side.read_model import WAITS
from engine.cqrs.query_side.subscription import Feed
from engine.cqrs.send import Send
from engine.engine import Engine
from engine.errors import (
    EngineClosed,
    Overloaded,
    PartitionLost,
    SeckillError,
    StoreUnavailable,
)
from engine.inventory.commands import STOCK_MAX, Reserve
from engine.inventory.events import Reserved
from engine.inventory.sale import sale_registry
from engine.runtime import open_engine
from engine.stores.sqlite_views import SqliteViews
from tests.cqrs.impatient_clock import ImpatientClock


class HastyClock(ImpatientClock):
    """Time goes on when somebody waits, and only then."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    def call_later(self, seconds: float, callback: functools.partial[None] | object) -> Timer:
        self.now += seconds
        return super().call_later(seconds, callback)

    async def sleep(self, seconds: float) -> None:
        self.now += seconds
        await asyncio.sleep(0)


class Passing:
    """Passes every order of a SKU on to its target. Those in `down` answer with an error."""

    def __init__(self, engine: Engine, targets: Mapping[str, str]) -> None:
        self._engine = engine
        self._targets = targets
        self.down: dict[str, SeckillError] = {}
        self.hanging = asyncio.Event()
        self.hanging.set()
        self.asked: list[str] = []
        self.begun: list[str] = []

    async def execute(self, command: Command) -> Answer:
        self.asked.append(command.aggregate_id)
        error = self.down.get(command.aggregate_id)
        if error is not None:
            await self.hanging.wait()
            raise error
        return await self._engine.execute(command)

    async def react(self, sku: str, event: Event, send: Send) -> None:
        self.begun.append(event.command_id)
        if event.command_id == "bad":
            raise RuntimeError("I do not like it")
        await send(Reserve(send.id("on"), self._targets[sku], "passed on"))

    def manager(self) -> ProcessManager:
        return ProcessManager("passing", "stock", (Reserved,), self.react)

    async def passed_on(self, sku: str) -> int:
        stock = await self._engine.stock(self._targets[sku])
        assert stock is not None
        return stock.reserved


class Chain:
    """A manager over the three SKUs of one partition, of which `own` is passed on within it."""

    def __init__(
        self, engine: Engine, views: SqliteViews, targets: Mapping[str, str], partition: int
    ) -> None:
        self.engine, self.views, self.targets, self.partition = engine, views, targets, partition
        *self.names, self.own = targets
        self.passing = Passing(engine, targets)
        self.clock = HastyClock()
        self.side = QuerySide(engine.reader, sale_registry(), {}, Feed(), self.clock)

    def start(self) -> None:
        self.side.start_manager(
            self.passing.manager(), self.passing.execute, self.views, [self.partition]
        )

    def down(self, sku: str, error: SeckillError) -> None:
        """Have the target of a SKU answer with an error."""
        self.passing.down[self.targets[sku]] = error

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


def _names_in(partition: int) -> list[str]:
    return [f"s-{n}" for n in range(100) if partition_of(f"s-{n}", PARTITIONS) == partition]


@asynccontextmanager
async def chain() -> AsyncIterator[Chain]:
    """Two SKUs of one partition that are passed on to two others, and `own` that stays in it."""
    settings = load_settings(
        None, {**COMMAND_SIDE_KEYS, "store.url": "memory:", "store.partitions": PARTITIONS}, {}
    )
    home = 3
    first, second, own = _names_in(home)[:3]
    targets = {first: _names_in(1)[0], second: _names_in(2)[0], own: _names_in(home)[3]}
    views = await SqliteViews.open(":memory:")
    async with open_engine(settings) as engine:
        for name in (*targets, *targets.values()):
            await engine.open_sale(name, stock=STOCK_MAX)
        built = Chain(engine, views, targets, home)
        yield built
        await built.side.close()
    await views.close()


LOST = PartitionLost("nobody owns partition 3 now")
BUSY = Overloaded(9, 9, 0.1)
STOPPED = EngineClosed("the partition stopped")
BAD = repr(RuntimeError("I do not like it"))


async def lay_both_aside(here: Chain) -> list[str]:
    """Have an order wait and one be poison; returns their SKUs."""
    stuck, poison = here.names
    here.down(stuck, LOST)
    await here.order(stuck, "first")
    await here.order(poison, "bad")
    here.start()
    await here.until_reasons(f"{WAITS}{LOST}", BAD)
    return here.names


@pytest.mark.parametrize("error", [LOST, BUSY, STOPPED])
async def test_what_waits_for_another_partition_holds_nobody_up_and_goes_on_by_itself(
    error: SeckillError,
) -> None:
    async with chain() as here:
        stuck, well = here.names
        here.down(stuck, error)
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
        here.down(here.own, LOST)
        await here.order(here.own, "first")
        here.start()
        while len(here.passing.asked) < 5:  # noqa: ASYNC110
            await asyncio.sleep(0)
        assert await here.reasons() == []
        here.passing.down.clear()
        await here.until_passed_on(here.own, 1)


async def test_poison_is_not_reacted_to_again_because_others_wait() -> None:
    async with chain() as here:
        await lay_both_aside(here)
        while here.passing.begun.count("first") < 5:  # noqa: ASYNC110
            await asyncio.sleep(0)
        assert here.passing.begun.count("bad") == 1
        here.passing.down.clear()
        await here.until_reasons(BAD)


async def test_what_waits_is_not_skipped_with_the_poison() -> None:
    async with chain() as here:
        stuck, _ = await lay_both_aside(here)
        await here.side.retry("passing", skip=True)
        await here.until_reasons(f"{WAITS}{LOST}")
        here.passing.down.clear()
        await here.until_passed_on(stuck, 1)


async def test_a_partition_that_does_not_answer_keeps_no_other_from_being_skipped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with chain() as here:
        await lay_both_aside(here)
        progress = here.views.progress

        async def away(name: str, generation: int, partition: int) -> object:
            if partition < here.partition:
                raise StoreUnavailable("its database is down")
            return await progress(name, generation, partition)

        monkeypatch.setattr(here.views, "progress", away)
        with pytest.raises(StoreUnavailable, match="is down"):
            await here.side.retry("passing", skip=True)
        await here.until_reasons(f"{WAITS}{LOST}")


async def test_the_stream_of_a_poison_stays_where_it_is_when_others_go_on() -> None:
    async with chain() as here:
        _, poison = await lay_both_aside(here)
        here.passing.down.clear()
        await here.until_reasons(BAD)
        await here.order(poison, "behind")
        await here.until_reasons(BAD, "")
        assert "behind" not in here.passing.begun


async def test_a_look_at_what_waits_holds_nobody_up() -> None:
    async with chain() as here:
        stuck, well = here.names
        here.down(stuck, LOST)
        await here.order(stuck, "first")
        here.start()
        await here.until_reasons(f"{WAITS}{LOST}")
        here.passing.hanging.clear()
        asked = len(here.passing.asked)
        while len(here.passing.asked) == asked:  # noqa: ASYNC110
            await asyncio.sleep(0)
        # The probe hangs. Others go on, and who comes for the same stream stands behind.
        await here.order(well, "other")
        await here.until_passed_on(well, 1)
        await here.order(stuck, "second")
        await here.until_reasons(f"{WAITS}{LOST}", "")
        here.passing.down.clear()
        here.passing.hanging.set()
        await here.until_passed_on(stuck, 2)
        await here.until_reasons()
        assert here.passing.begun[-2:] == ["first", "second"]


async def test_looks_become_rarer_while_nothing_goes_on_and_frequent_again() -> None:
    async with chain() as here:
        stuck, _ = here.names
        for name in ("first", "second"):
            here.down(stuck, LOST)
            probes: list[float] = []
            await here.order(stuck, name)
            if name == "first":
                here.start()
            while len(probes) < 8:
                asked = len(here.passing.asked)
                while len(here.passing.asked) == asked:  # noqa: ASYNC110
                    await asyncio.sleep(0)
                probes.append(here.clock.now)
            pauses = [later - earlier for earlier, later in pairwise(probes)]
            # It looks whenever it has waited for commits, which is once a second.
            for pause, least in zip(pauses, (1, 2, 4, 8, 15, 15, 15), strict=True):
                assert least <= pause <= least + 3
            here.passing.down.clear()
            await here.until_reasons()
