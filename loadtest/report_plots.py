"""The plots of a report, as SVG: text stays text, and the same figures give the same bytes."""

from __future__ import annotations

import io
import math
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
WIDTH_INCHES: Final = 8.0


class Series(msgspec.Struct, frozen=True):
    """A line through the medians of `points`, every repeat of which is a dot: x -> its repeats."""

    name: str
    points: Mapping[float, Sequence[float]]


class Place(msgspec.Struct, frozen=True):
    """A setting by its throughput and latency; `group` chooses the colour."""

    label: str
    per_s: float
    p50_ms: float
    p99_ms: float
    group: str
    chosen: bool = False


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
            axis.scatter(
                places,
                values,
                s=16,
                marker=marker,
                color=color,
                alpha=0.65,
                zorder=3,
                label=each.name,
            )
        for name, level in levels.items():
            axis.axhline(level, color="#777777", linestyle="--", linewidth=1, label=name)
        for number, (name, (x, repeats)) in enumerate(named.items()):
            marker = "D^v*"[number % 4]
            beside = [x] * len(repeats)
            axis.scatter(
                beside,
                repeats,
                s=30,
                marker=marker,
                facecolors="none",
                edgecolors=INK,
                label=name,
                zorder=4,
            )
        ticks = sorted({x for each in series for x in each.points})
        axis.set_xscale("log")
        axis.set_xticks(ticks, [f"{x:,g}" for x in ticks], fontsize=8)
        axis.minorticks_off()
        axis.set_xlabel(x_label)
        axis.set_ylabel(y_label)
        _scale(axis, log=log_y)
        if len(series) + len(levels) + len(named) > 1:
            _legend(axis)

    return _render(draw, 3.8)


def latency_against_throughput(places: Sequence[Place]) -> bytes:
    """Every setting twice: its p50 hollow, its p99 full, a thin line between them."""

    def draw(figure: Figure) -> None:
        axis = figure.subplots()
        groups = list(dict.fromkeys(each.group for each in places))
        for number, group in enumerate(groups):
            color = COLORS[number % len(COLORS)]
            ours = [each for each in places if each.group == group]
            for each in ours:
                axis.plot(
                    [each.per_s] * 2,
                    [each.p50_ms, each.p99_ms],
                    color=color,
                    linewidth=0.7,
                    zorder=1,
                )
            xs = [each.per_s for each in ours]
            axis.scatter(
                xs, [each.p99_ms for each in ours], s=26, color=color, zorder=3, label=group
            )
            axis.scatter(
                xs,
                [each.p50_ms for each in ours],
                s=22,
                facecolors="white",
                edgecolors=color,
                zorder=3,
            )
        _label_places(axis, places)
        axis.set_xlabel("durable orders/s, median (full: p99, hollow: p50)")
        axis.set_ylabel("latency, ms")
        axis.set_yscale("log")
        axis.set_xlim(left=0)
        axis.locator_params(axis="x", nbins=6)
        _plain_ticks(axis)
        axis.xaxis.set_major_formatter(lambda value, _: f"{value:,.10g}")
        if len(groups) > 1:
            _legend(axis)

    return _render(draw, 4.6)


LABELS_MAX: Final = 14
"""Names on one plot; more of them cover each other, so only the extremes are named."""


def _label_places(axis: Axes, places: Sequence[Place]) -> None:
    named = list(places)
    if len(named) > LABELS_MAX:
        ends = sorted(named, key=lambda each: each.per_s)
        fast = sorted(named, key=lambda each: each.p99_ms)
        named = [
            each for each in named if each.chosen or each in (*ends[-4:], *ends[:2], *fast[:3])
        ]
    taken: list[tuple[float, float]] = []
    most = max((each.per_s for each in places), default=1.0) or 1.0
    for each in sorted(named, key=lambda each: (not each.chosen, -each.per_s)):
        at = (each.per_s / most, math.log10(max(each.p99_ms, 1e-3)))
        if any(abs(at[0] - x) < 0.11 and abs(at[1] - y) < 0.09 for x, y in taken):
            continue  # It would be written over another one.
        taken.append(at)
        axis.annotate(
            each.label,
            (each.per_s, each.p99_ms),
            textcoords="offset points",
            xytext=(0, 6),
            ha="right" if at[0] > 0.9 else "center",
            fontsize=7.5,
            fontweight="bold" if each.chosen else "normal",
        )


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

    return _render(draw, 3.4)


def over_the_run(timeline: Sequence[Second], units: int, *, given_back: bool) -> bytes:
    """Answers a second, stock left, and latency, over the time of a run.

    With `given_back` units come back, so what buyers took says nothing of what is left, and is shown
    itself.
    """

    def draw(figure: Figure) -> None:
        top, middle, bottom = figure.subplots(3, 1, sharex=True)
        at = [each.at_seconds + each.seconds / 2 for each in timeline]
        top.plot(
            at, [each.decided / each.seconds for each in timeline], color=COLORS[0], label="answers"
        )
        sold = [each.accepted / each.seconds for each in timeline]
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
            ("p50", COLORS[0], [each.p50_ms for each in timeline]),
            ("p99", COLORS[1], [each.p99_ms for each in timeline]),
        ):
            bottom.plot(
                at, [math.nan if each is None else each for each in value], color=color, label=name
            )
        bottom.set_ylabel("latency, ms")
        bottom.set_xlabel("seconds")
        for axis in (top, middle, bottom):
            _scale(axis, log=False)
            _legend(axis)

    return _render(draw, 6.0)


def bars(counts: Mapping[str, float], x_label: str, y_label: str) -> bytes:
    """One bar a name, with its value above it."""

    def draw(figure: Figure) -> None:
        axis = figure.subplots()
        names = list(counts)
        found = axis.bar(range(len(names)), list(counts.values()), color=COLORS[0], width=0.8)
        axis.bar_label(
            found, [f"{value:,.0f}" for value in counts.values()], fontsize=7.5, padding=2
        )
        axis.set_xticks(range(len(names)), names)
        axis.set_xlabel(x_label)
        axis.set_ylabel(y_label)
        axis.margins(y=0.12)
        axis.set_axisbelow(True)
        axis.grid(visible=False, axis="x")
        _scale(axis, log=False)

    return _render(draw, 3.2)


def dots(repeats: Mapping[str, Sequence[float]], x_label: str) -> bytes:
    """One row a name: every repeat a dot, a stroke at the median, over a logarithmic axis."""

    def draw(figure: Figure) -> None:
        axis = figure.subplots()
        names = list(repeats)
        for row, name in enumerate(names):
            values = [value for value in repeats[name] if value > 0]
            axis.scatter(values, [row] * len(values), s=22, color=COLORS[0], alpha=0.65, zorder=3)
            if values:
                axis.scatter([median(values)], [row], marker="|", s=260, color=COLORS[1], zorder=4)
        axis.set_yticks(range(len(names)), names)
        axis.invert_yaxis()
        axis.set_ylim(len(names) - 0.4, -0.6)
        axis.set_xscale("log")
        axis.xaxis.set_major_formatter(lambda value, _: f"{value:,.10g}")
        axis.set_xlabel(x_label)

    return _render(draw, 0.9 + 0.42 * len(repeats))


def _render(draw: Callable[[Figure], None], height_inches: float) -> bytes:
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH_INCHES, height_inches), layout="constrained")
        draw(figure)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()


def _scale(axis: Axes, *, log: bool) -> None:
    if log:
        axis.set_yscale("log")
    else:
        axis.set_ylim(bottom=0)
    _plain_ticks(axis)


def _plain_ticks(axis: Axes) -> None:
    formatter: Any = lambda value, _: f"{value:,.10g}"  # noqa: E731 -- matplotlib types it as a class
    axis.yaxis.set_major_formatter(formatter)
    low, high = axis.get_ylim()
    within_a_decade = low > 0 and high / low < 10
    axis.yaxis.set_minor_formatter(formatter if within_a_decade else (lambda *_: ""))


def _legend(axis: Axes) -> None:
    # Beside the plot: over it a legend hides what it explains.
    axis.legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=8)
