"""Latency against throughput: every setting a point with its name, none written over another."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Final, TypeAlias

import msgspec

from loadtest.reports.plots import COLORS, GREY, legend, plain_ticks, render, text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NAMES_MAX: Final = 30
"""On one plot. Of more settings those are named to which none is both faster and sooner."""

POINTS_EACH: Final = 72.0
LETTER_POINTS: Final = (4.5, 8.5)
"""Width and height of a letter, somewhat more than a small one takes."""

DOT_POINTS: Final = 4.0
NEAR_POINTS: Final = 11.0
"""A name further from its dot gets a line to it."""

DISTANCES_POINTS: Final = (9, 13, 18, 24, 32, 42, 54, 68, 84)
ANGLES: Final = (90, 60, 120, 30, 150, 0, 180, -30, -150, -60, -120, -90)

Box: TypeAlias = tuple[float, float, float, float]
"""Left, bottom, right, top."""


class Place(msgspec.Struct, frozen=True):
    """A setting by its throughput and latency; `group` chooses the colour."""

    label: str
    per_s: float
    p50_ms: float
    p99_ms: float
    group: str
    chosen: bool = False


def latency_against_throughput(places: Sequence[Place]) -> bytes:
    """Every setting twice: its p50 hollow, its p99 full, a thin line between them.

    Settings without any latency have no place on the logarithmic axis and are left out.
    """
    shown = [each for each in places if each.p50_ms > 0 and each.p99_ms > 0]

    def draw(figure: Figure) -> None:
        axis = figure.subplots()
        groups = list(dict.fromkeys(each.group for each in shown))
        colors = {group: COLORS[number % len(COLORS)] for number, group in enumerate(groups)}
        for group, color in colors.items():
            ours = [each for each in shown if each.group == group]
            xs = [each.per_s for each in ours]
            p50, p99 = [each.p50_ms for each in ours], [each.p99_ms for each in ours]
            axis.vlines(xs, p50, p99, color=color, linewidth=0.7, zorder=1)
            axis.scatter(xs, p99, s=24, color=color, zorder=3, label=text(group))
            axis.scatter(xs, p50, s=20, facecolors="white", edgecolors=color, zorder=3)
        axis.set_xlabel("durable orders/s, median")
        axis.set_ylabel("latency, ms (full: p99, hollow: p50)")
        axis.set_yscale("log")
        axis.margins(x=0.08, y=0.14)
        axis.locator_params(axis="x", nbins=6)
        plain_ticks(axis)
        axis.xaxis.set_major_formatter(lambda value, _: f"{value:,.10g}")
        if len(groups) > 1:
            legend(axis)
        _name(figure, axis, shown, colors)

    return render(draw, 4.6)


def named_places(places: Sequence[Place]) -> list[Place]:
    """Those that get a name, the chosen ones first."""
    if len(places) > NAMES_MAX:
        places = [each for each in places if each.chosen or not _is_beaten(each, places)]
    return sorted(places, key=lambda each: (not each.chosen, -each.per_s))[:NAMES_MAX]


def _is_beaten(one: Place, places: Sequence[Place]) -> bool:
    return any(each.per_s > one.per_s and each.p99_ms < one.p99_ms for each in places)


def _name(figure: Figure, axis: Axes, places: Sequence[Place], colors: Mapping[str, str]) -> None:
    figure.draw_without_rendering()  # Where points are is known when the layout is.
    scale = POINTS_EACH / figure.dpi

    def at(per_s: float, latency_ms: float) -> tuple[float, float]:
        x, y = axis.transData.transform((per_s, latency_ms))
        return float(x) * scale, float(y) * scale

    left, bottom, right, top = (edge * scale for edge in axis.bbox.extents)
    inside = (left + 2, bottom + 2, right - 1, top - 1)
    taken: list[Box] = []
    for each in places:
        x, high = at(each.per_s, each.p99_ms)
        low = at(each.per_s, each.p50_ms)[1]
        taken += [_around(x, y, DOT_POINTS, DOT_POINTS) for y in (low, high)]
        taken.append((x - 0.5, min(low, high), x + 0.5, max(low, high)))
    for each in named_places(places):
        x, y = at(each.per_s, each.p99_ms)
        label = text(each.label)
        place = free_place((x, y), label, taken, inside)
        if place is None:
            continue  # The table has it.
        taken.append(_box_of(place, label))
        far = math.dist(place, (x, y)) > NEAR_POINTS
        axis.annotate(
            label,
            (each.per_s, each.p99_ms),
            xytext=(place[0] - x, place[1] - y),
            textcoords="offset points",
            ha="center",
            va="center",
            fontsize=7.5,
            color=colors[each.group],
            fontweight="bold" if each.chosen else "normal",
            arrowprops={"arrowstyle": "-", "color": GREY, "linewidth": 0.5, "shrinkB": 3}
            if far
            else None,
        )


def free_place(
    dot: tuple[float, float], label: str, taken: Sequence[Box], inside: Box
) -> tuple[float, float] | None:
    """The middle of the nearest place for a name by its dot that covers nothing; None without one."""
    for x, y in _around_dot(dot, label):
        box = _box_of((x, y), label)
        within = (
            inside[0] <= box[0]
            and inside[1] <= box[1]
            and box[2] <= inside[2]
            and box[3] <= inside[3]
        )
        if within and not any(_overlap(box, each) for each in taken):
            return x, y
    return None


def _around_dot(dot: tuple[float, float], label: str) -> Iterator[tuple[float, float]]:
    """Middles of names whose nearest edge is so far from the dot, nearer ones first."""
    half = len(label) * LETTER_POINTS[0] / 2
    for distance in DISTANCES_POINTS:
        for angle in ANGLES:
            across, up = math.cos(math.radians(angle)), math.sin(math.radians(angle))
            yield dot[0] + across * (distance + half), dot[1] + up * distance


def _box_of(middle: tuple[float, float], label: str) -> Box:
    width, height = LETTER_POINTS
    return _around(*middle, len(label) * width / 2, height / 2)


def _around(x: float, y: float, across: float, up: float) -> Box:
    return x - across, y - up, x + across, y + up


def _overlap(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
