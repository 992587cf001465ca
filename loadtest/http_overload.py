"""Ten times what the server can take: how much of its peak is left, and how soon it is itself again.

    peak      closed loop, as fast as it answers
    normal    a fifth of the peak, open loop: what latency is normal here
    overload  ten times the peak, open loop, with a deadline; of single orders ten times the connections
    after     normal again
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from time import perf_counter as clock
from typing import AsyncIterator, Final

import msgspec
import numpy as np

from loadtest.bench_http_runs import DEFAULTS, OVERRIDES
from loadtest.bench_runs import Audited
from loadtest.http_load import (
    DEFINITE,
    Generator,
    Load,
    Request,
    Sample,
    list_requests,
    order_requests,
    windows,
)
from loadtest.http_processes import HttpServer, check_store, order_server

LISTS: Final = "lists"
SINGLES: Final = "single orders"
LIST_SIZE: Final = 500
TIMES: Final = 10
NORMAL_SHARE: Final = 0.2
DEADLINE_MS: Final = 1_000
WINDOW_SECONDS: Final = 0.5

CONNECTIONS: Final = {LISTS: (8, 1_024), SINGLES: (256, 256 * TIMES)}
"""At the peak and in overload. Of lists the latter bounds how many are under way at once: beyond it a
list is not even sent, as with a proxy in front of the server."""

NORMAL_FACTOR: Final = 2.0
NORMAL_SLACK_MS: Final = 10.0
"""Latency is normal again at twice what the slowest window before the overload had; a shared machine
adds some milliseconds for reasons of its own."""


class Plan(msgspec.Struct, frozen=True):
    """How long each phase lasts."""

    peak_seconds: float = 5
    normal_seconds: float = 5
    overload_seconds: float = 30
    after_seconds: float = 15


class Window(msgspec.Struct, frozen=True):
    """Half a second by when its orders were due: what became of them, and the server's memory."""

    at_seconds: float
    phase: str
    in_time_per_s: float
    others_per_s: float
    p50_ms: float | None
    p95_ms: float | None
    resident_mib: float


class Overload(msgspec.Struct, frozen=True, kw_only=True):
    """What an overload did. Rates are orders/s; `answers` those of the overload by status."""

    kind: str
    plan: Plan
    peak_per_s: float
    offered_per_s: float
    goodput_per_s: float
    normal_p95_ms: float
    seconds_until_normal: float | None
    answers: dict[str, int]
    accepted_bytes_each: float
    """Memory an accepted order took at the peak: an engine keeps the ids of all of them."""
    excess_mib_max: float
    """The most memory in and after the overload beyond what the accepted orders take."""
    resident_mib_before: float
    resident_mib_max: float
    resident_mib_after: float
    windows: list[Window]


class _Memory:
    """The server's resident memory by time, looked at twice a second."""

    def __init__(self, server: HttpServer) -> None:
        self._server = server
        self.seen: list[tuple[float, float]] = []

    @asynccontextmanager
    async def watched(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self._watch())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def now(self) -> float:
        self.seen.append((clock(), self._server.resident_mib()))
        return self.seen[-1][1]

    def at(self, when: float) -> float:
        return min(self.seen, key=lambda each: abs(each[0] - when))[1]

    async def _watch(self) -> None:
        while True:
            self.now()
            await asyncio.sleep(WINDOW_SECONDS / 2)


async def overload(directory: Path, kind: str, plan: Plan, audited: Audited) -> Overload:
    """Run the phases against a server with default settings. Raises WrongAnswer, OSError."""
    few, many = CONNECTIONS[kind]
    with order_server(directory, OVERRIDES[DEFAULTS]) as server:
        await server.open_sale()
        memory, generator = _Memory(server), Generator(server.public)
        async with memory.watched():
            loads = await _phases(generator, kind, plan, memory, few, many)
        generator.close()
    sold = sum(each.orders[201] for each in loads.values())
    # An order without a reply, or in doubt, may have been accepted all the same.
    maybe = sum(each.orders["no reply"] + each.orders[202] for each in loads.values())
    audited.events += await check_store(directory, sold, sold + maybe)
    return _summary(kind, plan, loads, memory)


async def _phases(
    generator: Generator, kind: str, plan: Plan, memory: _Memory, few: int, many: int
) -> dict[str, Load]:
    size = LIST_SIZE if kind == LISTS else 1
    await generator.closed_loop(_requests(kind, "warm"), few, plan.peak_seconds / 5)
    memory.now()
    loads = {"peak": await generator.closed_loop(_requests(kind, "peak"), few, plan.peak_seconds)}
    memory.now()
    peak = loads["peak"].orders[201] / loads["peak"].seconds / size
    normal = max(1.0, peak * NORMAL_SHARE)
    loads["normal"] = await generator.open_loop(
        _requests(kind, "normal"), few, normal, plan.normal_seconds
    )
    memory.now()
    requests = _requests(kind, "over", DEADLINE_MS)
    seconds = plan.overload_seconds
    if kind == LISTS:
        loads["overload"] = await generator.open_loop(requests, many, peak * TIMES, seconds)
    else:
        loads["overload"] = await generator.closed_loop(requests, many, seconds)
    loads["after"] = await generator.open_loop(
        _requests(kind, "after"), few, normal, plan.after_seconds
    )
    memory.now()
    return loads


def _requests(kind: str, prefix: str, timeout_ms: int | None = None) -> Iterator[Request]:
    if kind == LISTS:
        return list_requests(LIST_SIZE, prefix, timeout_ms)
    return order_requests(prefix, timeout_ms)
