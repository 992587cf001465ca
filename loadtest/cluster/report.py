"""What a sale over a cluster shows: orders by gateway, the time without sales, the proof, a plot."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from engine.inventory.audit import AuditReport
from loadtest.cluster.figures import ClusterRun, GatewayFigures
from loadtest.machine import short_commit
from loadtest.plots import TimePanel, over_time
from loadtest.reconcile import Check
from loadtest.results import write_run, write_whole
from loadtest.simulation.summary import print_audit

PLOT_FILE: Final = "sale.svg"


def headline(run: ClusterRun) -> str:
    """The result in one sentence."""
    over = run.take_over
    again = (
        "NEVER SOLD AGAIN"
        if over.resumed_seconds is None
        else f"sold again after {over.resumed_seconds:.1f} s"
    )
    proof = "audit passed" if run.audit.ok else "AUDIT FAILED"
    return (
        f"{run.orders.accepted:,} orders sold through {len(run.gateways)} gateways; {over.killed} was "
        f"killed and its partitions {again}, {run.audit.lost:,} acknowledged orders lost, {proof}."
    )


def orders_table(run: ClusterRun) -> Table:
    """What became of the orders, a column for each gateway and one for all."""
    columns = run.gateways
    table = Table(
        title="Orders", title_justify="left", title_style="bold", box=None, pad_edge=False
    )
    table.add_column("")
    for name in [*(each.name for each in columns), "all"]:
        table.add_column(name, justify="right", no_wrap=True)

    def row(name: str, of: Callable[[GatewayFigures], int], style: str = "") -> None:
        counts = [of(each) for each in columns]
        cells = [f"{each:,}" for each in [*counts, sum(counts)]]
        table.add_row(Text(name), *cells, style=style if sum(counts) else "")

    row("offered", lambda each: each.offered)
    row("accepted", lambda each: each.accepted, "green")
    for reason in sorted({reason for each in columns for reason in each.refused}):
        row(f"refused: {reason.replace('_', ' ')}", lambda each, r=reason: each.refused.get(r, 0))  # type: ignore[misc]
    row("unknown to the end", lambda each: each.unknown, "red")
    row("failed", lambda each: each.failed, "red")
    row("sent once more, same answer", lambda each: each.repeated)
    row("answers that decided nothing", lambda each: sum(each.indefinite.values()))
    for kind in sorted({kind for each in columns for kind in each.indefinite}):
        row(f"  told: {kind}", lambda each, k=kind: each.indefinite.get(k, 0), "dim")  # type: ignore[misc]
    row("sent on from the other gateway", lambda each: each.retried)
    table.caption = (
        "An order that was told nothing definite is sent on, with the same key; one that was accepted "
        "and is only sent once more is not."
    )
    table.caption_justify = "left"
    return table


def take_over_table(run: ClusterRun) -> Table:
    """How long nothing was sold, on the partitions of the killed engine and on the others."""
    over = run.take_over
    table = Table(
        title=f"Seconds without a sale, {over.killed} killed after {over.at_seconds:.1f} s",
        title_justify="left",
        title_style="bold",
        box=None,
        pad_edge=False,
    )
    for name in ("partitions", "sales", "to the next sale", "longest after", "longest before"):
        table.add_column(name, justify="left" if name == "partitions" else "right", no_wrap=True)
    for killed in (True, False):
        group = [each for each in over.partitions if each.killed is killed]
        if not group:
            continue
        numbers = ", ".join(str(each.partition) for each in group)
        owner = f"of {over.killed}, killed" if killed else "of the others"
        until = [each.until_sale_seconds for each in group]
        told = [each for each in until if each is not None]
        table.add_row(
            f"{numbers} {owner}",
            f"{sum(each.sales for each in group):,}",
            f"{max(told):.2f}" if len(told) == len(until) else "never",
            f"{max(each.without_sale_seconds for each in group):.2f}",
            f"{max(each.before_seconds for each in group):.2f}",
        )
    return table


def print_run(
    console: Console, run: ClusterRun, report: AuditReport, check: Check, samples: Sequence[str]
) -> None:
    """Print everything a person wants to know about the sale."""
    console.print()
    console.print(headline(run), style="bold", highlight=False, soft_wrap=True)
    console.print()
    console.print(orders_table(run))
    console.print()
    console.print(take_over_table(run))
    console.print()
    print_audit(console, report, [check])
    for each in samples:
        console.print(Text(f"error: {each}", style="red"))
    if not run.take_over.in_time:
        limit = run.take_over.limit_seconds
        console.print(Text(f"error: its partitions had {limit:g} s to sell again", style="red"))
    console.print(
        Text(f"{run.machine.line} All processes and the buyers share the cores.", style="dim")
    )


def refusals(run: ClusterRun) -> str:
    """Why fewer are sold in the end than at first, in one sentence."""
    return (
        f"{run.orders.rejected_limit:,} orders were refused because their buyer had reached the limit "
        f"and {run.orders.rejected_sold_out:,} because the SKU was sold out: more of them the longer "
        "the sale goes on, and so many fewer are sold."
    )


def plot_of(run: ClusterRun) -> bytes:
    """Orders over time as SVG; the time in which the killed engine's partitions sold nothing is grey."""
    over = run.take_over
    # The last second is not a whole one.
    moments = run.timeline[:-1]
    lines = {
        f"sold, {over.killed}'s partitions": [float(each.accepted_killed) for each in moments],
        "sold, the others'": [float(each.accepted_others) for each in moments],
        "refused: limit, sold out": [float(each.refused) for each in moments],
    }
    end = over.at_seconds + (over.resumed_seconds or len(moments) - over.at_seconds)
    return over_time(
        "A sale over a cluster",
        # A moment is drawn in the middle of its second.
        [each.at_seconds + 0.5 for each in moments],
        [TimePanel("orders a second", lines)],
        {f"{over.killed}'s partitions sell nothing": (over.at_seconds, end)},
    )


def write(run: ClusterRun, directory: Path) -> None:
    """Write run.json, a plot, and a README.md that says the same in words. Raises ConfigError."""
    over = run.take_over
    page = [
        f"# A sale over a cluster on {run.started_at[:10]}, commit {short_commit(run.commit)}",
        "",
        f"{run.machine.line} All processes and the buyers share the cores.",
        "",
        headline(run),
        "",
        f"![Orders sold and refused a second]({PLOT_FILE})",
        "",
        refusals(run),
        "",
        "| partition | owner | sales | to the next sale, s | longest after, s | longest before, s |",
        "|---|---|---|---|---|---|",
        *(
            f"| {each.partition} | {each.owner}{', killed' if each.killed else ''} | {each.sales:,} | "
            f"{'never' if each.until_sale_seconds is None else f'{each.until_sale_seconds:.2f}'} | "
            f"{each.without_sale_seconds:.2f} | {each.before_seconds:.2f} |"
            for each in over.partitions
        ),
        "",
        f"The audit checked {run.audit.checked_events:,} events.",
    ]
    write_whole(directory / PLOT_FILE, plot_of(run))
    write_run(directory, run, page)
