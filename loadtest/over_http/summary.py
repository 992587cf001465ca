"""The end of a load test on one screen."""

from __future__ import annotations

from rich.console import Console
from rich.text import Text

from loadtest.over_http.run import LoadTest, LoadTestOutcome
from loadtest.results import Run
from loadtest.simulation.summary import (
    batches_text,
    latency_table,
    orders_table,
    print_audit,
    print_side_by_side,
    speed_table,
)


def print_outcome(console: Console, outcome: LoadTestOutcome, run: Run, test: LoadTest) -> None:
    """Print everything a person wants to know about a load test."""
    console.print()
    console.print(headline(outcome), style="bold", highlight=False, soft_wrap=True)
    if len(run.repeats) > 1:
        rates = ", ".join(f"{each.throughput.durable_per_s:,.0f}" for each in run.repeats)
        console.print(
            f"Of {len(run.repeats)} runs ({rates} durable orders/s), the median one:",
            highlight=False,
        )
    console.print()
    load = test.load
    timed = bool(load.per_second)
    where = "from when they were due" if timed else f"{load.users:,} users"
    figures = [speed_table(run, timed=timed), "", latency_table(run, f"Latency, ms ({where})")]
    print_side_by_side(console, orders_table(run.orders, run.payments), figures)
    console.print(batches_text(run.batches, bounds=True))
    console.print()
    print_audit(console, outcome.audit, outcome.checks)
    if not run.orders.offered:
        console.print(Text("error: no order was sent; does anybody in --mix buy?", style="red"))
    silent = sum(not each.decided for each in run.timeline)
    if silent:
        console.print(Text(f"warning: {silent:,} seconds without any answer", style="yellow"))
    if run.orders.unsent:
        console.print(
            Text(
                f"warning: {run.orders.unsent:,} orders were due and never sent, because every user still "
                "waited for a reply: more --users, or a lower --rate",
                style="yellow",
            )
        )
    for error in outcome.samples:
        console.print(Text(f"error: {error}", style="red"))
    # Where a running server runs is not known; the store is what it told.
    where = "" if test.host is not None else " Server and Locust share the cores."
    console.print(Text(f"\n{run.machine.line}{where}", style="dim"))


def headline(outcome: LoadTestOutcome) -> str:
    """The result in one sentence."""
    run = outcome.run
    stopped = "Stopped early: " if run.stopped_early else ""
    proof = "audit passed" if run.audit.ok else "AUDIT FAILED"
    equal = "equal" if all(check.ok for check in outcome.checks) else "NOT EQUAL"
    orders = run.orders
    refused = orders.rejected_sold_out + orders.rejected_limit + orders.rejected_other
    unsent = f", {orders.unsent:,} due and NEVER SENT" if orders.unsent else ""
    return (
        f"{stopped}{orders.accepted:,} orders sold and {refused:,} refused{unsent} in "
        f"{run.throughput.seconds:,.1f} s, {run.throughput.durable_per_s:,.0f} durable orders/s, "
        f"p99 {run.latency_ms.p99:,.1f} ms; {proof}, counts of buyers and store {equal}."
    )
