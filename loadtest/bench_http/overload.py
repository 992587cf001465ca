"""Ten times what the server can take: how much of its peak is left, and how soon it is itself again.

peak      closed loop, as fast as it answers
normal    a fifth of the peak, open loop: what latency is normal here
overload  ten times the peak, open loop, with a deadline; of single orders ten times the connections
after     normal again
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from time import perf_counter as clock
from typing import Final

import msgspec
import numpy as np

from loadtest.bench.runs import Audited
from loadtest.bench_http.load import (
    IN_DOUBT,
    NO_REPLY,
    Generator,
    Load,
    Request,
    list_requests,
    order_requests,
    windows,
)
from loadtest.bench_http.runs import DEFAULTS, OVERRIDES
from loadtest.http_processes import HttpServer, check_store, order_server, store_in

LISTS: Final = "lists"
SINGLES: Final = "single orders"
LIST_SIZE: Final = 500
TIMES: Final = 10
NORMAL_SHARE: Final = 0.2
DEADLINE_MS: Final = 1_000
WINDOW_SECONDS: Final = 0.5

CONNECTIONS: Final = {LISTS: (8, 256), SINGLES: (256, 256 * TIMES)}
"""At the peak and in overload. Those who send lists are backends, not a crowd; a list that finds all of
their connections taken is not sent, and counted so."""

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


# -- the phases


async def overload(directory: Path, kind: str, plan: Plan, audited: Audited) -> Overload:
    """Run the phases against a server with default settings. Raises WrongAnswer, OSError."""
    few, many = CONNECTIONS[kind]
    async with order_server(directory, OVERRIDES[DEFAULTS]) as server:
        await server.open_sale()
        memory, generator = _Memory(server), Generator(server.public)
        async with memory.watched():
            loads = await _phases(generator, kind, plan, memory, few, many)
        generator.close()
    sold = sum(each.orders[201] for each in loads.values())
    # An order without a reply, or in doubt, may have been accepted all the same.
    maybe = sum(
        each.orders[NO_REPLY] + each.orders[202] + each.orders[IN_DOUBT] for each in loads.values()
    )
    audited.events += await check_store(store_in(directory), sold, sold + maybe)
    return _summary(kind, plan, loads, memory)


async def _phases(
    generator: Generator, kind: str, plan: Plan, memory: _Memory, few: int, many: int
) -> dict[str, Load]:
    size = LIST_SIZE if kind == LISTS else 1
    warm = await generator.closed_loop(_requests(kind, "warm"), few, plan.peak_seconds / 5)
    memory.now()
    loads = {"warm": warm}
    loads["peak"] = await generator.closed_loop(_requests(kind, "peak"), few, plan.peak_seconds)
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


# -- what is made of them


def _summary(kind: str, plan: Plan, loads: dict[str, Load], memory: _Memory) -> Overload:
    peak, normal, over, after = (loads[each] for each in ("peak", "normal", "overload", "after"))
    found = [
        each
        for phase in ("peak", "normal", "overload", "after")
        for each in _windows(phase, loads[phase], peak.began, memory)
    ]
    before, at_normal = memory.at(peak.began), memory.at(normal.ended)
    gained = peak.orders[201] + normal.orders[201]
    each_bytes = max(0.0, at_normal - before) * 2**20 / max(1, gained)
    since = normal.ended - peak.began
    normal_p95 = max(each.p95_ms or 0.0 for each in found if each.phase == "normal")
    late = sum(each.definite for each in over.samples) - over.within(DEADLINE_MS / 1_000)
    answers = {str(status): count for status, count in sorted(over.orders.items(), key=str)}
    return Overload(
        kind=kind,
        plan=plan,
        peak_per_s=peak.orders[201] / peak.seconds,
        offered_per_s=sum(over.orders.values()) / over.seconds,
        goodput_per_s=over.within(DEADLINE_MS / 1_000) / over.seconds,
        normal_p95_ms=normal_p95,
        seconds_until_normal=_until_normal(found, normal_p95, over.ended - peak.began),
        answers={**answers, "201 or 409, but late": late},
        accepted_bytes_each=each_bytes,
        excess_mib_max=_excess(found, since, each_bytes, at_normal),
        resident_mib_before=at_normal,
        resident_mib_max=max(mib for when, mib in memory.seen if when >= over.began),
        resident_mib_after=memory.at(after.ended),
        windows=found,
    )


def _windows(phase: str, load: Load, start: float, memory: _Memory) -> list[Window]:
    """Whole windows only: what is left of one at the end would look like a drop."""
    found = []
    whole = int((load.ended - load.began) / WINDOW_SECONDS)
    for number, samples in enumerate(windows(load.samples, load.began, WINDOW_SECONDS)[:whole]):
        took = [each.seconds * 1_000 for each in samples if each.definite]
        good = sum(each.definite for each in samples if each.seconds * 1_000 <= DEADLINE_MS)
        every = sum(each.definite + each.others for each in samples)
        at = load.began + number * WINDOW_SECONDS
        found.append(
            Window(
                at_seconds=round(at - start, 3),
                phase=phase,
                in_time_per_s=good / WINDOW_SECONDS,
                others_per_s=(every - good) / WINDOW_SECONDS,
                p50_ms=float(np.percentile(took, 50)) if took else None,
                p95_ms=float(np.percentile(took, 95)) if took else None,
                resident_mib=memory.at(at + WINDOW_SECONDS),
            )
        )
    return found


def _until_normal(found: list[Window], normal_p95_ms: float, ended: float) -> float | None:
    """From the end of the overload to the first of two windows in a row that are normal."""
    limit = normal_p95_ms * NORMAL_FACTOR + NORMAL_SLACK_MS
    after = [each for each in found if each.phase == "after"]
    fine = [
        each.p95_ms is not None and each.p95_ms <= limit and not each.others_per_s for each in after
    ]
    for window, this, following in zip(after, fine, fine[1:], strict=False):
        if this and following:
            return max(0.0, window.at_seconds - ended)
    return None


def _excess(found: list[Window], since: float, bytes_each: float, mib: float) -> float:
    """The most memory, after `since`, beyond `mib` and what was accepted from then on."""
    accepted, most = 0.0, 0.0
    for each in found:
        if each.at_seconds >= since:
            accepted += each.in_time_per_s * WINDOW_SECONDS
            most = max(most, each.resident_mib - mib - accepted * bytes_each / 2**20)
    return most
