"""The whole-engine runs behind the budgets. Each checks its own answer and returns a figure."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from engine.config import load_settings
from engine.cqrs.event_store import Lease, StoreInfo
from engine.inventory.audit import audit
from engine.inventory.commands import Reserve
from engine.inventory.events import Reserved
from engine.runtime import Engine, open_engine
from engine.testing.bare_store import BareCommits, open_bare_store, ready_commits

BUYERS: Final = 2_000
LIST_SIZE: Final = 8_190
STOCK: Final = 1_000_000_000

AUDITED_ORDERS_MAX: Final = 2_000_000
"""Larger stores are checked by their stock row only; a full replay would take minutes."""


class WrongAnswer(Exception):
    """A benchmark found that what it measured was not right."""


@asynccontextmanager
async def hot_sale(path: Path, limit_per_buyer: int) -> AsyncIterator[Engine]:
    """An engine with one SKU on sale, in a new or an existing store."""
    settings = load_settings(
        environ={},
        overrides={
            "store.url": f"sqlite:{path}",
            # Every figure is of the events; a snapshot would answer for some of them.
            "residents.snapshot_events_min": 0,
        },
    )
    async with open_engine(settings) as engine:
        await engine.open_sale(
            "HOT", stock=STOCK, limit_per_buyer=limit_per_buyer, command_id="open"
        )
        yield engine


async def individual(path: Path, orders: int, limit_per_buyer: int) -> float:
    """Durable orders/s of BUYERS tasks that each await their own order, one after the other."""
    async with hot_sale(path, limit_per_buyer) as engine:
        numbers = iter(range(orders))

        async def buyer() -> None:
            for n in numbers:
                await engine.reserve("HOT", buyer=f"buyer-{n}", command_id=f"7-{n:x}")

        began = time.perf_counter()
        await asyncio.gather(*(buyer() for _ in range(BUYERS)))
        seconds = time.perf_counter() - began
        await _check(engine, orders)
    return orders / seconds


async def lists(path: Path, orders: int, limit_per_buyer: int, *, prefix: str = "8") -> float:
    """Durable orders/s of orders handed over in lists, three lists under way."""
    batches = [
        [
            Reserve(f"{prefix}-{n:x}", "HOT", f"buyer-{n}", 1)
            for n in range(first, first + LIST_SIZE)
        ]
        for first in range(0, orders, LIST_SIZE)
    ]
    async with hot_sale(path, limit_per_buyer) as engine:
        row = await engine.stock("HOT")
        before = row.reserved if row else 0
        # The first list replays a store that has a history, which another figure measures.
        await _send(engine, iter(batches[:1]))
        began = time.perf_counter()
        remaining = iter(batches[1:])
        await asyncio.gather(*(_send(engine, remaining) for _ in range(3)))
        seconds = time.perf_counter() - began
        sold = len(batches) * LIST_SIZE
        await _check(engine, before + sold, full=before == 0 and sold < AUDITED_ORDERS_MAX)
    return (sold - LIST_SIZE) / seconds


async def _send(engine: Engine, batches: Iterator[Sequence[Reserve]]) -> None:
    for batch in batches:
        outcomes = await engine.reserve_many(batch)
        if not all(type(each) is Reserved for each in outcomes):
            raise WrongAnswer("an order of a list was not accepted")


async def _check(engine: Engine, reserved: int, *, full: bool = True) -> None:
    """By a full audit, or by the stock row where replaying the history would take minutes."""
    row = await engine.stock("HOT")
    if row is None or row.reserved != reserved or row.available != STOCK - reserved:
        raise WrongAnswer(f"{reserved:,} orders were answered, the stock row says {row}")
    if full:
        report = await audit(engine.reader)
        if not report.ok:
            raise WrongAnswer(f"the audit failed: {report.checks}")


async def bare_store(path: Path, batches: int) -> float:
    """Orders/s of the store alone, fed with ready batches: the ceiling of every engine run."""
    commits = ready_commits(batches, LIST_SIZE)
    store = await open_bare_store(path)
    lease = await store.acquire(0)
    await store.append(lease, commits[:1])
    began = time.perf_counter()
    for position, commit in enumerate(commits[1:], 1):
        await store.append(Lease(0, lease.epoch, position), [commit])
    seconds = time.perf_counter() - began
    (info,) = await store.read_streams()
    await store.close()
    if info.version != 1 + batches * LIST_SIZE:
        raise WrongAnswer(f"the bare store holds {info.version:,} events")
    return batches * LIST_SIZE / seconds


async def bare_loop(orders: int) -> float:
    """Answers/s of an event loop alone: BUYERS tasks wait for futures resolved in batches."""
    loop = asyncio.get_running_loop()
    waiting: list[asyncio.Future[int]] = []
    numbers = iter(range(orders))
    wake = asyncio.Event()
    answered = 0

    async def buyer() -> None:
        for _ in numbers:
            future = loop.create_future()
            waiting.append(future)
            wake.set()
            await future

    async def answer() -> None:
        nonlocal answered
        while answered < orders:
            await wake.wait()
            wake.clear()
            batch = waiting[:]
            waiting.clear()
            answered += len(batch)
            for future in batch:
                future.set_result(1)

    began = time.perf_counter()
    await asyncio.gather(answer(), *(buyer() for _ in range(BUYERS)))
    return orders / (time.perf_counter() - began)


async def lonely(path: Path, orders: int) -> tuple[float, float]:
    """Median milliseconds of one order alone, and of a bare commit on the same disk in turn."""
    bare = BareCommits(path.with_suffix(".bare"))
    ours: list[float] = []
    theirs: list[float] = []
    async with hot_sale(path, 0) as engine:
        for n in range(orders):
            began = time.perf_counter()
            await engine.reserve("HOT", buyer="alone", command_id=f"l-{n}")
            middle = time.perf_counter()
            bare.commit()
            ours.append(middle - began)
            theirs.append(time.perf_counter() - middle)
        await _check(engine, orders)
    bare.close()
    return statistics.median(ours) * 1_000, statistics.median(theirs) * 1_000


async def replay(path: Path, events: int) -> float:
    """Events/s from opening a store to the first answer. The store must hold `events` orders."""
    began = time.perf_counter()
    async with hot_sale(path, 2) as engine:
        await engine.reserve("HOT", buyer="late", command_id="late")
        seconds = time.perf_counter() - began
        row = await engine.stock("HOT")
        if row is None or row.reserved != events + 1:
            raise WrongAnswer(f"{events:,} events were replayed to {row}")
    return events / seconds


async def resident_bytes(path: Path, orders: int, *, uuid_ids: bool) -> float:
    """Growth of this process's resident memory per accepted order. Run it in a fresh process."""
    async with hot_sale(path, 2) as engine:
        await _send(engine, iter([[_order(0, uuid_ids=uuid_ids)]]))
        before = _resident()
        for first in range(1, orders, LIST_SIZE):
            last = min(first + LIST_SIZE, orders)
            await _send(engine, iter([[_order(n, uuid_ids=uuid_ids) for n in range(first, last)]]))
        grown = _resident() - before
        await _check(engine, orders, full=False)
    return grown / (orders - 1)


def _order(n: int, *, uuid_ids: bool) -> Reserve:
    command_id = f"{n:08x}-0000-4000-8000-000000000000" if uuid_ids else f"7-{n:x}"
    return Reserve(command_id, "HOT", f"buyer-{n}", 1)


def _resident() -> int:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * 4_096


async def store_info(path: Path) -> StoreInfo:
    """What the benchmarks ran on."""
    async with hot_sale(path, 0) as engine:
        return engine.info
