"""Plots as SVG files: text stays text, and the same figures give the same bytes."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import msgspec

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INCHES: Final = (8.0, 6.5)
COLORS: Final = (
    *("#1f5fa8", "#c4511a", "#5b8c3a", "#777777"),
    *("#8a4fae", "#c9a227", "#1b9e9e", "#d0578e", "#3b3b3b"),
)
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


class TimePanel(msgspec.Struct, frozen=True):
    """One plot over time: lines by their names, and `dashed` levels by theirs. None is a gap."""

    label: str
    lines: Mapping[str, Sequence[float | None]]
    dashed: Mapping[str, float] = {}
    log: bool = False


def over_time(
    title: str,
    seconds: Sequence[float],
    panels: Sequence[TimePanel],
    spans: Mapping[str, tuple[float, float]],
) -> bytes:
    """Panels over one axis of seconds; `spans` are named stretches of it, every second one grey."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context(STYLE):
        figure = Figure(figsize=INCHES, layout="constrained")
        axes = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
        for axis, panel in zip(axes, panels, strict=True):
            for color, (name, values) in zip(COLORS, panel.lines.items(), strict=False):
                drawn = [math.nan if each is None else each for each in values]
                axis.plot(seconds, drawn, color=color, label=name, linewidth=1.4)
            for name, level in panel.dashed.items():
                axis.axhline(level, color="#777777", linestyle="--", linewidth=1, label=name)
            for number, (begin, end) in enumerate(spans.values()):
                if number % 2 == 0:
                    axis.axvspan(begin, end, color="#000000", alpha=0.05, linewidth=0)
            axis.set_ylabel(panel.label)
            if panel.log:
                axis.set_yscale("log")
            else:
                axis.set_ylim(bottom=0)
            axis.yaxis.set_major_formatter(lambda value, _: f"{value:,.10g}")
            # Beside the plot: over it a legend hides what it explains.
            axis.legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
        for name, (begin, end) in spans.items():
            axes[0].text(
                (begin + end) / 2, 1.03, name, ha="center", fontsize=8, transform=_above(axes[0])
            )
        axes[0].set_title(title, loc="left", pad=22)
        axes[-1].set_xlabel("seconds")
        buffer = io.BytesIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()


def _above(axis: Axes) -> Any:
    """Seconds across, shares of the plot's height upwards."""
    return axis.get_xaxis_transform()
