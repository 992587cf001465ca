"""Plots as SVG files: text stays text, and the same figures give the same bytes."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from statistics import median
from typing import TYPE_CHECKING, Any, Final

import msgspec

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INCHES: Final = (8.0, 6.5)
LINE, DOT, NAMED = "#1f5fa8", "#7fa7d1", "#c4511a"
# The type of the keys changes with every version of the library.
STYLE: Final[Any] = {
    "svg.hashsalt": "seckill",
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "axes.grid": True,
    "grid.alpha": 0.3,
    "axes.spines.top": False,
    "axes.spines.right": False,
}


class Panel(msgspec.Struct, frozen=True):
    """One plot: every repeat by its place on the x axis, and named settings beside them.

    `named` maps a name to its place and its repeats. `log` is for values over several magnitudes.
    """

    label: str
    points: Mapping[float, Sequence[float]]
    named: Mapping[str, tuple[float, Sequence[float]]]
    log: bool = False


def by_batch_size(title: str, panels: Sequence[Panel]) -> bytes:
    """Panels over one logarithmic axis: every repeat a dot, a line through the medians."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context(STYLE):
        figure = Figure(figsize=INCHES, layout="constrained")
        axes = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
        for axis, panel in zip(axes, panels, strict=True):
            _draw(axis, panel)
        axes[0].set_title(title, loc="left")
        axes[0].legend(frameon=False)
        axes[-1].set_xscale("log")
        axes[-1].set_xlabel("orders in a batch, at most")
        sizes = sorted(panels[0].points)
        axes[-1].set_xticks(sizes, [f"{size:,g}" for size in sizes])
        axes[-1].minorticks_off()
        buffer = io.BytesIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()


def _draw(axis: Axes, panel: Panel) -> None:
    points = panel.points
    sizes = sorted(points)
    axis.plot(sizes, [median(points[size]) for size in sizes], color=LINE, label="median", zorder=2)
    places = [size for size in sizes for _ in points[size]]
    values = [value for size in sizes for value in points[size]]
    axis.scatter(places, values, s=16, color=DOT, label="one run", zorder=3)
    for number, (name, (size, repeats)) in enumerate(panel.named.items()):
        marker, beside = "D^sv"[number % 4], [size] * len(repeats)
        axis.scatter(beside, repeats, s=28, marker=marker, color=NAMED, label=name, zorder=4)
    axis.set_ylabel(panel.label)
    if panel.log:
        axis.set_yscale("log")
    else:
        axis.set_ylim(bottom=0)
    axis.yaxis.set_major_formatter(lambda value, _: f"{value:,.10g}")
