"""One timer that can be moved, in place of one for each order."""

from __future__ import annotations

import math
from collections.abc import Callable

from engine.clock import Clock, Timer


class Alarm:
    """Calls `ring` once, when the time it was last set to has come. Off when made."""

    def __init__(self, clock: Clock, ring: Callable[[], None]) -> None:
        self._clock = clock
        self._ring = ring
        self._timer: Timer | None = None
        self.at = math.inf
        """When it rings, in seconds of the monotonic clock; infinite while it is off."""

    def set(self, at: float) -> None:
        """Ring at `at`, at once if that has passed; infinite turns it off."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self.at = at
        if at < math.inf:
            wait = max(0.0, at - self._clock.monotonic())
            self._timer = self._clock.call_later(wait, self._rung)

    def _rung(self) -> None:
        self._timer, self.at = None, math.inf
        self._ring()
