"""The plots of a report, as SVG: text stays text, and the same figures give the same bytes."""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import TYPE_CHECKING, Any, Final

import msgspec

from loadtest.plots import STYLE
from loadtest.results import Second

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLORS: Final = ("#1f5fa8", "#c4511a", "#5b8c3a", "#7a4fa3", "#b8860b", "#0f8b8d", "#777777")
MARKERS: Final = "osD^vP*"
INK: Final = "#111111"
GREY: Final = "#777777"
WIDTH_INCHES: Final = 6.4
"""Narrow, so that ten points can still be read when a phone shows all of it."""

LEGEND_CHARACTERS_MAX: Final = 70
"""What fits into one row above a plot."""

NAME_CHARACTERS_MAX: Final = 40
"""Of one name; a longer one leaves the plot no room."""

# Names in a result are text: `$` begins no formula, and what cannot be parsed as one is no error.
REPORT_STYLE: Final[Any] = {**STYLE, "text.parse_math": False}


class Series(msgspec.Struct, frozen=True):
    """A line through the medians of `points`, every repeat of which is a dot: x -> its repeats."""

    name: str
    points: Mapping[float, Sequence[float]]


def lines(
    series: Sequence[Series],
    x_label: str,
    y_label: str,
    *,
    log_y: bool = False,
    levels: Mapping[str, float] = {},
    named: Mapping[str, tuple[float, Sequence[float]]] = {},
) -> bytes:
    """Lines over a logarithmic axis; `levels` are dashed, `named` repeats stand at a place of theirs."""

    def draw(figure: Figure) -> None:
        axis = figure.subplots()
        for number, each in enumerate(series):
            color = COLORS[number % len(COLORS)]
            xs = sorted(each.points)
            marker = MARKERS[number % len(MARKERS)]
            axis.plot(
                xs, [median(each.points[x]) for x in xs], color=color, linewidth=1.6, zorder=2
            )
            places = [x for x in xs for _ in each.points[x]]
            values = [value for x in xs for value in each.points[x]]
            axis.scatter(places, values, s=16, marker=marker, color=color, alpha=0.65, zorder=3)
            axis.plot([], [], color=color, marker=marker, markersize=4, label=text(each.name))
        for name, level in levels.items():
            axis.axhline(level, color=GREY, linestyle="--", linewidth=1, label=text(name))
        for number, (name, (x, repeats)) in enumerate(named.items()):
            axis.scatter(
                [x] * len(repeats),
                repeats,
                s=30,
                marker="D^vP"[number % 4],
                facecolors="none",
                edgecolors=INK,
                label=text(name),
                zorder=4,
            )
        axis.set_xscale("log")
        ticks = sorted({x for each in series for x in each.points})
        axis.set_xticks(ticks, _spaced(ticks), fontsize=8)
        axis.minorticks_off()
        axis.set_xlabel(x_label)
        axis.set_ylabel(y_label)
        _scale(axis, log=log_y)
        if len(series) + len(levels) + len(named) > 1:
            legend(axis)

    return render(draw, 3.6)


TICKS_RATIO_MIN: Final = 0.06
"""Of the axis: as close as two numbers of five digits may stand."""


def _spaced(ticks: Sequence[float]) -> list[str]:
    """The numbers of a logarithmic axis, without those that would touch the one before."""
    span = math.log(ticks[-1] / ticks[0]) if len(ticks) > 1 else 1.0
    found, last = [], -math.inf
    for tick in ticks:
        at = math.log(tick / ticks[0]) / span
        fits = at - last > TICKS_RATIO_MIN
        found.append(f"{tick:,g}" if fits else "")
        last = at if fits else last
    return found


def heat_map(values: Mapping[tuple[float, float], float], x_label: str, y_label: str) -> bytes:
    """Values by (column, row); each cell says its own. Missing ones are left white."""

    def draw(figure: Figure) -> None:
        axis = figure.subplots()
        columns, rows = (sorted({key[place] for key in values}) for place in (0, 1))
        grid = [[values.get((x, y), math.nan) for x in columns] for y in rows]
        image = axis.imshow(grid, cmap="Blues", aspect="auto", origin="lower", vmin=0)
        most = max(values.values(), default=1.0) or 1.0
        for row, y in enumerate(rows):
            for column, x in enumerate(columns):
                if (value := values.get((x, y))) is not None:
                    color = "white" if value > 0.6 * most else "#222222"
                    axis.text(
                        column,
                        row,
                        f"{value:,.0f}",
                        ha="center",
                        va="center",
                        fontsize=8,
                        color=color,
                    )
        axis.set_xticks(range(len(columns)), [f"{x:,g}" for x in columns])
        axis.set_yticks(range(len(rows)), [f"{y:,g}" for y in rows])
        axis.set_xlabel(x_label)
        axis.set_ylabel(y_label)
        axis.grid(visible=False)
        bar = figure.colorbar(image, ax=axis)
        bar.ax.yaxis.set_major_formatter(lambda value, _: f"{value:,.10g}")
        bar.set_label("durable orders/s")

    return render(draw, 3.4)


WHOLE_SECOND: Final = 0.9
STALL_RATIO: Final = 50


def over_the_run(timeline: Sequence[Second], units: int, *, given_back: bool) -> bytes:
    """Answers a second, stock left, and latency, over the time of a run.

    With `given_back` units come back, so what buyers took says nothing of what is left, and is shown
    itself. A begun second at either end counts for the units; its rate would be that of a few orders.
    """

    def draw(figure: Figure) -> None:
        top, middle, bottom = figure.subplots(3, 1, sharex=True)
        whole = [each for each in timeline if each.seconds > WHOLE_SECOND] or timeline
        at = [each.at_seconds + each.seconds / 2 for each in whole]
        top.plot(
            at, [each.decided / each.seconds for each in whole], color=COLORS[0], label="answers"
        )
        sold = [each.accepted / each.seconds for each in whole]
        top.plot(at, sold, color=COLORS[2], linestyle="--", label="sold")
        top.set_ylabel("orders/s")
        taken, ends, total = [0], [0.0], 0
        for each in timeline:
            total += each.units
            taken.append(total)
            ends.append(each.at_seconds + each.seconds)
        if given_back:
            middle.plot(ends, taken, color=COLORS[1], label="units taken")
        else:
            middle.plot(ends, [units - each for each in taken], color=COLORS[1], label="units left")
        middle.set_ylabel("units")
        for name, color, value in (
            ("p50", COLORS[0], [each.p50_ms for each in whole]),
            ("p99", COLORS[1], [each.p99_ms for each in whole]),
        ):
            bottom.plot(
                at, [math.nan if each is None else each for each in value], color=color, label=name
            )
        bottom.set_ylabel("latency, ms")
        bottom.set_xlabel("seconds")
        figure.align_ylabels()
        answered = [each for one in whole for each in (one.p50_ms, one.p99_ms) if each]
        # On a straight axis one stall would press all other seconds flat.
        wide = bool(answered) and max(answered) > STALL_RATIO * min(answered)
        for axis in (top, middle, bottom):
            _scale(axis, log=wide and axis is bottom)
            legend(axis)

    return render(draw, 6.0)


def bars(counts: Mapping[str, float], x_label: str, y_label: str) -> bytes:
    """One bar a name, with its value above it."""

    def draw(figure: Figure) -> None:
        axis = figure.subplots()
        names = list(counts)
        found = axis.bar(range(len(names)), list(counts.values()), color=COLORS[0], width=0.8)
        axis.bar_label(
            found, [f"{value:,.0f}" for value in counts.values()], fontsize=7.5, padding=2
        )
        axis.set_xticks(range(len(names)), names, fontsize=8)
        axis.set_xlabel(x_label)
        axis.set_ylabel(y_label)
        axis.margins(y=0.12)
        axis.set_axisbelow(True)
        axis.grid(visible=False, axis="x")
        _scale(axis, log=False)

    return render(draw, 3.2)


def dots(repeats: Mapping[str, Sequence[float]], x_label: str) -> bytes:
    """One row a name: every repeat a dot, a stroke at the median; over a logarithmic axis where they
    lie far apart."""

    def draw(figure: Figure) -> None:
        axis = figure.subplots()
        names = list(repeats)
        for row, name in enumerate(names):
            values = [value for value in repeats[name] if value > 0]
            axis.scatter(values, [row] * len(values), s=22, color=COLORS[0], alpha=0.65, zorder=3)
            if values:
                axis.scatter([median(values)], [row], marker="|", s=260, color=COLORS[1], zorder=4)
        axis.set_yticks(range(len(names)), [text(name) for name in names])
        axis.set_ylim(len(names) - 0.4, -0.6)
        seen = [value for values in repeats.values() for value in values if value > 0]
        axis.set_xlabel(x_label)
        if seen and max(seen) > STALL_RATIO * min(seen):
            axis.set_xscale("log")
            axis.set_xlabel(f"{x_label} (logarithmic)")
        else:
            # On a logarithmic axis of less than a decade the ticks cannot be read.
            axis.set_xlim(0, max(seen, default=1.0) * 1.05)
        axis.xaxis.set_major_formatter(lambda value, _: f"{value:,.10g}")

    return render(draw, 0.9 + 0.42 * len(repeats))


def render(draw: Callable[[Figure], None], height_inches: float) -> bytes:
    """The figure that `draw` fills, as the bytes of an SVG file."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context(REPORT_STYLE), warnings.catch_warnings():
        # Text stays text, so the reader's fonts count, and they may have what this one lacks.
        warnings.filterwarnings("ignore", message="Glyph ")
        # Figures that nobody can have measured make an odd plot, and that is for its reader to see.
        warnings.filterwarnings("ignore", category=RuntimeWarning)
        figure = Figure(figsize=(WIDTH_INCHES, height_inches), layout="constrained")
        draw(figure)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()


def text(name: str) -> str:
    """A name as a label: not too long, no character that XML forbids, none that hides it."""
    name = name if len(name) <= NAME_CHARACTERS_MAX else f"{name[: NAME_CHARACTERS_MAX - 1]}…"
    shown = "".join(each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in name)
    return f" {shown}" if shown.startswith("_") else shown


FEW_DECADES: Final = 200
"""The ends of an axis with so few powers of ten that 2 and 5 of each are numbered too."""


def plain_ticks(axis: Axes) -> None:
    """Numbers with separators of thousands instead of powers of ten, a few on every axis."""
    from matplotlib.ticker import LogLocator

    formatter: Any = lambda value, _: f"{value:,.10g}"  # noqa: E731 -- matplotlib types it as a class
    axis.yaxis.set_major_formatter(formatter)
    low, high = axis.get_ylim()
    if axis.get_yscale() == "log":
        if high / low < FEW_DECADES:
            axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.yaxis.set_minor_formatter(lambda *_: "")


def legend(axis: Axes) -> None:
    """Above the plot: over it a legend hides what it explains, and beside it there is no room."""
    handles, names = axis.get_legend_handles_labels()
    longest = max(map(len, names)) + 6
    axis.legend(
        handles,
        names,
        frameon=False,
        loc="lower left",
        bbox_to_anchor=(0.0, 1.0),
        ncols=max(1, min(len(names), LEGEND_CHARACTERS_MAX // longest)),
        fontsize=8,
        borderaxespad=0.2,
    )


def _scale(axis: Axes, *, log: bool) -> None:
    if log:
        axis.set_yscale("log")
    else:
        axis.set_ylim(bottom=0)
    plain_ticks(axis)
