"""What can be compared: the runs of every kind of result, brought into one form."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any, Final

import msgspec

from loadtest.machine import Machine
from loadtest.reading import Result
from loadtest.results import AuditResult, Batches, Repeat, Run
from loadtest.strategies.report import StrategiesRun, StrategySummary
from loadtest.strategies.strategies import GROUP_COMMIT
from loadtest.tuning.experiment import Cell
from loadtest.tuning.report import CellSummary, TuneRun

OF_BASELINES: Final = frozenset({"store", "concurrency", "seconds_max"})
"""The other settings are the engine's, which a baseline does without."""


class Sample(msgspec.Struct, frozen=True):
    """One repeat. `turn` is its number in an experiment whose entries took turns, else null."""

    durable_per_s: float
    p50_ms: float
    p99_ms: float
    p999_ms: float | None = None
    turn: int | None = None


class Origin(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """Where repeats come from, and all that must be alike for a fair comparison.

    `file` is the run.json and `key` the name of the entry in it, empty for a single run.
    `typed` is how it was named where its folder's name alone would not tell it from another.
    Without `eq` one can be a key, though it holds dictionaries.
    """

    file: Path
    key: str
    kind: str
    strategy: str
    started_at: str
    commit: str
    machine: Machine
    workload: dict[str, Any]
    settings: dict[str, Any]
    stopped_early: bool = False
    orders_failed: int = 0
    orders_unknown: int = 0
    typed: str = ""

    @property
    def name(self) -> str:
        if self.typed:
            return self.typed
        folder = self.file.parent.name
        return f"{folder}:{self.key}" if self.key else folder


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that can be compared, with every repeat of it.

    `name` is what tells it from the others on the screen. `size_mean` is orders a batch and
    `closed_by` counts batches, null where nobody noted them. `wrong` says what an audit found; the
    figures mean nothing unless it is empty.
    """

    name: str
    samples: tuple[Sample, ...]
    origins: tuple[Origin, ...]
    size_mean: float | None = None
    closed_by: dict[str, int] | None = None
    wrong: str = ""

    @property
    def strategy(self) -> str:
        return ", ".join(dict.fromkeys(each.strategy for each in self.origins))

    @property
    def rates(self) -> list[float]:
        return [each.durable_per_s for each in self.samples]

    @property
    def durable_per_s(self) -> float:
        return median(self.rates)

    @property
    def p50_ms(self) -> float:
        return median(each.p50_ms for each in self.samples)

    @property
    def p99_ms(self) -> float:
        return median(each.p99_ms for each in self.samples)

    @property
    def p999_ms(self) -> float | None:
        known = [each.p999_ms for each in self.samples if each.p999_ms is not None]
        return median(known) if len(known) == len(self.samples) else None


def entries_of(result: Result, file: Path) -> dict[str, Entry]:
    """Every entry of a result by the name that is typed for it; of a single run that is empty."""
    if isinstance(result, Run):
        return {"": _of_run(result, file)}
    if isinstance(result, TuneRun):
        keys = _keys([each.cell for each in result.cells])
        return {
            key: _of_cell(result, each, file, key)
            for key, each in zip(keys, result.cells, strict=True)
            if each.repeats
        }
    return {
        each.strategy: _of_strategy(result, each, file)
        for each in result.strategies
        if each.repeats
    }


def joined(entries: list[Entry]) -> Entry:
    """Several entries as the repeats of one; of batches the means' median and the sum of reasons."""
    first, *others = entries
    if not others:
        return first
    sizes = [each.size_mean for each in entries if each.size_mean is not None]
    shapes = [each.closed_by for each in entries if each.closed_by is not None]
    reasons: Counter[str] = Counter()
    for shape in shapes:
        reasons.update(shape)
    return Entry(
        name=f"{first.name} +{len(others)}",
        # Turns of different folders were not taken together, whatever their numbers.
        samples=tuple(
            msgspec.structs.replace(sample, turn=None)
            for each in entries
            for sample in each.samples
        ),
        origins=tuple(origin for each in entries for origin in each.origins),
        size_mean=median(sizes) if len(sizes) == len(entries) else None,
        closed_by=dict(reasons) if len(shapes) == len(entries) else None,
        wrong="; ".join(each.wrong for each in entries if each.wrong),
    )


def _of_run(run: Run, file: Path) -> Entry:
    repeats: Sequence[Run | Repeat] = run.repeats or [run]
    audits = [run.audit, *(each.audit for each in repeats)]
    origin = msgspec.structs.replace(
        _origin(run, file, "", run.strategy),
        stopped_early=run.stopped_early,
        orders_failed=sum(each.orders.failed for each in repeats),
        orders_unknown=sum(each.orders.unknown for each in repeats),
    )
    return Entry(
        name=origin.name,
        samples=tuple(
            Sample(
                each.throughput.durable_per_s,
                each.latency_ms.p50,
                each.latency_ms.p99,
                each.latency_ms.p999,
            )
            for each in repeats
        ),
        origins=(origin,),
        size_mean=run.batches.size_mean if run.batches.count else None,
        closed_by=_by_name(run.batches) if run.batches.count else None,
        wrong=next((_finding(each) for each in audits if not each.ok), ""),
    )


def _by_name(batches: Batches) -> dict[str, int]:
    return {str(reason): count for reason, count in batches.closed_by.items()}


def _finding(audit: AuditResult) -> str:
    return f"its audit failed: {audit.findings[0]}" if audit.findings else "its audit failed"


def _of_cell(run: TuneRun, summary: CellSummary, file: Path, key: str) -> Entry:
    """A tune folder is only written when every run in it was proven."""
    origin = _origin(run, file, key, run.strategy)
    settings = {**origin.settings, "batch": msgspec.to_builtins(summary.cell.batch)}
    if len({each.cell.concurrency for each in run.cells}) > 1 or "concurrency" not in settings:
        # Older files note it once for all cells, whose own is then the default.
        settings["concurrency"] = summary.cell.concurrency
    return Entry(
        name=origin.name,
        samples=tuple(
            Sample(each.durable_per_s, each.p50_ms, each.p99_ms, turn=each.repeat)
            for each in summary.repeats
        ),
        origins=(msgspec.structs.replace(origin, settings=settings),),
        size_mean=summary.size_mean,
    )


def _keys(cells: list[Cell]) -> list[str]:
    """Names that are easy to type: `1000`, `1000/5ms`, `article`; `1000@200` among concurrencies."""
    several = len({each.concurrency for each in cells}) > 1
    keys: list[str] = []
    seen: Counter[str] = Counter()
    for cell in cells:
        size, delay = cell.batch.size_max, cell.batch.delay_ms_max
        # A comma would stand between two arguments.
        key = cell.named.replace(",", "_") or f"{size}" + (f"/{delay:g}ms" if delay else "")
        key += f"@{cell.concurrency}" if several else ""
        seen[key] += 1
        keys.append(f"{key}#{seen[key]}" if seen[key] > 1 else key)
    return keys


def _of_strategy(run: StrategiesRun, summary: StrategySummary, file: Path) -> Entry:
    """At its best pool size; right only if it was with every size."""
    counts = {
        "units oversold": summary.oversold,
        "orders lost": summary.lost,
        "orders failed": summary.failed,
    }
    origin = _origin(run, file, summary.strategy, summary.strategy)
    if summary.strategy != GROUP_COMMIT:
        settings = {key: value for key, value in origin.settings.items() if key in OF_BASELINES}
        origin = msgspec.structs.replace(
            origin, settings={**settings, "connections": summary.connections}
        )
    return Entry(
        name=origin.name,
        samples=tuple(
            Sample(each.durable_per_s, each.p50_ms, each.p99_ms, turn=turn)
            for turn, each in enumerate(summary.at_best, 1)
        ),
        origins=(origin,),
        wrong=", ".join(f"{count:,} {what}" for what, count in counts.items() if count),
    )


def _origin(run: Result, file: Path, key: str, strategy: str) -> Origin:
    settings = {**run.config}
    workload = settings.pop("workload", {})
    return Origin(
        file=file,
        key=key,
        kind=run.kind,
        strategy=strategy,
        started_at=run.started_at,
        commit=run.commit,
        machine=run.machine,
        workload=workload if isinstance(workload, dict) else {"": workload},
        settings=settings,
    )
