"""The report of a comparison of strategies."""

from __future__ import annotations

from collections.abc import Sequence

from loadtest.comparison.comparing import numbers
from loadtest.intervals import REPEATS_MIN, Interval
from loadtest.reports.page import Plot, Report, Section, Table
from loadtest.reports.plots import Series, dots, lines
from loadtest.results import Strategy
from loadtest.strategies.report import COLUMNS, StrategiesRun, StrategySummary, cells_of
from loadtest.strategies.strategies import StrategyRun


def report_strategies(run: StrategiesRun) -> Report:
    """Throughput of every strategy, and how it depends on the number of connections."""
    right = [each for each in run.strategies if not (each.oversold or each.lost or each.failed)]
    best = max(right or run.strategies, key=lambda each: each.durable_per_s.median)
    runs = [repeat for each in run.strategies for repeat in each.repeats]
    wrong = [
        f"{each.strategy}: {each.oversold:,} units oversold, {each.lost:,} orders lost, {each.failed:,} failed"
        for each in run.strategies
        if each.oversold or each.lost or each.failed
    ]
    at_best: dict[str, list[float]] = {
        each.strategy: [repeat.durable_per_s for repeat in each.at_best] for each in run.strategies
    }
    sections = [
        Section(
            "Throughput",
            tables=[Table(COLUMNS, [cells_of(each, "\n") for each in run.strategies])],
            plots=[
                Plot(
                    "strategies.svg",
                    "Every repeat a dot, the median a stroke, at the best pool size.",
                    dots(at_best, "durable orders/s"),
                )
            ],
        ),
        *_by_connections(runs),
    ]
    return Report(
        title=f"Ways to sell the same stock, {run.started_at[:16].replace('T', ' ')} UTC",
        headline=(
            f"{best.strategy} sold {best.durable_per_s.median:,.0f} durable orders/s, the most of "
            f"{len(run.strategies)} strategies"
            + (
                f": {_times(best, best.ratio)}."
                if best.ratio and best.strategy != "row-lock"
                else "."
            )
            + (" The check FAILED." if wrong else " Nothing was oversold or lost.")
        ),
        sections=sections,
        audit="every run was checked for oversold units and lost orders"
        + ("; see above" if wrong else ": none"),
        failures=wrong,
    )


def _times(best: StrategySummary, ratio: Interval) -> str:
    times, interval = numbers(ratio)
    count = len(best.at_best)
    if count >= REPEATS_MIN:
        return f"{times} times the best row lock {interval}"
    runs = "one run" if count == 1 else "two runs"
    return f"{times} times the best row lock in {runs}, too few for an interval"


def _by_connections(runs: Sequence[StrategyRun]) -> list[Section]:
    names: list[Strategy] = list(dict.fromkeys(each.strategy for each in runs))
    series: list[Series] = []
    levels: dict[str, float] = {}
    for name in names:
        points: dict[float, list[float]] = {}
        for each in runs:
            if each.strategy == name and each.durable_per_s > 0:
                points.setdefault(each.connections, []).append(each.durable_per_s)
        if len(points) > 1:
            series.append(Series(name, points))
        elif points and 0 in points:
            levels[name] = sorted(points[0])[len(points[0]) // 2]
    if not series:
        return []
    plot = Plot(
        "by-connections.svg",
        "Durable orders/s by the size of the pool; every repeat a dot. Both axes are logarithmic.",
        lines(series, "connections of the pool", "durable orders/s", log_y=True, levels=levels),
    )
    return [Section("By connections", plots=[plot])]
