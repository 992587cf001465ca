"""What the machine can do without the engine: the ceilings beside the figures."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Final

from engine.cqrs.codec import Codec
from engine.cqrs.event_store import Lease
from engine.inventory.stock import STOCK
from engine.runtime import open_reader
from engine.testing.bare_store import open_bare_store, ready_commits
from loadtest.wrong import WrongAnswer

BUYERS: Final = 2_000
LIST_SIZE: Final = 8_190
READ_PAGE_COMMITS: Final = 16


async def bare_store(path: Path, batches: int) -> float:
    """Orders/s of the store alone, fed with encoded batches of LIST_SIZE orders."""
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


async def bare_read(path: Path) -> float:
    """Events/s of reading and decoding a store of one partition, with nothing made of them."""
    codec = Codec(STOCK.events)
    began = time.perf_counter()
    reader = await open_reader(f"sqlite:{path}")
    position = events = 0
    while page := await reader.read_partition(0, position, READ_PAGE_COMMITS):
        events += sum(len(codec.decode(commit)) for commit in page)
        position = page[-1].position
    seconds = time.perf_counter() - began
    (info,) = await reader.read_streams()
    await reader.close()
    if info.version != events:
        raise WrongAnswer(f"{events:,} of {info.version:,} events were read")
    return events / seconds
