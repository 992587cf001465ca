"""The report of one sale, simulated or by Locust."""

from __future__ import annotations

from loadtest.report_page import Plot, Report, Section, Table, audit_sentence
from loadtest.report_plots import bars, dots, over_the_run
from loadtest.results import Run

NAMES = {"simulate": "A simulated sale", "locust": "A load test over HTTP"}


def report_run(run: Run) -> Report:
    """Figures, how it went, what became of the orders, how they were grouped."""
    stock = run.config.get("workload", {}).get("stock")
    units = stock * run.config["workload"].get("skus", 1) if isinstance(stock, int) else None
    throughput, orders = run.throughput, run.orders
    failures = [] if run.audit.ok else [f"The audit failed: {'; '.join(run.audit.findings[:5])}"]
    if orders.failed:
        failures.append(
            f"{orders.failed:,} orders failed or were answered differently when repeated."
        )
    warnings = (
        ["Stopped early: the figures are of the time until then."] if run.stopped_early else []
    )
    if orders.unknown:
        warnings.append(f"{orders.unknown:,} orders have no definite answer.")
    return Report(
        title=f"{NAMES.get(run.kind, run.kind)}, {run.started_at[:16].replace('T', ' ')} UTC",
        headline=(
            f"{throughput.durable_per_s:,.0f} durable orders/s over {throughput.seconds:,.1f} s; "
            f"{orders.accepted:,} of {orders.offered:,} orders sold, p99 {run.latency_ms.p99:,.1f} ms; "
            f"audit {'passed' if run.audit.ok else 'FAILED'}."
        ),
        sections=[_figures(run), *_timeline(run, units), _orders(run), _batches(run)],
        audit=audit_sentence(run.audit),
        failures=failures,
        warnings=warnings,
    )


def _figures(run: Run) -> Section:
    latency = run.latency_ms
    percentiles = (latency.p50, latency.p95, latency.p99, latency.p999, latency.max)
    rates = (run.throughput.durable_per_s, run.throughput.decided_per_s)
    table = Table(
        ("durable orders/s", "answers/s", "p50 ms", "p95 ms", "p99 ms", "p99.9 ms", "max ms"),
        [(*(f"{rate:,.0f}" for rate in rates), *(f"{value:,.2f}" for value in percentiles))],
    )
    plots = []
    if len(run.repeats) > 1:
        repeats = {"runs": [each.throughput.durable_per_s for each in run.repeats]}
        plots.append(
            Plot(
                "repeats.svg",
                "Every repeat a dot, the median a stroke.",
                dots(repeats, "durable orders/s"),
            )
        )
    return Section("Figures", tables=[table], plots=plots)


def _timeline(run: Run, units: int | None) -> list[Section]:
    if len(run.timeline) < 2:
        return []
    given_back = run.payments is not None or units is None
    caption = "Orders answered and sold a second, units of stock, and latency by the second of the answer."
    plot = Plot(
        "over-time.svg", caption, over_the_run(run.timeline, units or 0, given_back=given_back)
    )
    return [Section("Over time", plots=[plot])]


def _orders(run: Run) -> Section:
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
    return Section(
        "What became of the orders",
        tables=[Table(("", "orders"), [(name, f"{count:,}") for name, count in rows])],
    )


def _batches(run: Run) -> Section:
    batches = run.batches
    reasons = ", ".join(f"{reason} {count:,}" for reason, count in batches.closed_by.items())
    text = (
        f"{batches.count:,} batches of {batches.size_mean:,.1f} commands on average, the largest "
        f"{batches.size_max:,}; closed by {reasons or 'nothing'}; {batches.transactions:,} transactions."
    )
    plots = []
    if batches.by_size:
        counts = {f"{size:,}": float(count) for size, count in sorted(batches.by_size.items())}
        plots.append(
            Plot(
                "batch-sizes.svg",
                "Batches by how many commands they held, at most.",
                bars(counts, "commands in a batch, at most", "batches"),
            )
        )
    return Section("Batches", [text], plots=plots)
