"""A store with a long history: how soon it sells again, and how fast, beside one without."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import apsw

from loadtest.bench.ceilings import LIST_SIZE
from loadtest.bench.report import Figure, figure
from loadtest.wrong import WrongAnswer

BY_REPEATS: Final = "stock row, repeated and reused ids"
START_SECONDS_MAX: Final = 5.0
RATIO_MIN: Final = 0.9

KINDS: Final = {
    "one": "one SKU",
    "many": "the hottest of 1,000 SKUs",
    "limited": "one SKU, limit per buyer",
}


class LongHistory:
    """Measures stores of `events` orders, in a fresh process each time."""

    def __init__(
        self, new_store: Callable[[], Path], events: int, orders: int, repeats: int
    ) -> None:
        self._new = new_store
        self._events = events
        self._orders = orders
        self._repeats = repeats

    async def figures(self) -> list[Figure]:
        """Every kind of store, one after the other. Raises WrongAnswer."""
        found: list[Figure] = []
        for kind, title in KINDS.items():
            path = self._new()
            await _run("fill", path, self._events, kind)
            found += await self._starts(path, kind, f"start after {self._events:,} events, {title}")
            if kind == "one":
                found += await self._crashes(path)
                found += await self._sales(path)
            path.unlink()
        return found

    async def _starts(self, path: Path, kind: str, name: str) -> list[Figure]:
        """Seconds from starting a process to its first answer, with snapshots and without in turn."""
        seconds: dict[str, list[float]] = {"snapshots": [], "no snapshots": []}
        memory: dict[str, list[float]] = {"snapshots": [], "no snapshots": []}
        for repeat in range(self._repeats):
            for how in seconds:
                # It writes one when it closes, which the next repeat starts from.
                if how == "no snapshots":
                    await asyncio.to_thread(_forget_snapshots, path)
                took, mib = await self._start(path, kind, f"{repeat}{how[0]}")
                seconds[how].append(took)
                memory[how].append(mib)
        figures = [
            figure(
                f"{name}, {how}",
                "s",
                values,
                START_SECONDS_MAX if how == "snapshots" else None,
                at_least=False,
                checked=BY_REPEATS,
            )
            for how, values in seconds.items()
        ]
        return figures + [
            figure(f"memory at the {name}, {how}", "MiB", values, None, checked=BY_REPEATS)
            for how, values in memory.items()
        ]

    async def _crashes(self, path: Path) -> list[Figure]:
        """The same after a crash, which leaves no snapshot of the newest orders."""
        seconds: list[float] = []
        for repeat in range(self._repeats):
            await _run("crash", path, self._orders - 2 * LIST_SIZE, f"c{repeat}")
            seconds.append((await self._start(path, "one", f"{repeat}c"))[0])
        name = f"start after {self._events:,} events, one SKU, snapshots, after a crash"
        return [figure(name, "s", seconds, START_SECONDS_MAX, at_least=False, checked=BY_REPEATS)]

    async def _sales(self, path: Path) -> list[Figure]:
        full: list[float] = []
        empty: list[float] = []
        for repeat in range(self._repeats):
            full.append(float(await _run("sell", path, self._orders, f"f{repeat}")))
            new = self._new()
            empty.append(float(await _run("sell", new, self._orders, f"e{repeat}")))
            new.unlink()
        ratios = [each / other for each, other in zip(full, empty, strict=True)]
        name = f"lists after {self._events:,} events of the SKU, loaded from a snapshot"
        ceilings = {"empty store": empty}
        return [
            figure(f"{name} / on an empty store", "x", ratios, RATIO_MIN, checked="outcomes"),
            figure(name, "orders/s", full, None, ceilings=ceilings, checked="outcomes"),
        ]

    async def _start(self, path: Path, kind: str, name: str) -> tuple[float, float]:
        began = time.monotonic()
        answered, mib = (await _run("start", path, self._events, f"{kind}-{name}")).split()
        # CLOCK_MONOTONIC is one clock for all processes of a machine.
        return float(answered) - began, float(mib)


async def _run(task: str, path: Path, number: int, name: str) -> str:
    command = [sys.executable, "-m", "loadtest.bench.start", task, str(path), str(number), name]
    done = await asyncio.to_thread(
        subprocess.run, command, check=False, capture_output=True, text=True
    )
    if done.returncode:
        raise WrongAnswer(f"the process for {task!r} failed:\n{done.stderr}")
    return done.stdout


def _forget_snapshots(path: Path) -> None:
    connection = apsw.Connection(str(path))
    connection.execute("DELETE FROM snapshots; DELETE FROM snapshot_parts")
    connection.close()
