"""The benchmarks over HTTP by name: what is measured, how often, beside which ceiling."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec

from engine.event_loop import run_async
from loadtest.bench.report import BenchAudit, Figure, figure
from loadtest.bench.runs import Audited
from loadtest.bench_http import runs as runs
from loadtest.bench_http.overload import DEADLINE_MS, LISTS, SINGLES, Overload, Plan, overload
from loadtest.bench_http.runs import DEFAULTS, EMPTY, OFF, Lonely, percentile
from loadtest.bench_http.wrk import Singles

T = TypeVar("T")

SINGLE_SHARE_MIN: Final = 0.8
LISTS_PER_S_MIN: Final = 60_000
GOODPUT_SHARE_MIN: Final = 0.8
NORMAL_SECONDS_MAX: Final = 10
EXCESS_MIB_MAX: Final = 128
"""Bytes of lists under way, decoded, and a queue of 65,536 orders: memory is flat when it is no more
than that beyond what accepted orders take."""

BY_AUDIT: Final = "audit"


class Sizes(msgspec.Struct, frozen=True):
    """How much is measured."""

    repeats: int = 5
    seconds: float = 3
    connections: tuple[int, ...] = (64, 256, 1_024)
    list_sizes: tuple[int, ...] = (100, 1_000, 10_000)
    list_orders: int = 300_000
    lonely_orders: int = 300
    plan: Plan = Plan()


QUICK: Final = Sizes(2, 1, (64, 1_024), (1_000, 10_000), 100_000, 100, Plan(2, 2, 5, 5))
"""A look in a minute or two; not for publishing."""


class HttpBench:
    """Runs every benchmark against servers of their own, with stores below `place`."""

    def __init__(self, place: Path, sizes: Sizes, generator: str, seed: int) -> None:
        self._place = place
        self._sizes = sizes
        self._generator = generator
        self._random = random.Random(seed)
        self._audited = Audited()
        self.overloads: list[Overload] = []

    def config(self) -> dict[str, Any]:
        """Everything that shapes the run."""
        sizes: dict[str, Any] = msgspec.to_builtins(self._sizes)
        plan = sizes.pop("plan")
        return {"generator": self._generator, **sizes, **plan, "deadline_ms": DEADLINE_MS}

    def steps(self) -> dict[str, Callable[[], Awaitable[list[Figure]]]]:
        """Every benchmark by its name."""
        return {
            "singles": self.singles,
            "lists": self.lists,
            "lonely": self.lonely,
            "overload-lists": lambda: self.overload(LISTS),
            "overload-singles": lambda: self.overload(SINGLES),
        }

    def run(self, name: str) -> list[Figure]:
        """Run one benchmark. Raises WrongAnswer when its check fails."""
        return run_async(_finish(self.steps()[name]()))

    def audit(self) -> BenchAudit:
        """What the audits so far replayed; one that found something has raised WrongAnswer."""
        return BenchAudit(True, self._audited.events)

    async def singles(self) -> list[Figure]:
        kinds = (EMPTY, DEFAULTS, OFF)
        found: dict[tuple[str, int], list[Singles]] = {}
        for _ in range(self._sizes.repeats):
            for connections in self._shuffled(self._sizes.connections):
                # One after the other, so that a ratio is of one moment of a noisy machine.
                for kind in self._shuffled(kinds):
                    run = await runs.singles(
                        *(self._new(), kind, connections, self._sizes.seconds),
                        *(self._generator, self._audited),
                    )
                    found.setdefault((kind, connections), []).append(run)
        figures: list[Figure] = []
        for connections in self._sizes.connections:
            empty = [each.per_second for each in found[EMPTY, connections]]
            for kind in (DEFAULTS, OFF):
                ours = found[kind, connections]
                figures += _single_figures(f"{connections:,} connections, {kind}", ours, empty)
        return figures

    async def lists(self) -> list[Figure]:
        kinds = (DEFAULTS, OFF)
        found: dict[tuple[int, str], list[float]] = {}
        cells = [(size, kind) for size in self._sizes.list_sizes for kind in kinds]
        for _ in range(self._sizes.repeats):
            for size, kind in self._shuffled(cells):
                orders = self._sizes.list_orders
                rate = await runs.lists(self._new(), kind, size, orders, self._audited)
                found.setdefault((size, kind), []).append(rate)
        return [
            figure(
                f"lists of {size:,} orders, {kind}",
                *("orders/s", found[size, kind], LISTS_PER_S_MIN),
                checked=BY_AUDIT,
            )
            for size, kind in cells
        ]

    async def lonely(self) -> list[Figure]:
        orders = self._sizes.lonely_orders
        each = [
            await runs.lonely(self._new(), orders, self._audited)
            for _ in range(self._sizes.repeats)
        ]
        return [
            figure(
                f"one lonely order over HTTP, p{percent}",
                *("ms", [percentile(one.http, percent) for one in each], None),
                checked=BY_AUDIT,
                at_least=False,
                ceilings=_beside(each, percent),
            )
            for percent in (50, 99)
        ]

    async def overload(self, kind: str) -> list[Figure]:
        found = await overload(self._new(), kind, self._sizes.plan, self._audited)
        self.overloads.append(found)
        until = found.seconds_until_normal
        name = f"overload with {kind}"
        return [
            figure(
                f"{name}: goodput / peak",
                *("x", [found.goodput_per_s / found.peak_per_s], GOODPUT_SHARE_MIN),
                checked=BY_AUDIT,
            ),
            figure(f"{name}: peak", "orders/s", [found.peak_per_s], None, checked=BY_AUDIT),
            figure(
                f"{name}: memory beyond accepted orders",
                *("MiB", [found.excess_mib_max], EXCESS_MIB_MAX),
                at_least=False,
                checked="statm",
            ),
            figure(
                f"{name}: until latency is normal",
                # Never within the run: the run is the least it can be.
                *("s", [self._sizes.plan.after_seconds if until is None else until]),
                NORMAL_SECONDS_MAX,
                at_least=False,
                checked=BY_AUDIT,
            ),
        ]

    def _shuffled(self, values: Sequence[T]) -> list[T]:
        return self._random.sample(values, len(values))

    def _new(self) -> Path:
        return Path(tempfile.mkdtemp(dir=self._place))


def _single_figures(name: str, ours: list[Singles], empty: list[float]) -> list[Figure]:
    rates = [each.per_second for each in ours]
    ratios = [each / other for each, other in zip(rates, empty, strict=True)]
    return [
        figure(
            f"single orders, {name} / empty handler",
            *("x", ratios, SINGLE_SHARE_MIN),
            checked=BY_AUDIT,
        ),
        figure(
            f"single orders, {name}",
            *("orders/s", rates, None),
            checked=BY_AUDIT,
            ceilings={EMPTY: empty},
        ),
        figure(
            f"single orders, {name}, p99",
            *("ms", [each.p99_us / 1_000 for each in ours], None),
            checked=BY_AUDIT,
            at_least=False,
        ),
    ]


def _beside(each: list[Lonely], percent: float) -> dict[str, list[float]]:
    return {
        "in process": [percentile(one.engine, percent) for one in each],
        "bare commit": [percentile(one.commit, percent) for one in each],
    }


async def _finish(step: Awaitable[list[Figure]]) -> list[Figure]:
    return await step
