"""The end of a sale on one screen: a sentence, the figures, the proof."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from engine.inventory.audit import AuditCheck, AuditReport
from loadtest.reconcile import Check
from loadtest.results import Batches, Orders, PaymentCounts, Run
from loadtest.simulation.simulate import Outcome
from loadtest.workload import Workload

FINDINGS_SHOWN_MAX = 5


def print_summary(console: Console, outcome: Outcome, workload: Workload) -> None:
    """Print everything a person wants to know about a run."""
    run = outcome.run
    console.print()
    console.print(headline(outcome, workload), style="bold", highlight=False)
    if outcome.resumed:
        console.print(
            f"Resumed: {outcome.resumed:,} units were sold before this run; "
            "their orders got their first answer again.",
            highlight=False,
        )
    console.print()
    # In a burst an order waits for those in flight before it, so the figure means little alone.
    in_flight = min(run.config["concurrency"], workload.rows)
    title = "Latency, ms" if workload.timed else f"Latency, ms ({in_flight:,} in flight)"
    print_side_by_side(
        console,
        orders_table(run.orders, run.payments),
        [speed_table(run, timed=workload.timed), "", latency_table(run, title)],
    )
    console.print(batches_text(run.batches))
    console.print()
    print_audit(console, outcome.audit, outcome.checks)
    for error in outcome.errors:
        console.print(Text(f"error: {error}", style="red"))
    machine = run.machine
    console.print(
        Text(
            f"{machine.store} {machine.store_version}, durability {machine.durability}; "
            f"{machine.cores} x {machine.cpu}",
            style="dim",
        )
    )


def print_side_by_side(
    console: Console, left: RenderableType, right: Sequence[RenderableType]
) -> None:
    """Print two columns, or one above the other where there is no room."""
    columns = Table.grid(padding=(0, 4))
    columns.add_row(left, Group(*right))
    if console.measure(columns).minimum <= console.width:
        console.print(columns)
    else:
        console.print(left, "", *right, "", sep="\n")


def headline(outcome: Outcome, workload: Workload) -> str:
    """The result in one sentence."""
    run = outcome.run
    units = workload.stock * len(workload.skus)
    sold = sum(outcome.sold.values())
    proof = "audit passed" if run.audit.ok else "AUDIT FAILED"
    stopped = "Stopped early: " if outcome.interrupted else ""
    if run.payments is not None:
        done = f"{sum(outcome.paid.values()):,} of {units:,} units paid for, {sold:,} reserved"
    else:
        done = f"{sold:,} of {units:,} units sold"
    return (
        f"{stopped}{done} in {run.orders.accepted:,} of "
        f"{workload.orders:,} orders in {run.throughput.seconds:,.2f} s, "
        f"{run.throughput.decided_per_s:,.0f} answers/s, "
        f"{run.audit.oversold:,} oversold, {proof}."
    )


def print_audit(console: Console, report: AuditReport, books: Sequence[Check] = ()) -> None:
    """Print the proof: every check with what it looked at, findings below it."""
    ticks = ("ok", "FAILED") if console.options.ascii_only else ("✓", "✗")
    table = Table(title="Audit", title_justify="left", title_style="bold", box=None, pad_edge=False)
    table.add_column("")
    table.add_column("check", overflow="fold")
    table.add_column("checked", justify="right")
    table.add_column("")
    for check in report.checks:
        table.add_row(_tick(check, ticks), Text(check.name), f"{check.checked:,}", check.unit)
        for finding in check.findings[:FINDINGS_SHOWN_MAX]:
            table.add_row("", Text(finding, style="red"))
        more = check.found - FINDINGS_SHOWN_MAX
        if more > 0:
            table.add_row("", Text(f"and {more:,} more", style="red"))
    for book in books:
        table.add_row(_tick(book, ticks), Text(book.name), f"{book.checked:,}", book.unit)
        if not book.ok:
            table.add_row("", Text(book.detail, style="red"))
    console.print(table)
    console.print(units_sentence(report), highlight=False)
    for note in report.notes:
        console.print(Text(f"note: {note}", style="dim"))


def units_sentence(report: AuditReport) -> str:
    """Where every unit went, in one sentence."""
    units = report.units
    back = f"; {units.given_back:,} were given back before" if units.given_back else ""
    return (
        f"Units: {units.added:,} came in = {units.final + units.paid:,} sold "
        f"({units.final:,} for good, {units.paid:,} paid) + {units.held:,} held "
        f"+ {units.withdrawn:,} withdrawn + {units.left:,} left{back}."
    )


def verdict(report: AuditReport) -> str:
    """The audit in one sentence."""
    if report.ok:
        return f"Audit passed: {report.checked_events:,} events, nothing wrong."
    figures = {
        "units oversold": report.oversold,
        "lost": report.lost,
        "phantom": report.phantom,
        "duplicated": report.duplicated,
        "over the limit": report.over_limit,
    }
    counted = ", ".join(f"{count:,} {name}" for name, count in figures.items() if count)
    found = sum(check.found for check in report.checks)
    return (
        f"AUDIT FAILED: {found:,} {'finding' if found == 1 else 'findings'} in "
        f"{report.checked_events:,} events{': ' if counted else ''}{counted}."
    )


def orders_table(orders: Orders, payments: PaymentCounts | None) -> RenderableType:
    """What became of the orders."""
    table = _table("Orders", "", "count")
    before = [("  sold before this run", orders.accepted_before, "dim")]
    rows = [
        ("sent", orders.offered, "bold"),
        ("accepted", orders.accepted, "green"),
        *(before if orders.accepted_before else ()),
        ("refused: sold out", orders.rejected_sold_out, ""),
        ("refused: limit per buyer", orders.rejected_limit, ""),
        ("refused: other", orders.rejected_other, ""),
        ("repeats, same answer again", orders.duplicate, ""),
        ("unknown", orders.unknown, "red" if orders.unknown else ""),
        ("failed", orders.failed, "red" if orders.failed else ""),
        ("told to retry (overload)", orders.refused_overload, "dim"),
    ]
    if payments is not None:
        rows += [
            ("paid", payments.paid, "green"),
            ("paid too late, to refund", payments.too_late, ""),
            ("left without paying", payments.left, ""),
        ]
        if payments.unknown:
            rows.append(("payments unknown", payments.unknown, "red"))
    if orders.unsent:
        rows.append(("due, never sent", orders.unsent, "yellow"))
    for name, count, style in rows:
        table.add_row(Text(name, style=style), Text(f"{count:,}", style=style))
    return table


def speed_table(run: Run, *, timed: bool) -> RenderableType:
    """Answers and durable orders a second."""
    # In a timed sale the engine answers what comes; it says nothing about what it could do.
    table = _table("Speed, set by the arrivals" if timed else "Speed", "", "per second")
    table.add_row("definite answers", f"{run.throughput.decided_per_s:,.0f}")
    lost_at_exit = run.machine.store == "memory"
    name = "orders stored, not durable" if lost_at_exit else "durable orders"
    table.add_row(name, f"{run.throughput.durable_per_s:,.0f}")
    return table


def latency_table(run: Run, title: str) -> RenderableType:
    """The percentiles, under a title that says from when they count."""
    table = _table(title, "p50", "p95", "p99", "p99.9", "max")
    latency = run.latency_ms
    values = (latency.p50, latency.p95, latency.p99, latency.p999, latency.max)
    table.add_row(*(f"{value:,.2f}" for value in values))
    return table


def batches_text(batches: Batches, *, bounds: bool = False) -> RenderableType:
    """How commands (orders, payments) were grouped, in one sentence; `bounds` when sizes are known up to a bound only."""
    upto = "at most " if bounds else ""
    reasons = ", ".join(f"{reason} {count:,}" for reason, count in batches.closed_by.items())
    plural = "transaction" if batches.transactions == 1 else "transactions"
    # Of a single SKU there is nobody to wait for.
    turns = (
        f". A SKU waited {batches.waited_p50:,} rounds for its turn (median), "
        f"p99 {batches.waited_p99:,}, at most {batches.waited_max:,}"
        if batches.waited_max
        else ""
    )
    return Text(
        f"Batches: {batches.count:,} of {batches.size_mean:,.1f} commands on average "
        f"(median {upto}{batches.size_p50:,}, largest {upto}{batches.size_max:,}), "
        f"closed by {reasons or 'nothing'}; {batches.transactions:,} {plural} "
        f"(refusals and repeats alone need none){turns}"
    )


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
    for number, name in enumerate(columns):
        # Figures are never broken: what does not fit beside something else stands below it.
        table.add_column(
            name,
            justify="left" if number == 0 else "right",
            overflow="fold",
            no_wrap=number > 0 or name.startswith("p"),
        )
    return table


def _tick(check: AuditCheck | Check, ticks: tuple[str, str]) -> Text:
    if not check.ok:
        return Text(ticks[1], style="bold red")
    # A green tick would claim a proof where there was nothing to look at.
    return Text(ticks[0], style="green") if check.checked else Text("-", style="dim")
