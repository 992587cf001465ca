"""One run under a load that changes: open loop, so that a slow answer does not slow the orders down.

idle    hardly anybody: what a lonely order waits
burst   for a moment twice what the default settings can take: how soon the queue is gone
flash   0.7 of it: below what the machine can do, so a queue that grows here is the setting's doing
tail    the quiet hour afterwards

Latency counts from when an order was due, and belongs to the phase in which it was due.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt

from engine.clock import Clock, SystemClock
from engine.config import BatchSettings, Settings
from engine.cqrs.command_side.statistics import Statistics
from engine.cqrs.messages import Outcome
from engine.engine import Engine
from engine.errors import DeadlineExceeded, Overloaded
from engine.inventory.audit import audit
from engine.inventory.commands import Reserve
from engine.inventory.events import Reserved
from engine.runtime import open_engine, open_read_models
from loadtest.machine import Machine, describe_machine
from loadtest.wrong import NotProven

SKU: Final = "SKU-1"
WINDOW_SECONDS: Final = 0.25
SENT_AT_ONCE: Final = 64
"""Late orders that are sent before the engine has a turn: as many as it answers at once."""

IDLE_PER_SECOND: Final = 100.0
TAIL_PER_SECOND: Final = 2_000.0
BURST_TIMES: Final = 2.0
FLASH_SHARE: Final = 0.7


class Phase(msgspec.Struct, frozen=True):
    """A stretch of the load: orders come evenly at random, `per_second` of them."""

    name: str
    seconds: float
    per_second: float


class PhaseFigures(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a phase. Rates are what was answered and written during it; latencies are of
    the orders due in it, null when none was decided. `refused`: they met a full queue."""

    decided_per_s: float
    p50_ms: float | None
    p99_ms: float | None
    transactions_per_s: float
    size_mean: float
    refused: int


class Window(msgspec.Struct, frozen=True, kw_only=True):
    """A quarter of a second: latency of the orders due in it, the mean batch, the limits at its end."""

    at_seconds: float
    p99_ms: float | None
    size_mean: float | None
    size_bound: int
    delay_ms_bound: float


class LoadRun(msgspec.Struct, frozen=True, kw_only=True):
    """One run of one setting, audited. `figures` are by the name of the phase."""

    label: str
    batch: BatchSettings
    repeat: int
    accepted: int
    refused: int
    checked_events: int
    figures: dict[str, PhaseFigures]
    windows: list[Window]


def phases(capacity_per_s: float, scale: float = 1.0) -> tuple[Phase, ...]:
    """The load for a machine that takes `capacity_per_s`; `scale` shortens it for a look."""
    return (
        Phase("idle", 2 * scale, IDLE_PER_SECOND),
        Phase("burst", 0.3 * scale, capacity_per_s * BURST_TIMES),
        Phase("flash", 3 * scale, capacity_per_s * FLASH_SHARE),
        Phase("tail", 2.5 * scale, TAIL_PER_SECOND),
    )


def spans(load: Sequence[Phase]) -> dict[str, tuple[float, float]]:
    """Begin and end of each phase in seconds."""
    ends = np.cumsum([each.seconds for each in load]).tolist()
    return {
        each.name: (begin, end) for each, begin, end in zip(load, [0.0, *ends], ends, strict=False)
    }


def draw_due(load: Sequence[Phase], seed: int) -> npt.NDArray[np.float64]:
    """When every order is due, rising; the same for the same seed."""
    rng = np.random.default_rng(seed)
    return np.concatenate(
        [
            np.sort(rng.uniform(begin, end, max(1, round(each.seconds * each.per_second))))
            for each, (begin, end) in zip(load, spans(load).values(), strict=True)
        ]
    )


class OpenLoad:
    """Sends an order whenever one is due, and notes when each was answered.

    `took` and `answered` are seconds by order, from when it was due and from the start; not a
    number for those that were refused because the queue was full.
    """

    def __init__(self, engine: Engine, due: npt.NDArray[np.float64], clock: Clock) -> None:
        self._engine = engine
        self._due = due.tolist()
        self._clock = clock
        self._open = len(due)
        self._over = asyncio.Event()
        self.started = 0.0
        self.accepted = 0
        self.wrong = ""
        self.took = np.full(len(due), np.nan)
        self.answered = np.full(len(due), np.nan)

    async def run(self) -> None:
        """Return when every order is answered."""
        self.started = self._clock.monotonic()
        for number, due in enumerate(self._due):
            early = self.started + due - self._clock.monotonic()
            if early > 0:
                await self._clock.sleep(early)
            elif number % SENT_AT_ONCE == 0:
                await asyncio.sleep(0)
            try:
                future = self._engine.submit(Reserve(f"{number:x}", SKU, f"buyer-{number}", 1))
            except Overloaded:
                self._close_one()
            else:
                future.add_done_callback(partial(self._note, number))
        await self._over.wait()

    def _note(self, number: int, future: asyncio.Future[list[Outcome]]) -> None:
        (outcome,) = future.result()
        if isinstance(outcome, tuple) and type(outcome[0]) is Reserved:
            self.accepted += 1
            now = self._clock.monotonic() - self.started
            self.answered[number] = now
            self.took[number] = now - self._due[number]
        elif not isinstance(outcome, DeadlineExceeded):
            self.wrong = f"order {number:x} was answered {outcome!r}"
        self._close_one()

    def _close_one(self) -> None:
        self._open -= 1
        if not self._open:
            self._over.set()


async def run_load(
    settings: Settings, label: str, repeat: int, load: Sequence[Phase], seed: int
) -> tuple[LoadRun, Machine]:
    """Open the empty store of `settings`, send the load, and prove the result. Raises NotProven."""
    clock, due = SystemClock(), draw_due(load, seed)
    async with open_engine(settings, clock=clock) as engine:
        await engine.open_sale(SKU, stock=len(due), limit_per_buyer=0, command_id="open")
        sending = OpenLoad(engine, due, clock)
        watching = asyncio.create_task(_watch(engine, _instants(load), clock))
        await sending.run()
        seen = await watching
        checked = await _prove(engine, settings, label, sending)
        run = LoadRun(
            label=label,
            batch=settings.batch,
            repeat=repeat,
            accepted=sending.accepted,
            refused=len(due) - sending.accepted,
            checked_events=checked,
            figures={
                name: _figures(span, due, sending, seen) for name, span in spans(load).items()
            },
            windows=_windows(load, due, sending, seen),
        )
        return run, describe_machine(engine.info)


async def _prove(engine: Engine, settings: Settings, label: str, sending: OpenLoad) -> int:
    """Audit the store and compare it with the answers; return how many events were checked."""
    if settings.store.url == "memory:":
        report = await audit(engine.reader)
    else:
        async with open_read_models(settings.store.url) as read_models:
            report = await audit(engine.reader, None, read_models)
    found = [finding for check in report.checks for finding in check.findings]
    row = await engine.stock(SKU)
    sold = -1 if row is None else row.reserved + row.paid
    if sold != sending.accepted:
        found.append(f"{sending.accepted:,} orders were accepted and {sold:,} units sold")
    if sending.wrong:
        found.append(sending.wrong)
    if found or not report.ok:
        raise NotProven(f"{label}: {found[0] if found else 'the audit failed'}")
    return report.checked_events


def _instants(load: Sequence[Phase]) -> list[float]:
    """When the counters are read: at the ends of windows and of phases."""
    bounds = [0.0, *(end for _, end in spans(load).values())]
    whole = np.arange(WINDOW_SECONDS, bounds[-1], WINDOW_SECONDS).tolist()
    return sorted({*bounds, *whole})


async def _watch(
    engine: Engine, instants: Sequence[float], clock: Clock
) -> dict[float, Statistics]:
    started = clock.monotonic()
    seen: dict[float, Statistics] = {}
    for instant in instants:
        await clock.sleep(max(0.0, started + instant - clock.monotonic()))
        seen[instant] = engine.statistics()
    return seen


def _commands(now: Statistics) -> int:
    return sum(size * times for size, times in now.batch_sizes.items())


def _size_mean(before: Statistics, after: Statistics) -> float | None:
    batches = after.batches - before.batches
    return round((_commands(after) - _commands(before)) / batches, 2) if batches else None


def _percentile(took: npt.NDArray[np.float64], percent: float) -> float | None:
    decided = took[~np.isnan(took)]
    return round(float(np.percentile(decided, percent)) * 1_000, 3) if len(decided) else None


def _figures(
    span: tuple[float, float],
    due: npt.NDArray[np.float64],
    sending: OpenLoad,
    seen: dict[float, Statistics],
) -> PhaseFigures:
    begin, end = span
    took = sending.took[(due >= begin) & (due < end)]
    answered = int(((sending.answered >= begin) & (sending.answered < end)).sum())
    before, after = seen[begin], seen[end]
    return PhaseFigures(
        decided_per_s=round(answered / (end - begin), 1),
        p50_ms=_percentile(took, 50),
        p99_ms=_percentile(took, 99),
        transactions_per_s=round((after.transactions - before.transactions) / (end - begin), 1),
        size_mean=_size_mean(before, after) or 0.0,
        refused=int(np.isnan(took).sum()),
    )


def _windows(
    load: Sequence[Phase],
    due: npt.NDArray[np.float64],
    sending: OpenLoad,
    seen: dict[float, Statistics],
) -> list[Window]:
    """Whole windows only."""
    edges = [each for each in _instants(load) if each % WINDOW_SECONDS == 0]
    found = []
    for begin, end in pairwise(edges):
        limits = seen[end].batch_limits[0]
        found.append(
            Window(
                at_seconds=begin,
                p99_ms=_percentile(sending.took[(due >= begin) & (due < end)], 99),
                size_mean=_size_mean(seen[begin], seen[end]),
                size_bound=limits.size_max,
                delay_ms_bound=round(limits.delay_seconds_max * 1_000, 3),
            )
        )
    return found
