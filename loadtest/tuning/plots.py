"""The plots of an experiment with batch settings, for its page and for its report."""

from __future__ import annotations

from collections.abc import Sequence

from loadtest.reports.latency_plot import NAMES_MAX, Place, latency_against_throughput
from loadtest.reports.page import Plot
from loadtest.reports.plots import Series, heat_map, lines
from loadtest.tuning.report import CellSummary, TuneRun


def plots_of(run: TuneRun) -> list[Plot]:
    """All of them, each with the name of its file."""
    label = run.recommendation.label if run.recommendation is not None else ""
    return [*by_size(run.cells), *against(run.cells, label), *heat_maps(run.cells)]


def by_size(cells: Sequence[CellSummary]) -> list[Plot]:
    """A line for each delay, at each concurrency a plot."""
    plots = []
    for at in concurrencies_of(cells):
        series: dict[float, dict[float, list[float]]] = {}
        for each in cells:
            batch = each.cell.batch
            if each.cell.named or each.cell.concurrency != at:
                continue
            points = series.setdefault(batch.delay_ms_max, {})
            points[batch.size_max] = [repeat.durable_per_s for repeat in each.repeats]
        if not series:
            continue
        others = {
            each.cell.label: (
                float(each.cell.batch.size_max),
                [repeat.durable_per_s for repeat in each.repeats],
            )
            for each in cells
            if each.cell.named and each.cell.concurrency == at
        }
        by_delay = [
            Series(f"delay {delay:g} ms" if len(series) > 1 or delay else "no delay", points)
            for delay, points in sorted(series.items())
        ]
        svg = lines(by_delay, "orders in a batch, at most", "durable orders/s", named=others)
        caption = f"{at:,} in flight. Every repeat a dot, lines through the medians; named settings hollow."
        plots.append(Plot(f"throughput-{at}.svg", caption, svg))
    return plots


def against(cells: Sequence[CellSummary], label: str) -> list[Plot]:
    """Every setting, at each concurrency a plot; the colour tells the delay."""
    plots = []
    for at in concurrencies_of(cells):
        ours = [each for each in cells if each.cell.concurrency == at]
        delays = {each.cell.batch.delay_ms_max for each in ours if not each.cell.named}
        places = [_place(each, label, delay_in_colour=len(delays) > 1) for each in ours]
        caption = (
            f"{at:,} in flight, medians: further right is faster, further down is sooner answered."
        )
        if len(ours) > NAMES_MAX:
            caption += " Only those are named to which none is both faster and sooner."
        elif len(delays) > 1:
            caption += " A number is the batch size."
        plots.append(Plot(f"latency-{at}.svg", caption, latency_against_throughput(places)))
    return plots


def _place(each: CellSummary, label: str, *, delay_in_colour: bool) -> Place:
    batch = each.cell.batch
    if each.cell.named:
        name, group = each.cell.label, "named settings"
    elif delay_in_colour:
        name, group = f"{batch.size_max:,}", f"delay {batch.delay_ms_max:g} ms"
    else:
        name, group = each.cell.label, "batch sizes"
    return Place(
        name,
        each.durable_per_s.median,
        each.p50_ms,
        each.p99_ms,
        group,
        each.cell.label == label,
    )


def heat_maps(cells: Sequence[CellSummary]) -> list[Plot]:
    """Size by delay where there are several of each, at each concurrency a plot."""
    plots = []
    for at in concurrencies_of(cells):
        values = {
            (
                float(each.cell.batch.size_max),
                each.cell.batch.delay_ms_max,
            ): each.durable_per_s.median
            for each in cells
            if not each.cell.named and each.cell.concurrency == at
        }
        if min(len({key[place] for key in values}) for place in (0, 1)) < 2:
            continue
        svg = heat_map(values, "orders in a batch, at most", "delay, ms, at most")
        plots.append(Plot(f"heat-{at}.svg", f"{at:,} in flight: durable orders/s, medians.", svg))
    return plots


def concurrencies_of(cells: Sequence[CellSummary]) -> list[int]:
    """In the order in which they were tried."""
    return list(dict.fromkeys(each.cell.concurrency for each in cells))
