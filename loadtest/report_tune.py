"""The report of an experiment with batch settings."""

from __future__ import annotations

from collections.abc import Sequence

from loadtest.report_latency_plot import NAMES_MAX, Place, latency_against_throughput
from loadtest.report_page import Plot, Report, Section, Table
from loadtest.report_plots import Series, heat_map, lines
from loadtest.tune_page import tabulate
from loadtest.tune_report import CellSummary, TuneRun
from loadtest.tune_words import sentences

SVG = ".svg"


def report_tune(run: TuneRun) -> Report:
    """Throughput by batch size, latency against throughput, size x delay, the recommendation."""
    chosen = run.recommendation
    best = max(run.cells, key=lambda each: each.durable_per_s.median)
    label = chosen.label if chosen is not None else ""
    if chosen is not None and chosen.holds:
        headline = (
            f"Batch size {chosen.label} is recommended: {chosen.durable_per_s.median:,.0f} durable "
            f"orders/s ({chosen.durable_per_s.low:,.0f} to {chosen.durable_per_s.high:,.0f})."
        )
    else:
        headline = (
            f"The most was {best.durable_per_s.median:,.0f} durable orders/s, with batch size "
            f"{best.cell.label}" + ("; no setting holds the condition." if chosen else ".")
        )
    columns, rows = tabulate(run, run.cells)
    marked = [place for place, each in enumerate(run.cells) if each.cell.label == label]
    sections = [Section("Recommendation", sentences(run))] if chosen is not None else []
    sections += [
        Section("Throughput by batch size", plots=_by_size(run.cells)),
        Section("Latency against throughput", plots=_against(run.cells, label)),
    ]
    if maps := _maps(run.cells):
        sections.append(Section("Size and delay", plots=maps))
    sections.append(Section("Every setting", tables=[Table(columns, rows, marked)]))
    if run.dropped:
        dropped = [f"{each.label}: {each.why}" for each in run.dropped]
        sections.append(Section("Given up early by the search", dropped))
    runs = sum(len(each.repeats) for each in (*run.cells, *run.confirmed))
    return Report(
        title=f"Batch settings, {run.started_at[:16].replace('T', ' ')} UTC",
        headline=f"{headline} All {runs:,} runs passed their audits.",
        sections=sections,
        audit=f"all {runs:,} runs passed: {run.checked_events:,} events replayed, nothing wrong",
    )


def _by_size(cells: Sequence[CellSummary]) -> list[Plot]:
    """A line for each delay, at each concurrency a plot."""
    plots = []
    for at in _concurrencies(cells):
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
        plots.append(Plot(f"throughput-{at}{SVG}", caption, svg))
    return plots


def _against(cells: Sequence[CellSummary], label: str) -> list[Plot]:
    """Every setting, at each concurrency a plot; the colour tells the delay."""
    plots = []
    for at in _concurrencies(cells):
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
        plots.append(Plot(f"latency-{at}{SVG}", caption, latency_against_throughput(places)))
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


def _maps(cells: Sequence[CellSummary]) -> list[Plot]:
    plots = []
    for at in _concurrencies(cells):
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
        plots.append(Plot(f"heat-{at}{SVG}", f"{at:,} in flight: durable orders/s, medians.", svg))
    return plots


def _concurrencies(cells: Sequence[CellSummary]) -> list[int]:
    return list(dict.fromkeys(each.cell.concurrency for each in cells))
