"""How sure a median is: percentile bootstrap (Efron 1979), with a fixed seed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec
import numpy as np

BOOTSTRAP_SAMPLES: Final = 2_000


class Interval(msgspec.Struct, frozen=True):
    """A median and its 95 % interval."""

    median: float
    low: float
    high: float


def interval_of(repeats: Sequence[float]) -> Interval:
    """Summarise repeats; of a single one the interval is the value itself."""
    values = np.array(repeats)
    rng = np.random.default_rng(1)
    medians = np.median(rng.choice(values, (BOOTSTRAP_SAMPLES, len(values))), axis=1)
    low, high = np.percentile(medians, [2.5, 97.5])
    return Interval(float(np.median(values)), float(low), float(high))
