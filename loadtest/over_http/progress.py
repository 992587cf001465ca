"""What is seen while Locust runs: a live panel on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from loadtest.over_http.process import Progress

LINE_SECONDS: Final = 5.0


@contextmanager
def show_load(console: Console, seconds: float, units: int) -> Iterator[Callable[[Progress], None]]:
    """Show a run of `seconds` with `units` on sale; call what is yielded with what Locust tells."""
    if console.is_terminal:
        with Live(console=console, auto_refresh=False, transient=True) as live:
            live.update(Text("starting the server and Locust ..."), refresh=True)
            came: list[float] = []

            def show(now: Progress) -> None:
                # The run begins with its first users; starting took time as well.
                if now.users and not came:
                    came.append(time.monotonic())
                passed = time.monotonic() - came[0] if came else 0.0
                live.update(draw(now, passed, seconds, units), refresh=True)

            yield show
        return
    last = time.monotonic()

    def write(now: Progress) -> None:
        nonlocal last
        if time.monotonic() - last >= LINE_SECONDS:
            last = time.monotonic()
            console.print(describe(now), highlight=False, soft_wrap=True, markup=False)

    yield write


def describe(now: Progress) -> str:
    """The state of the run in one line."""
    found = now.outcomes
    return (
        f"{now.users:,} users, {found.decided:,} orders answered, {now.per_second:,}/s; "
        f"{found.accepted:,} accepted, {sum(found.refused.values()):,} refused, "
        f"{found.unknown + found.failed:,} unknown or failed; p99 {now.p99_ms:,.1f} ms"
    )


def draw(now: Progress, passed: float, seconds: float, units: int) -> RenderableType:
    """The state of the run as a panel: two bars and the figures."""
    found = now.outcomes
    bars = Table.grid(padding=(0, 1))
    bars.add_row(
        Text("time", style="bold"),
        ProgressBar(total=seconds, completed=min(passed, seconds), width=40),
        Text(f"{min(passed, seconds):,.0f} of {seconds:,.0f} s, {now.users:,} users, {now.state}"),
    )
    bars.add_row(
        Text("stock", style="bold"),
        ProgressBar(total=max(units, 1), completed=min(found.units, units), width=40),
        Text(f"{found.units:,} of {units:,} units sold"),
    )
    figures = Text.assemble(
        (f"{now.per_second:,}", "bold cyan"),
        " answers/s   p50 ",
        (f"{now.p50_ms:,.1f} ms", "bold cyan"),
        "   p99 ",
        (f"{now.p99_ms:,.1f} ms", "bold cyan"),
        "   accepted ",
        (f"{found.accepted:,}", "bold green"),
        "   refused ",
        (f"{sum(found.refused.values()):,}", "bold yellow"),
        f"   tried again {found.retried:,}",
    )
    doubt = found.unknown + found.failed
    trouble = (
        Text(f"unknown {found.unknown:,}, failed {found.failed:,}", style="red") if doubt else ""
    )
    return Group(bars, figures, trouble)
