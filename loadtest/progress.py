"""What is seen while a sale runs: a live panel on a terminal, a line now and then elsewhere.

Both go to stderr, so that stdout holds the result alone.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Final

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from loadtest.simulation.crowd import Tally
from loadtest.workload import Workload

REFRESHES_PER_SECOND: Final = 8
"""Fast enough to look alive; drawing takes a few milliseconds each time, on the engine's core."""

LINE_SECONDS: Final = 2.0
SKUS_SHOWN_MAX: Final = 5


def count_runs(console: Console) -> Progress:
    """A bar for the runs of an experiment, with the time that is left; to be entered."""
    return Progress(
        TextColumn("runs"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
    )


class Speedometer:
    """Orders answered per second since it was last read."""

    def __init__(self, now: float) -> None:
        self._at, self._answered = now, 0

    def read(self, answered: int, now: float) -> float:
        elapsed = max(now - self._at, 1e-9)
        rate = (answered - self._answered) / elapsed
        self._at, self._answered = now, answered
        return rate


@asynccontextmanager
async def show_progress(tally: Tally, workload: Workload, console: Console) -> AsyncIterator[None]:
    """Show the sale on `console` while the block runs."""
    speed = Speedometer(time.monotonic())
    if console.is_terminal:
        with Live(console=console, auto_refresh=False, transient=True) as live:

            async def refresh() -> None:
                rate = speed.read(tally.answered, time.monotonic())
                live.update(draw(tally, workload, rate), refresh=True)

            async with _every(1 / REFRESHES_PER_SECOND, refresh):
                yield
    else:

        async def write_line() -> None:
            rate = speed.read(tally.answered, time.monotonic())
            console.print(describe(tally, workload, rate), highlight=False, soft_wrap=True)

        async with _every(LINE_SECONDS, write_line):
            yield


@asynccontextmanager
async def _every(seconds: float, act: Callable[[], Awaitable[None]]) -> AsyncIterator[None]:
    async def repeat() -> None:
        while True:
            await asyncio.sleep(seconds)
            await act()

    task = asyncio.create_task(repeat())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def describe(tally: Tally, workload: Workload, rate: float) -> str:
    """The state of the sale in one line."""
    sold = sum(tally.sold.values())
    (p99,) = tally.latency.percentiles_ms((99,))
    return (
        f"{tally.answered:,} of {workload.rows:,} orders answered, {rate:,.0f}/s; "
        f"{_describe_units(sold, workload)}, "
        f"{tally.rejected.total():,} refused; p99 {p99:,.1f} ms{_describe_payments(tally)}"
    )


def _describe_units(sold: int, workload: Workload) -> str:
    units = workload.stock * len(workload.skus)
    if workload.hold_seconds:
        # What is given back is reserved again, so this may pass the stock.
        return f"{sold:,} units reserved of a stock of {units:,}"
    return f"{sold:,} of {units:,} units sold"


def _describe_payments(tally: Tally) -> str:
    payments = tally.payments
    if not (payments.paid or payments.waiting or payments.left or payments.too_late):
        return ""
    return (
        f"; {payments.paid:,} orders paid, {payments.waiting:,} to be paid, "
        f"{payments.left:,} left, {payments.too_late:,} too late"
    )


def draw(tally: Tally, workload: Workload, rate: float) -> RenderableType:
    """The state of the sale as a panel: a bar, the figures, the SKUs that sell most."""
    bar = Table.grid(padding=(0, 1))
    share = tally.answered / workload.rows
    bar.add_row(
        Text("orders", style="bold"),
        ProgressBar(total=workload.rows, completed=tally.answered, width=40),
        Text(f"{share:4.0%}  {tally.answered:,} of {workload.rows:,}"),
    )
    (p99,) = tally.latency.percentiles_ms((99,))
    figures = Text.assemble(
        (f"{rate:,.0f}", "bold cyan"),
        " answers/s   p99 ",
        (f"{p99:,.1f} ms", "bold cyan"),
        "   accepted ",
        (f"{tally.accepted:,}", "bold green"),
        "   refused ",
        (f"{tally.rejected.total():,}", "bold yellow"),
        "   overload retries ",
        f"{tally.refused_overload:,}",
        _describe_payments(tally),
    )
    return Group(bar, figures, _draw_skus(tally, workload))


def _draw_skus(tally: Tally, workload: Workload) -> RenderableType:
    table = Table.grid(padding=(0, 1))
    best = sorted(tally.sold.items(), key=lambda item: -item[1])
    for sku, sold in best[:SKUS_SHOWN_MAX]:
        left = max(workload.stock - sold, 0)
        table.add_row(
            Text(sku, overflow="ellipsis", no_wrap=True),
            ProgressBar(total=max(workload.stock, 1), completed=sold, width=40),
            Text(f"{sold:,} sold, {left:,} left" if left else f"{sold:,} sold out"),
        )
    if len(best) > SKUS_SHOWN_MAX:
        table.add_row(Text(f"and {len(best) - SKUS_SHOWN_MAX:,} more", style="dim"))
    return table
