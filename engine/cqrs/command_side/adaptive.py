"""Limits of a batch that follow the store, so that an order is answered within an aim.

Half of the aim is for waiting (for the round before, or for company), half for the order's own
round. A round that decides and writes n commands is taken to last `fixed + each * n` seconds, fitted
to the last rounds. From that follow, as docs/decisions/0024 explains:

size    the most commands whose round lasts half of the aim, but never so few that the fixed cost is
        more than half of the round, and while so much waits that the aim is missed anyhow, so many
        that it is a tenth
delay   half of the aim, or what the round leaves of it, and only while the writer is busy and for an
        order that came within that time after the last round; it ends early when as many wait as
        are expected
"""

from __future__ import annotations

import math
from typing import Final

from engine.cqrs.command_side.batch import BatchLimits

MEMORY: Final = 0.95
"""What a round still counts after the next one: the last twenty rounds make the estimate."""

STALL_MAX: Final = 4.0
"""A round counts as at most so many times what was expected: one stall does not move the limits far,
and a store that became slower is known after a few rounds."""

PRIOR_WEIGHT: Final = 0.0025
"""Sizes that vary by a twentieth of their mean count as much as the assumption made without them."""

PRIOR_SHARE: Final = 0.05
"""Of a round, what is assumed to be for its commands. Little, because that errs on the side of large
batches, which is what there is without limits: the first of a rush follow rounds of one order."""

FLOODED_COSTS: Final = 9.0
"""While throughput is short, commands take so many times the fixed cost: larger batches could save a
tenth at most, and the event loop has no turn while one is decided."""

BUSY_SHARE_MIN: Final = 0.5
"""Waiting for company pays when most rounds follow the one before at once."""


class RoundTime:
    """How long a round lasts: `fixed + each * n` seconds, by least squares over the last rounds.

    Both are finite and not negative, 0 before the first round.
    """

    def __init__(self) -> None:
        self.fixed = self.each = 0.0
        self._weight = self._n = self._s = self._nn = self._ns = 0.0

    def seconds(self, commands: float) -> float:
        return self.fixed + self.each * commands

    def learn(self, commands: int, seconds: float) -> None:
        """Take in a round of at least one command."""
        if self._weight and (expected := self.seconds(commands)):
            seconds = min(seconds, STALL_MAX * expected)
        self._weight = self._weight * MEMORY + 1
        self._n = self._n * MEMORY + commands
        self._s = self._s * MEMORY + seconds
        self._nn = self._nn * MEMORY + commands * commands
        self._ns = self._ns * MEMORY + commands * seconds
        n, s = self._n / self._weight, self._s / self._weight
        # Rounds of one size cannot tell the two apart; the assumption keeps noise from deciding.
        prior = PRIOR_WEIGHT * n * n
        slope = self._ns / self._weight - n * s + prior * PRIOR_SHARE * s / n
        spread = self._nn / self._weight - n * n + prior
        self.each = min(max(slope / spread, 0.0), s / n)
        self.fixed = max(s - self.each * n, 0.0)


class AdaptivePacer:
    """Paces the rounds of one partition by `aim_seconds`. A `Pacer`; times are monotonic seconds."""

    def __init__(self, size_max: int, aim_seconds: float, aggregates_max: int) -> None:
        self.round_time = RoundTime()
        self._aim = aim_seconds
        self._widest = BatchLimits(size_max, 0.0, aggregates_max)
        self._prompt = self._patient = self._flooded = self._widest
        self._last_commands = 0
        self._last_seconds = 0.0
        self._ended = 0.0
        self._busy = 0.0
        self._is_new_round = self._is_gap_open = self._may_wait = False

    def limits(self, waiting: int, aggregates: int, now: float) -> BatchLimits:
        if self._is_new_round:
            self._is_new_round = False
            # Buyers who order again at once: those who wait, and those who were just answered.
            self._plan(waiting + self._last_commands)
        if self._is_gap_open and waiting:
            self._is_gap_open = False
            gap = now - self._ended
            self._busy = self._busy * MEMORY + (gap <= self._last_seconds) * (1 - MEMORY)
            is_busy = self._busy >= BUSY_SHARE_MIN
            self._may_wait = is_busy and gap < self._patient.delay_seconds_max
        if waiting > 2 * self._prompt.size_max:
            # Whoever came last would miss the aim in rounds of this size: now throughput counts.
            return self._flooded
        # Batches of several aggregates fall due one by one, so waiting would not merge them.
        return self._patient if self._may_wait and aggregates == 1 else self._prompt

    def round_over(self, commands: int, seconds: float, now: float, *, wrote: bool) -> None:
        self._last_commands, self._last_seconds, self._ended = commands, seconds, now
        self._is_new_round = self._is_gap_open = True
        self._may_wait = False
        if wrote:
            self.round_time.learn(commands, seconds)

    def _plan(self, expected: int) -> None:
        aggregates_max = self._widest.aggregates_max
        fixed, each = self.round_time.fixed, self.round_time.each
        size = self._as_size(
            max((self._aim / 2 - fixed) / each, fixed / each) if each else math.inf
        )
        flooded = self._as_size(fixed / each * FLOODED_COSTS if each else math.inf)
        left = self._aim - self.round_time.seconds(min(expected, size))
        delay = min(max(left, 0.0), self._aim / 2)
        self._flooded = BatchLimits(max(size, flooded), 0.0, aggregates_max)
        self._prompt = BatchLimits(size, 0.0, aggregates_max)
        self._patient = BatchLimits(size, delay, aggregates_max, max(expected, 1))

    def _as_size(self, commands: float) -> int:
        return int(min(max(commands, 1.0), self._widest.size_max))
