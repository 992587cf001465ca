"""A hint in front of the engine: refuses orders that cannot succeed, before they cost anything.

    orders --> Gate.check --> pass | sold_out | too_fast (retry after so many seconds)
                  ^
    GateFeed -----+   tells which SKUs are sold out, again and again

What a gate is, and is not:

- It can refuse, never sell: what passes is decided by the engine alone.
- It fails open. Whatever is wrong with Redis, `check` returns "pass", and soon.
- It may be behind. A flag "sold out" lives `gate.staleness_ms_max` and is set again at a third of
  it, so a false one ends within that time although feed, process or Redis die. When stock comes
  back, the flag is removed at once.
- Flags belong to a generation. One of another generation, such as a Redis that came back with old
  data, counts for nothing; from then until the feed has read the store anew, everything passes.

The trap: a buyer who already has the last unit and asks again with the same command id must get
the first answer, "reserved", not "sold out". Gates know no command ids. Whoever uses one believes
`sold_out` only for ids that the engine does not know (`LiveStock.may_know`), and sends the others on.
`too_fast` may be believed for any id: it says "later", never "no".
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Final, Literal, NamedTuple, Protocol

import msgspec


class GateOrder(NamedTuple):
    """What a gate wants to know of an order."""

    sku: str
    buyer: str
    quantity: int = 1
    """Units. A flag means that none is left, so today's gates do not look at it."""


class Verdict(msgspec.Struct, frozen=True):
    """`retry_after_seconds` is above 0 for `too_fast` only."""

    kind: Literal["pass", "sold_out", "too_fast"]
    retry_after_seconds: float = 0.0


PASS: Final = Verdict("pass")
SOLD_OUT: Final = Verdict("sold_out")


class GateUnavailable(Exception):
    """The flags could not be written now; orders pass. Met by the feed only."""


class FlagsLost(GateUnavailable):
    """The flags of this generation are gone or another one is in force: rebuild them."""


class GateStatistics(msgspec.Struct, frozen=True):
    """Since the gate was opened. Verdicts count orders; `passed` includes `unasked`."""

    passed: int
    sold_out: int
    too_fast: int
    unasked: int
    """Orders that passed because nobody answered in time, or because nobody was asked."""
    calls: int
    """Questions asked, each for a list of orders or for the single orders that waited together."""
    failures: int
    """Calls, for orders or flags, that failed or were not answered in time."""
    trusted: bool
    """Flags count now: the server answers, and the feed has told what is sold out."""
    generation: str
    """The generation that is trusted; empty when none is."""
    rebuilds: int


class Gate(Protocol):
    """Shared by everybody who takes orders in this process. One feed writes its flags."""

    async def check(self, orders: Sequence[GateOrder]) -> list[Verdict]:
        """A verdict for each order, in their sequence. Never raises.

        Returns within `gate.timeout_ms_max`; so long for each thousand of a longer list.

        Every order that is not too fast counts towards its buyer's speed, sold out or not.
        """

    def statistics(self) -> GateStatistics: ...

    async def close(self) -> None:
        """Whoever still waits is let pass, and so is whoever comes later."""

    @property
    def connected(self) -> bool:
        """Flags can be written now."""

    @property
    def trusted(self) -> bool:
        """Flags are believed now: `rebuild` succeeded and nothing was lost since."""

    def on_change(self, callback: Callable[[], None]) -> None:
        """Call back when `connected` or `trusted` may have changed by itself."""

    async def rebuild(self, sold_out: Collection[str]) -> None:
        """Begin a generation in which these SKUs are sold out, and no others.

        Raises GateUnavailable, FlagsLost.
        """

    async def mark(self, sold_out: Collection[str]) -> None:
        """Flag these for the staleness bound from now on; with none, see whether all is well.

        Raises GateUnavailable, FlagsLost.
        """

    async def clear(self, skus: Collection[str]) -> None:
        """Remove these flags now. Raises GateUnavailable."""


class GateCounts:
    """Counts for the statistics of a gate."""

    def __init__(self) -> None:
        self.passed = self.sold_out = self.too_fast = self.unasked = 0
        self.calls = self.failures = self.rebuilds = 0

    def answered(self, verdicts: Sequence[Verdict]) -> None:
        for verdict in verdicts:
            if verdict is PASS:
                self.passed += 1
            elif verdict is SOLD_OUT:
                self.sold_out += 1
            else:
                self.too_fast += 1

    def let_pass(self, orders: int) -> list[Verdict]:
        """Verdicts for orders about which nobody was asked, or nobody answered."""
        self.passed += orders
        self.unasked += orders
        return [PASS] * orders

    def frozen(self, generation: str, *, trusted: bool) -> GateStatistics:
        return GateStatistics(
            passed=self.passed,
            sold_out=self.sold_out,
            too_fast=self.too_fast,
            unasked=self.unasked,
            calls=self.calls,
            failures=self.failures,
            trusted=trusted,
            generation=generation,
            rebuilds=self.rebuilds,
        )
