"""What is measured of a cluster: the same orders in several layouts, in turn."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence

import msgspec

from loadtest.bench_cluster.caller import Load, Task
from loadtest.bench_cluster.programs import Layout, Servers, Setup, cpu_seconds
from loadtest.intervals import REPEATS_MIN, Interval, interval_of, paired_ratio_of


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One workload in one layout: medians with 95 % intervals, and every repeat.

    `ratio` is how many times the orders/s of the same turn in process, on the same store; None there,
    and with too few repeats. `cpu` is seconds of processor time for a million orders, by part.
    """

    workload: str
    layout: Layout
    per_second: Interval
    p50_ms: Interval
    p99_ms: Interval
    ratio: Interval | None
    cpu: dict[str, Interval]
    repeats: list[Load]
    cpu_repeats: list[dict[str, float]]


async def compare(
    servers: Servers,
    layouts: Sequence[Layout],
    workloads: Mapping[str, Task],
    repeats: int,
    shuffle: random.Random,
    done: Callable[[], None],
) -> tuple[list[Row], int]:
    """Measure every workload in every layout, `repeats` times in new random orders.

    Returns the rows, and how many events the audits replayed. Raises WrongAnswer.
    """
    setups = [await servers.start(each) for each in layouts]
    for setup in setups:
        # Not counted: what programs, connections and files do the first time.
        for task in workloads.values():
            await setup.run(_short(task))
        done()
    found: dict[tuple[str, Layout], list[tuple[Load, dict[str, float]]]] = {}
    for _ in range(repeats):
        for workload in shuffle.sample(list(workloads), len(workloads)):
            for setup in shuffle.sample(setups, len(setups)):
                measured = await _measure(setup, workloads[workload])
                found.setdefault((workload, setup.layout), []).append(measured)
                done()
    events = sum([await each.check() for each in setups])
    return [
        _row(workload, layout, found[workload, layout], found.get((workload, Layout(layout.store))))
        for workload in workloads
        for layout in layouts
    ], events


def _short(task: Task) -> Task:
    return msgspec.structs.replace(
        task, seconds=task.seconds / 5, orders=max(task.size, task.orders // 5)
    )


async def _measure(setup: Setup, task: Task) -> tuple[Load, dict[str, float]]:
    before = {part: cpu_seconds(pids) for part, pids in setup.parts.items()}
    load = await setup.run(task)
    used = {part: cpu_seconds(pids) - before[part] for part, pids in setup.parts.items()}
    return load, {part: 1e6 * seconds / load.orders for part, seconds in used.items()}


def _row(
    workload: str,
    layout: Layout,
    measured: Sequence[tuple[Load, dict[str, float]]],
    in_process: Sequence[tuple[Load, dict[str, float]]] | None,
) -> Row:
    loads, cpu = [load for load, _ in measured], [parts for _, parts in measured]
    rates = [each.per_second for each in loads]
    ratio = None
    if layout.replicas and in_process and len(loads) >= REPEATS_MIN:
        ratio = paired_ratio_of([load.per_second for load, _ in in_process], rates)
    return Row(
        workload=workload,
        layout=layout,
        per_second=interval_of(rates),
        p50_ms=interval_of([each.p50_ms for each in loads]),
        p99_ms=interval_of([each.p99_ms for each in loads]),
        ratio=ratio,
        cpu={part: interval_of([each[part] for each in cpu]) for part in cpu[0]},
        repeats=loads,
        cpu_repeats=cpu,
    )
