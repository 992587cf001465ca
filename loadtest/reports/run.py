"""The report of one sale, simulated or by Locust."""

from __future__ import annotations

from typing import Final

from loadtest.intervals import REPEATS_MIN, interval_of
from loadtest.reports.page import Plot, Report, Section, Table, audit_sentence
from loadtest.reports.plots import bars, dots, over_the_run
from loadtest.results import AuditResult, Run

NAMES: Final = {"simulate": "A simulated sale", "locust": "A load test over HTTP"}
CLOSED_BY: Final[dict[str, str]] = {
    "size": "full (size)",
    "delay": "waited long enough (delay)",
    "idle": "nobody else there (idle)",
}


def report_run(run: Run) -> Report:
    """Figures, how it went, what became of the orders, how they were grouped."""
    throughput, orders = run.throughput, run.orders
    warnings = (
        ["Stopped early: the figures are of the time until then."] if run.stopped_early else []
    )
    if orders.unknown:
        warnings.append(f"{orders.unknown:,} orders have no definite answer.")
    if run.payments is not None and run.payments.unknown:
        warnings.append(
            f"{run.payments.unknown:,} payments have no definite answer, or a wrong one."
        )
    if orders.unsent:
        warnings.append(
            f"{orders.unsent:,} orders were due and never sent: more than the users could send."
        )
    return Report(
        title=f"{NAMES.get(run.kind, run.kind)}, {run.started_at[:16].replace('T', ' ')} UTC",
        headline=(
            f"{throughput.durable_per_s:,.0f} durable orders/s over {throughput.seconds:,.1f} s; "
            f"{orders.accepted:,} of {orders.offered:,} orders sold, p99 {run.latency_ms.p99:,.1f} ms; "
            f"{_verdict(run)}."
        ),
        sections=[_figures(run), *_timeline(run), _batches(run)],
        audit=audit_sentence(run.audit),
        failures=_failures(run),
        warnings=warnings,
    )


def _verdict(run: Run) -> str:
    audits = [run.audit, *(each.audit for each in run.repeats)]
    return "audit passed" if all(each.ok for each in audits) else "audit FAILED"


def _failures(run: Run) -> list[str]:
    """Of the run, and of the other repeats, whose figures are in the interval."""
    found = [] if run.audit.ok else [f"The audit {audit_sentence(run.audit)}."]
    if run.orders.failed:
        found.append(
            f"{run.orders.failed:,} orders failed or were answered differently when repeated."
        )
    for number, each in enumerate(run.repeats, 1):
        if not each.audit.ok and each.audit != run.audit:
            found.append(f"Repeat {number}: the audit {audit_sentence(each.audit)}.")
        if each.orders.failed and each.orders != run.orders:
            found.append(f"Repeat {number}: {each.orders.failed:,} orders failed.")
    return found


def _figures(run: Run) -> Section:
    rates = [each.throughput.durable_per_s for each in run.repeats]
    text, plots = [], []
    if len(rates) > 1:
        found = interval_of(rates)
        what = "95 % interval of the median" if len(rates) >= REPEATS_MIN else "they had"
        text.append(
            f"Of {len(rates)} runs with the same settings this is the one with the median throughput; "
            f"{what}: {found.low:,.0f} to {found.high:,.0f} durable orders/s."
        )
        svg = dots({"runs": rates}, "durable orders/s")
        plots.append(Plot("repeats.svg", "Every run a dot, the median a stroke.", svg))
    return Section("Figures", text, [_speed(run), _orders(run), _audit(run.audit)], plots)


def _speed(run: Run) -> Table:
    latency = run.latency_ms
    rates = {
        "durable orders/s": run.throughput.durable_per_s,
        "answers/s": run.throughput.decided_per_s,
    }
    percentiles = {
        "latency p50, ms": latency.p50,
        "p95, ms": latency.p95,
        "p99, ms": latency.p99,
        "p99.9, ms": latency.p999,
        "longest, ms": latency.max,
    }
    rows = [(name, f"{rate:,.0f}") for name, rate in rates.items()]
    rows += [(name, f"{value:,.2f}") for name, value in percentiles.items()]
    return Table(("speed", ""), rows)


def _audit(audit: AuditResult) -> Table:
    counts = {
        "units oversold": audit.oversold,
        "orders lost": audit.lost,
        "orders doubled": audit.duplicated,
        "over the limit": audit.over_limit,
    }
    rows = [
        ("verdict", "passed" if audit.ok else "FAILED"),
        ("events replayed", f"{audit.checked_events:,}"),
        ("findings", f"{len(audit.findings):,}"),
        *((name, f"{count:,}") for name, count in counts.items()),
    ]
    return Table(("audit", ""), rows, () if audit.ok else (0,))


def _timeline(run: Run) -> list[Section]:
    timeline = [each for each in run.timeline if each.seconds > 0]
    if len(timeline) < 2:
        return []
    caption = "Orders answered and sold a second, units of stock, and latency by the second of the answer."
    units = _units_at_start(run)
    svg = over_the_run(timeline, units or 0, given_back=units is None)
    return [Section("Over time", plots=[Plot("over-time.svg", caption, svg)])]


def _units_at_start(run: Run) -> int | None:
    """None where what buyers took does not tell what is left: units came back, or went before."""
    workload = run.config.get("workload", {})
    stock, skus = workload.get("stock"), workload.get("skus", 1)
    if run.payments is not None or run.orders.accepted_before:
        return None
    return stock * skus if isinstance(stock, int) and isinstance(skus, int) else None


def _orders(run: Run) -> Table:
    orders = run.orders
    rows = [
        ("sent", orders.offered),
        ("accepted", orders.accepted),
        ("refused: sold out", orders.rejected_sold_out),
        ("refused: limit per buyer", orders.rejected_limit),
        ("refused: other", orders.rejected_other),
        ("repeats, same answer again", orders.duplicate),
        ("unknown", orders.unknown),
        ("failed", orders.failed),
        ("told to try again", orders.refused_overload),
    ]
    if run.payments is not None:
        rows += [
            ("paid", run.payments.paid),
            ("paid too late, to refund", run.payments.too_late),
            ("left without paying", run.payments.left),
        ]
    return Table(("what became of the orders", ""), [(name, f"{count:,}") for name, count in rows])


def _batches(run: Run) -> Section:
    batches = run.batches
    # Of a server only the bounds of its counters are known.
    upto = "at most " if run.kind == "locust" else ""
    text = (
        f"{batches.count:,} batches of {batches.size_mean:,.1f} commands on average, half of them of "
        f"at most {batches.size_p50:,}, the largest {upto}{batches.size_max:,}; "
        f"{batches.transactions:,} transactions (refusals and repeats alone need none)."
    )
    closed = sum(batches.closed_by.values())
    rows = [
        (CLOSED_BY.get(reason, reason), f"{count:,}", f"{count / closed:.0%}" if closed else "")
        for reason, count in batches.closed_by.items()
    ]
    plots = []
    if batches.by_size:
        counts = {f"{size:,}": float(count) for size, count in sorted(batches.by_size.items())}
        svg = bars(counts, "commands in a batch, at most", "batches")
        caption = "Batches by size, each counted at an upper bound of it."
        plots.append(Plot("batch-sizes.svg", caption, svg))
    tables = [Table(("why batches closed", "batches", "share"), rows)] if rows else []
    return Section("Batches", [text], tables, plots)
