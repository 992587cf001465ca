"""How much of a crowd is there over the time of a run. Imports no numpy: --help names the shapes."""

from __future__ import annotations

import math
from typing import Final, Literal, TypeAlias, get_args

Shape: TypeAlias = Literal["flash", "ramp", "wave", "soak"]
SHAPES: Final[tuple[str, ...]] = get_args(Shape)

WAVES: Final = 3
WAVE_LOW: Final = 0.1
SOAK_RISE: Final = 0.1


def share(shape: Shape, progress: float) -> float:
    """How much of the crowd is there when `progress` of the time, from 0 to 1, has passed.

    flash  everybody from the first moment on
    ramp   more and more, in a straight line
    wave   three waves between a tenth and all of it
    soak   a slow beginning, then everybody until the end
    """
    match shape:
        case "flash":
            return 1.0
        case "ramp":
            return min(1.0, max(0.0, progress))
        case "wave":
            height = (1 - math.cos(2 * math.pi * WAVES * progress)) / 2
            return WAVE_LOW + (1 - WAVE_LOW) * height
        case "soak":
            return min(1.0, max(0.0, progress / SOAK_RISE))
