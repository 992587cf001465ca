"""When orders are due.

In a closed loop a buyer sends the next order when the one before was answered: what is measured is how
much a server can take, and a server that stalls is asked less. In an open loop orders are due by a
timetable, whatever the server does, and latency counts from then on: a stall shows in every order that was
due in it (Tene 2013 calls the opposite coordinated omission).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Final

import numpy as np

from loadtest.swarm.shapes import Shape, share

SLICE_SECONDS: Final = 0.1
"""The timetable is drawn in slices, in which the rate does not change."""

_STREAM: Final = 1_000_003
"""Of the random numbers for arrivals, so that they share none with the orders' columns."""


def timetable(
    shape: Shape, per_second: float, seconds: float, seed: int, place: int = 0, of: int = 1
) -> Iterator[float]:
    """Seconds from the start at which orders are due, rising: a Poisson process of at most `per_second`.

    Of `of` processes the one at `place` gets every `of`-th order, so that the same seed gives the
    same arrivals however many there are.
    """
    rng = np.random.default_rng(np.random.SeedSequence([seed, _STREAM]))
    number = 0
    for index in range(math.ceil(round(seconds / SLICE_SECONDS, 9))):
        begin = index * SLICE_SECONDS
        width = min(SLICE_SECONDS, seconds - begin)
        rate = per_second * share(shape, (begin + width / 2) / seconds)
        # Given how many come in a slice, each comes at any moment of it.
        for at in np.sort(rng.random(rng.poisson(rate * width))) * width + begin:
            if number % of == place:
                yield float(at)
            number += 1
