"""`python -m loadtest.bench_cluster.caller`: an engine as a process of its own, which orders what it is told.

It reads lines of JSON, first the overrides of its settings, then one Task after the other, and answers
each with a line of its own: null once it takes orders, then a Load for each Task. It closes its engine
when there is no more to read, also because whoever started it was killed.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any, Final, Literal, TypeAlias

import msgspec

from engine.config import load_settings
from engine.engine import Engine
from engine.event_loop import run_async
from engine.inventory.commands import STOCK_MAX, Reserve
from engine.inventory.events import Reserved
from engine.runtime import open_engine, tune_garbage_collector
from loadtest.latency import LatencyRecorder

READY_SECONDS_MAX: Final = 60.0
LOOK_SECONDS: Final = 0.05

clock = time.perf_counter

Kind: TypeAlias = Literal["callers", "lists", "paced"]


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """Orders of new SKUs, named by `name` and a number, which are put on sale before the clock starts.

    callers  `at_once` callers, each awaiting its own order before the next one, for `seconds`
    lists    `orders` in lists of `size`, all made before the clock starts, `at_once` lists under way
    paced    `per_second` orders for `seconds`, in lists of `size` or, with 0, one by one
    """

    kind: Kind
    name: str
    skus: int = 1
    at_once: int = 1
    orders: int = 0
    size: int = 0
    per_second: int = 0
    seconds: float = 0


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """Orders that were accepted, all of a Task's, and milliseconds until an order or list was answered."""

    orders: int
    seconds: float
    p50_ms: float
    p99_ms: float

    @property
    def per_second(self) -> float:
        return self.orders / self.seconds


class Refused(Exception):
    """An order was not accepted although there was stock."""


class Caller:
    """Carries out one task."""

    def __init__(self, engine: Engine, task: Task) -> None:
        self._engine = engine
        self._task = task
        self._skus = [f"{task.name}-{number}" for number in range(task.skus)]
        self._latency = LatencyRecorder()
        self._orders = 0
        self._until = 0.0

    async def run(self) -> Load:
        """Raises Refused, SeckillError."""
        task = self._task
        for sku in self._skus:
            await self._engine.open_sale(sku, stock=STOCK_MAX, command_id=f"open-{sku}")
        count = task.orders // task.size if task.kind == "lists" else 0
        ready = iter([self._orders_of(f"{task.name}-{number}") for number in range(count)])
        began = clock()
        self._until = began + task.seconds
        if task.kind == "paced":
            await self._pace(began)
        elif task.kind == "lists":
            await asyncio.gather(*(self._lists(ready) for _ in range(task.at_once)))
        else:
            await asyncio.gather(*(self._singles(number) for number in range(task.at_once)))
        seconds = clock() - began
        p50, p99 = self._latency.percentiles_ms((50, 99))
        return Load(orders=self._orders, seconds=seconds, p50_ms=p50, p99_ms=p99)

    async def _singles(self, caller: int) -> None:
        sku = self._skus[caller % len(self._skus)]
        number = 0
        while clock() < self._until:
            await self._single(sku, f"{sku}-{caller}-{number}")
            number += 1

    async def _lists(self, ready: Iterator[Sequence[Reserve]]) -> None:
        for orders in ready:
            await self._list(orders)

    async def _pace(self, began: float) -> None:
        """Send what is due, whatever becomes of what was sent before."""
        task = self._task
        each = task.size or 1
        under_way: set[asyncio.Task[None]] = set()
        for number in range(int(task.per_second * task.seconds) // each):
            due = began + number * each / task.per_second
            # Also when it is late: answers have their turn between two orders.
            await asyncio.sleep(max(0.0, due - clock()))
            name = f"{task.name}-p-{number}"
            sku = self._skus[number % len(self._skus)]
            work = self._list(self._orders_of(name)) if task.size else self._single(sku, name)
            sent = asyncio.create_task(work)
            under_way.add(sent)
            sent.add_done_callback(under_way.discard)
        await asyncio.gather(*under_way)

    async def _single(self, sku: str, name: str) -> None:
        began = clock()
        outcome = await self._engine.reserve(sku, buyer=name, command_id=name)
        self._latency.record(clock() - began)
        if type(outcome) is not Reserved:
            raise Refused(f"{outcome}")
        self._orders += 1

    async def _list(self, orders: Sequence[Reserve]) -> None:
        began = clock()
        outcomes = await self._engine.reserve_many(orders)
        self._latency.record(clock() - began)
        if not all(type(each) is Reserved for each in outcomes):
            raise Refused(f"{next(each for each in outcomes if type(each) is not Reserved)}")
        self._orders += len(orders)

    def _orders_of(self, name: str) -> list[Reserve]:
        skus, size = self._skus, self._task.size
        # One SKU after the other, as a shop's queue would be worked off.
        share = -(-size // len(skus))
        return [Reserve(f"{name}-{n}", skus[n // share], f"b-{n}") for n in range(size)]


async def serve(lines: AsyncIterator[bytes], answer: Callable[[Load | None], None]) -> None:
    """Open an engine and carry out what is read."""
    overrides: dict[str, Any] = msgspec.json.decode(await anext(lines))
    overrides = {k: tuple(v) if isinstance(v, list) else v for k, v in overrides.items()}
    async with open_engine(load_settings(environ={}, overrides=overrides)) as engine:
        # An engine alone orders nothing; somebody else is asked whether its partitions are served.
        if overrides.get("cluster.role") != "engine":
            await _wait_until_served(engine)
        answer(None)
        async for line in lines:
            answer(await Caller(engine, msgspec.json.decode(line, type=Task)).run())


async def _wait_until_served(engine: Engine) -> None:
    until = clock() + READY_SECONDS_MAX
    while stopped := engine.stopped():
        if clock() >= until:
            raise stopped[0]
        await asyncio.sleep(LOOK_SECONDS)


async def _lines() -> AsyncIterator[bytes]:
    while line := await asyncio.to_thread(sys.stdin.buffer.readline):
        yield line


def _answer(found: Load | None) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(found) + b"\n")
    sys.stdout.buffer.flush()


def main() -> None:
    tune_garbage_collector()
    run_async(serve(_lines(), _answer))


if __name__ == "__main__":
    main()
