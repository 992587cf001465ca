"""A long history, in processes of their own: `python -m loadtest.bench.start TASK STORE NUMBER NAME`.

fill    sells NUMBER orders: of one SKU (NAME one or limited), or of SKUS_COUNT (NAME many)
start   opens the store, sells one order of HOT and prints time.monotonic() at its answer and its
        memory in MiB; NUMBER orders are in the store, of which it repeats three
sell    sells NUMBER orders of HOT in lists and prints orders/s; NAME is new with each run
crash   sells NUMBER orders of HOT and dies without closing
"""

from __future__ import annotations

import asyncio
import os
import resource
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np
import typer

from engine.errors import CommandIdReused
from engine.event_loop import run_async
from engine.inventory.commands import Reserve
from engine.inventory.events import Reserved
from engine.runtime import tune_garbage_collector
from loadtest.bench.ceilings import LIST_SIZE
from loadtest.bench.runs import LISTS_UNDER_WAY, READY_LISTS, STOCK, hot_sale
from loadtest.wrong import WrongAnswer

SKUS_COUNT: Final = 1_000
ZIPF_EXPONENT: Final = 0.9
"""Of a thousand SKUs the hottest then gets a tenth of all orders."""

FIRST: Final = "first"


def _order(name: str, n: int, sku: str = "HOT") -> Reserve:
    # 36 characters, a little longer than the ids the engine draws.
    return Reserve(f"{name[:4]:0>4}{n:032x}", sku, f"buyer-{n}", 1)


def _orders(name: str, first: int, last: int) -> Iterator[list[Reserve]]:
    for start in range(first, last, LIST_SIZE):
        yield [_order(name, n) for n in range(start, min(start + LIST_SIZE, last))]


def _mixed(orders: int) -> Iterator[list[Reserve]]:
    """Lists over all SKUs; HOT is the most popular one. The first ones are orders of HOT."""
    weights = np.arange(1, SKUS_COUNT + 1, dtype=float) ** -ZIPF_EXPONENT
    drawn = np.random.default_rng(1)
    names = ["HOT", *(f"SKU-{n}" for n in range(1, SKUS_COUNT))]
    for start in range(0, orders, LIST_SIZE):
        count = min(LIST_SIZE, orders - start)
        places = drawn.choice(SKUS_COUNT, count, p=weights / weights.sum())
        if not start:
            places[0] = 0
        yield [_order(FIRST, start + k, names[place]) for k, place in enumerate(places.tolist())]


async def fill(path: Path, orders: int, kind: str) -> None:
    """Sell `orders` and close."""
    async with hot_sale(path, 2 if kind == "limited" else 0) as engine:
        if kind == "many":
            for n in range(1, SKUS_COUNT):
                await engine.open_sale(f"SKU-{n}", stock=STOCK, command_id="open")
        waiting = _mixed(orders) if kind == "many" else _orders(FIRST, 0, orders)

        async def send() -> None:
            for batch in waiting:
                outcomes = await engine.reserve_many(batch)
                if not all(type(each) is Reserved for each in outcomes):
                    raise WrongAnswer("an order was not accepted")

        await asyncio.gather(*(send() for _ in range(LISTS_UNDER_WAY)))


async def start(path: Path, orders: int, name: str) -> str:
    """When the first order is answered, and how much memory was needed; then check old ids."""
    kind, name = name.split("-")
    async with hot_sale(path, 2 if kind == "limited" else 0) as engine:
        await engine.reserve("HOT", buyer="late", command_id=f"late-{name}")
        answered = time.monotonic()
        mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1_024
        for n in (0,) if kind == "many" else (0, orders // 2, orders - 1):
            old = _order(FIRST, n)
            again = await engine.reserve("HOT", buyer=old.buyer, command_id=old.id)
            if not isinstance(again, Reserved) or again.buyer != old.buyer:
                raise WrongAnswer(f"order {n:,} was answered anew: {again}")
            try:
                await engine.reserve("HOT", buyer="thief", command_id=old.id)
            except CommandIdReused:
                continue
            raise WrongAnswer(f"the id of order {n:,} was taken for another one's")
        row = await engine.stock("HOT")
        if row is None or row.version != row.reserved + 1:
            raise WrongAnswer(f"an order was sold twice: {row}")
    return f"{answered} {mib}"


async def sell(path: Path, orders: int, name: str, *, crash: bool = False) -> float:
    """Durable orders/s of HOT in lists, of which the first is not timed."""
    async with hot_sale(path, 0) as engine:
        await engine.reserve_many([_order(name, orders + n) for n in range(LIST_SIZE)])
        seconds = 0.0
        for first in range(0, orders, READY_LISTS * LIST_SIZE):
            ready = iter(list(_orders(name, first, min(first + READY_LISTS * LIST_SIZE, orders))))

            async def send(waiting: Iterator[list[Reserve]] = ready) -> None:
                for batch in waiting:
                    outcomes = await engine.reserve_many(batch)
                    if not all(type(each) is Reserved for each in outcomes):
                        raise WrongAnswer("an order of a list was not accepted")

            began = time.perf_counter()
            await asyncio.gather(*(send() for _ in range(LISTS_UNDER_WAY)))
            seconds += time.perf_counter() - began
        if crash:
            os._exit(0)
    return orders / seconds


def main() -> None:
    """Run one task and print its figure."""
    task, store, number, name = sys.argv[1:]
    path, count = Path(store), int(number)
    tune_garbage_collector()
    match task:
        case "fill":
            run_async(fill(path, count, name))
        case "start":
            typer.echo(run_async(start(path, count, name)))
        case "sell":
            typer.echo(run_async(sell(path, count, name)))
        case "crash":
            run_async(sell(path, count, name, crash=True))


if __name__ == "__main__":
    main()
