"""The whole-engine runs behind the budgets. Each checks its own answer and returns a figure."""

from __future__ import annotations

import asyncio
import os
import statistics
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

from engine.config import COMMAND_SIDE_KEYS, load_settings
from engine.cqrs.event_store import StoreInfo
from engine.engine import Engine
from engine.inventory.audit import audit
from engine.inventory.commands import Reserve
from engine.inventory.events import Reserved
from engine.runtime import open_engine, open_reader
from engine.testing.bare_store import BareCommits
from loadtest.bench.ceilings import BUYERS, LIST_SIZE
from loadtest.wrong import WrongAnswer

STOCK: Final = 1_000_000_000
LISTS_UNDER_WAY: Final = 3
REPLAY_DEADLINE_MS: Final = 600_000

READY_LISTS: Final = 250
"""Lists made before the clock starts; two million orders are a quarter of a GiB."""

AUDITED_ORDERS_MAX: Final = 2_000_000
"""Larger stores are checked by their stock row only; a full replay would take minutes."""


class Audited:
    """Counts the events that the audits of one run replayed."""

    def __init__(self) -> None:
        self.events = 0


@asynccontextmanager
async def hot_sale(
    path: Path, limit_per_buyer: int, *, snapshots: bool = True
) -> AsyncIterator[Engine]:
    """An engine with one SKU on sale, in a new or an existing store, with default settings.

    Without `snapshots` it writes none. The deadline alone is longer: the first order of a store
    waits until its history is replayed.
    """
    overrides: dict[str, Any] = {
        **COMMAND_SIDE_KEYS,
        "store.url": f"sqlite:{path}",
        "queue.deadline_ms": REPLAY_DEADLINE_MS,
    }
    if not snapshots:
        overrides["residents.snapshot_events_min"] = 0
    async with open_engine(load_settings(environ={}, overrides=overrides)) as engine:
        await engine.open_sale(
            "HOT", stock=STOCK, limit_per_buyer=limit_per_buyer, command_id="open"
        )
        yield engine


async def individual(path: Path, orders: int, limit_per_buyer: int, audited: Audited) -> float:
    """Durable orders/s of BUYERS tasks that each await their own order, one after the other."""
    async with hot_sale(path, limit_per_buyer) as engine:
        numbers = iter(range(orders))
        refused = 0

        async def buyer() -> None:
            nonlocal refused
            for n in numbers:
                outcome = await engine.reserve("HOT", buyer=f"buyer-{n}", command_id=f"7-{n:x}")
                if type(outcome) is not Reserved:
                    refused += 1

        began = time.perf_counter()
        await asyncio.gather(*(buyer() for _ in range(BUYERS)))
        seconds = time.perf_counter() - began
        if refused:
            raise WrongAnswer(f"{refused:,} orders were refused with stock left")
        await _check(engine, orders, audited)
    return orders / seconds


async def lists(
    path: Path,
    orders: int,
    limit_per_buyer: int,
    audited: Audited | None = None,
    *,
    prefix: str = "8",
    snapshots: bool = True,
) -> float:
    """Durable orders/s of orders handed over in lists, LISTS_UNDER_WAY of them at a time.

    The first list is not timed; a run of one list returns 0. `audited` asks for the audit; without
    it the stock row is checked.
    """
    # Orders are made list by list: 10 million of them would not fit beside the engine.
    count = -(-orders // LIST_SIZE)
    async with hot_sale(path, limit_per_buyer, snapshots=snapshots) as engine:
        row = await engine.stock("HOT")
        before = row.reserved if row else 0
        # The first list replays a store that has a history, which another figure measures.
        await _send(engine, _batches(prefix, 0, 1))
        seconds = 0.0
        for first in range(1, count, READY_LISTS):
            ready = list(_batches(prefix, first, min(first + READY_LISTS, count)))
            began = time.perf_counter()
            remaining = iter(ready)
            await asyncio.gather(*(_send(engine, remaining) for _ in range(LISTS_UNDER_WAY)))
            seconds += time.perf_counter() - began
        await _check(engine, before + count * LIST_SIZE, audited)
    return (count - 1) * LIST_SIZE / seconds if seconds else 0.0


def _batches(prefix: str, first: int, last: int) -> Iterator[list[Reserve]]:
    for start in range(first * LIST_SIZE, last * LIST_SIZE, LIST_SIZE):
        yield [
            Reserve(f"{prefix}-{n:x}", "HOT", f"buyer-{n}", 1)
            for n in range(start, start + LIST_SIZE)
        ]


async def _send(engine: Engine, batches: Iterator[Sequence[Reserve]]) -> None:
    for batch in batches:
        outcomes = await engine.reserve_many(batch)
        if not all(type(each) is Reserved for each in outcomes):
            raise WrongAnswer("an order of a list was not accepted")


async def _check(engine: Engine, reserved: int, audited: Audited | None) -> None:
    """By the stock row, and by a full audit unless replaying the history would take minutes."""
    row = await engine.stock("HOT")
    if row is None or row.reserved != reserved or row.available != STOCK - reserved:
        raise WrongAnswer(f"{reserved:,} orders were answered, the stock row says {row}")
    if audited is None or reserved > AUDITED_ORDERS_MAX:
        return
    report = await audit(engine.reader)
    if not report.ok:
        raise WrongAnswer(f"the audit failed: {[each for each in report.checks if not each.ok]}")
    audited.events += report.checked_events


async def lonely(path: Path, orders: int, audited: Audited) -> tuple[float, float]:
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
        await _check(engine, orders, audited)
    bare.close()
    return statistics.median(ours) * 1_000, statistics.median(theirs) * 1_000


async def replay(path: Path, events: int) -> float:
    """Events/s from opening a store that `lists` filled with `events` orders to the first answer.

    It uses the newest snapshot of the store, if there is one.
    """
    began = time.perf_counter()
    async with hot_sale(path, 2) as engine:
        await engine.reserve("HOT", buyer="late", command_id="late")
        seconds = time.perf_counter() - began
        # Repeats are answered from what was replayed; one that was forgotten would sell again.
        for n in (0, events - 1):
            await engine.reserve("HOT", buyer=f"buyer-{n}", command_id=f"8-{n:x}")
        row = await engine.stock("HOT")
        if row is None or row.reserved != events + 1 or row.version != events + 2:
            raise WrongAnswer(f"{events:,} events were replayed to {row}")
    return events / seconds


async def snapshot_version(path: Path) -> int:
    """The version of the newest snapshot of a store, 0 for none."""
    reader = await open_reader(f"sqlite:{path}")
    snapshot = await reader.load_snapshot(("stock", "HOT"))
    await reader.close()
    return snapshot.version if snapshot else 0


async def resident_bytes(path: Path, orders: int, *, uuid_ids: bool, snapshots: bool) -> float:
    """Growth of this process's resident memory per accepted order. Run it in a fresh process."""
    async with hot_sale(path, 2, snapshots=snapshots) as engine:
        await _send(engine, iter([[_order(0, uuid_ids=uuid_ids)]]))
        before = _resident()
        for first in range(1, orders, LIST_SIZE):
            last = min(first + LIST_SIZE, orders)
            await _send(engine, iter([[_order(n, uuid_ids=uuid_ids) for n in range(first, last)]]))
        # A snapshot that the last batch made due is written before the next order is served.
        await _send(engine, iter([[_order(orders, uuid_ids=uuid_ids)]]))
        grown = _resident() - before
        await _check(engine, orders + 1, None)
    return grown / orders


def _order(n: int, *, uuid_ids: bool) -> Reserve:
    command_id = f"{n:08x}-0000-4000-8000-000000000000" if uuid_ids else f"7-{n:x}"
    return Reserve(command_id, "HOT", f"buyer-{n}", 1)


def _resident() -> int:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


async def store_info(path: Path) -> StoreInfo:
    """What the benchmarks ran on."""
    async with hot_sale(path, 0) as engine:
        return engine.info
