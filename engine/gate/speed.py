"""How fast one buyer may order: the generic cell rate algorithm.

Every order moves the buyer's "theoretical arrival time" on by one interval. An order is too fast
when that time is further ahead of now than the burst allows; it then moves nothing, so asking again
and again does not push the time away. One number a buyer, and nothing to tidy up: once the time is
past, a buyer is as good as unknown. `CHECK` in redis_scripts.py is the same rule in Lua.
"""

from __future__ import annotations

import msgspec

MICROSECONDS = 1_000_000


class SpeedLimit(msgspec.Struct, frozen=True):
    """`interval_us`: between orders at full speed, 0 is no limit. `tolerance_us`: how far ahead."""

    interval_us: int
    tolerance_us: int

    @classmethod
    def of(cls, orders_per_second_max: float, orders_burst_max: int) -> SpeedLimit:
        """`orders_burst_max` orders at once by a rested buyer; then `orders_per_second_max`."""
        if not orders_per_second_max:
            return cls(0, 0)
        interval_us = max(1, round(MICROSECONDS / orders_per_second_max))
        return cls(interval_us, interval_us * (orders_burst_max - 1))

    def order(self, arrival_us: int, now_us: int) -> tuple[int, int]:
        """The buyer's next arrival time, and for how many microseconds it is too early (0: not)."""
        # Never further ahead than orders can bring it: a clock that was set back bars nobody.
        ahead_us = min(max(arrival_us - now_us, 0), self.tolerance_us + self.interval_us)
        if ahead_us > self.tolerance_us:
            return arrival_us, ahead_us - self.tolerance_us
        return now_us + ahead_us + self.interval_us, 0
