"""`seckill compare`: from names to a comparison, from a comparison to what is printed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from engine.errors import ConfigError
from engine.terminal import print_json, printing
from loadtest.comparison.arguments import read_entries
from loadtest.comparison.comparing import (
    HOW_TO_REPEAT,
    Compared,
    Comparison,
    compare,
    numbers,
    sentence,
)
from loadtest.comparison.likeness import warnings_of
from loadtest.intervals import REPEATS_MIN

MANY: Final = 5
"""From so many comparisons on a reader is told that some are shown by chance."""

NAME_LENGTH_MAX: Final = 20
"""Longer names would push the figures off a terminal of 80 columns."""

WIDTH_MAX: Final = 1_000

UNKNOWN: Final = "-"


def run_compare(results: Sequence[str], fail_below: float | None, *, as_json: bool) -> int:
    """Compare, print, return the exit code: 1 when an entry is shown to be below `fail_below`.

    Raises ConfigError, and NotProven when the audit of a run failed.
    """
    if fail_below is not None and not (math.isfinite(fail_below) and 0 < fail_below <= 1):
        raise ConfigError(f"--fail-below must be above 0 and at most 1, got {fail_below}")
    entries = read_entries(results)
    found = compare(entries, warnings_of(entries))
    if fail_below is not None and found.too_few:
        raise ConfigError(
            f"--fail-below takes {REPEATS_MIN} repeats of every entry, and {_counts(found)}; "
            f"{HOW_TO_REPEAT}"
        )
    errors = Console(stderr=True, soft_wrap=True)
    for warning in found.warnings:
        errors.print(Text(f"warning: {warning}", style="yellow"))
    with printing() as console:
        if as_json:
            print_json(found)
        else:
            print_comparison(console, found)
    below = found.below(fail_below) if fail_below is not None else []
    for each in below:
        says = sentence(found.entries[0], each)
        errors.print(Text(f"below {fail_below:g}: {each.name}: {says}", style="red"))
    return 1 if below else 0


def _counts(found: Comparison) -> str:
    few = [each for each in found.entries if len(each.repeats) < REPEATS_MIN]
    return ", ".join(f"{each.name} has {len(each.repeats)}" for each in few)


def print_comparison(console: Console, found: Comparison) -> None:
    """The table, wide where it fits, then a sentence for each entry; letters for long names."""
    entries = found.entries
    names = [each.name for each in entries]
    long = max(map(len, names)) > NAME_LENGTH_MAX
    called = [_letters(number) for number in range(len(names))] if long else names
    wide = _table(entries, called, wide=True)
    roomy = console.options.update(max_width=WIDTH_MAX)
    fits = console.measure(wide, options=roomy).maximum <= console.width
    console.print(wide if fits else _table(entries, called, wide=False))
    console.print()
    for name, short, each in zip(names, called, entries, strict=True):
        if long or each.verdict != "base":
            title = f"{short}  {name}" if long else name
            says = sentence(entries[0], each, called[0])
            console.print(Text.assemble((title, "bold"), f": {says}"))
    notes = ["Medians of the repeats; ratios with their 95 % interval."]
    if any(each.paired for each in entries):
        notes.append(
            "Repeats of one experiment are compared turn by turn: the ratio is the median of the "
            "turns' ratios, not the ratio of the medians."
        )
    if any(each.ratio is not None and not each.paired for each in entries):
        notes.append(
            "Runs made at different times: a tenth more or less may be the machine, and is in the "
            "interval; settings in turns (tune, --strategies) are compared without it."
        )
    if len(entries) > MANY:
        notes.append("Of so many comparisons one in twenty may be shown by chance alone.")
    if found.too_few:
        notes.append(f"{HOW_TO_REPEAT[0].upper()}{HOW_TO_REPEAT[1:]}.")
    console.print()
    console.print(Text(" ".join(notes), style="dim"))


def _letters(number: int) -> str:
    """A to Z, then AA, AB."""
    before, last = divmod(number, 26)
    return (_letters(before - 1) if before else "") + chr(ord("A") + last)


def _table(entries: Sequence[Compared], called: Sequence[str], *, wide: bool) -> Table:
    """Columns that nobody has figures for are left out; in a narrow one cells have two lines."""
    gap = " " if wide else "\n"
    columns: dict[str, list[str]] = {
        "entry": list(called),
        "durable/s": [f"{each.durable_per_s:,.0f}" for each in entries],
        "x base": [_ratio(each, gap) for each in entries],
        "p50 ms": [_number(each.p50_ms) for each in entries],
        "p99 ms": [_number(each.p99_ms) for each in entries],
        "p99.9 ms": [_number(each.p999_ms) for each in entries],
        "mean batch": [_number(each.size_mean) for each in entries],
        "closed by": [_reasons(each.closed_by, gap) for each in entries],
        "repeats": [f"{len(each.repeats):,}" for each in entries],
    }
    known = {name: cells for name, cells in columns.items() if {*cells} != {UNKNOWN}}
    table = Table(
        title="Comparison",
        title_justify="left",
        box=None,
        pad_edge=False,
        padding=(0, 2 if wide else 1, 0, 0),
    )
    for name in known:
        table.add_column(
            name if wide else name.replace(" ", "\n"),
            justify="left" if name == "entry" else "right",
            no_wrap=True,
        )
    for row in zip(*known.values(), strict=True):
        table.add_row(*(Text(cell) for cell in row))
    return table


def _ratio(each: Compared, gap: str) -> str:
    if each.verdict == "base":
        return "base"
    if each.ratio is None:
        return "?"
    return gap.join(numbers(each.ratio))


def _number(value: float | None) -> str:
    return UNKNOWN if value is None else f"{value:,.1f}"


def _reasons(closed_by: dict[str, int] | None, gap: str) -> str:
    total = sum(closed_by.values()) if closed_by else 0
    if not closed_by or not total:
        return UNKNOWN
    shares = sorted(closed_by.items(), key=lambda item: -item[1])
    return gap.join(f"{reason} {100 * count / total:.0f} %" for reason, count in shares if count)
