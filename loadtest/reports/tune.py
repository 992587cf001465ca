"""The report of an experiment with batch settings."""

from __future__ import annotations

from loadtest.reports.page import Report, Section, Table
from loadtest.tuning.page import recommended, tabulate
from loadtest.tuning.plots import against, by_size, heat_maps
from loadtest.tuning.report import TuneRun
from loadtest.tuning.words import first_rate, sentences


def report_tune(run: TuneRun) -> Report:
    """Throughput by batch size, latency against throughput, size x delay, the recommendation."""
    chosen = run.recommendation
    best = max(run.cells, key=lambda each: each.durable_per_s.median)
    label = chosen.label if chosen is not None else ""
    if chosen is not None and chosen.holds:
        headline = (
            f"Batch size {chosen.label} is recommended: {first_rate(run, chosen)} durable orders/s."
        )
        if chosen.fastest is not None:
            headline += f" {chosen.fastest} was ahead, and is not told apart from it."
    else:
        headline = (
            f"The most was {best.durable_per_s.median:,.0f} durable orders/s, with batch size "
            f"{best.cell.label}" + ("; no setting holds the condition." if chosen else ".")
        )
    columns, rows = tabulate(run, run.cells)
    marked = [place for place, each in enumerate(run.cells) if each.cell.label == label]
    sections = [Section("Recommendation", sentences(run))] if chosen is not None else []
    sections += [
        Section("Throughput by batch size", plots=by_size(run.cells)),
        Section("Latency against throughput", plots=against(run.cells, label)),
    ]
    if maps := heat_maps(run.cells):
        sections.append(Section("Size and delay", plots=maps))
    star = ["* is recommended."] if recommended(run) is not None else []
    sections.append(Section("Every setting", star, [Table(columns, rows, marked)]))
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
