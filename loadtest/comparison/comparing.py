"""Is one entry faster than another, and may anybody say so? Figures in, verdicts out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final, Literal, TypeAlias

import msgspec

from loadtest.comparison.entries import Entry
from loadtest.intervals import REPEATS_MIN, Interval, paired_ratio_of, ratio_of

Verdict: TypeAlias = Literal["base", "faster", "slower", "no difference shown", "too few repeats"]

HOW_TO_REPEAT: Final = (
    "repeats come from --repeats, or from folders joined by commas: a1,a2,a3 are three of one"
)


class Compared(msgspec.Struct, frozen=True, kw_only=True):
    """One entry beside the base. `ratio` is null without an interval, and for the base.

    Latencies are medians over the repeats; `paired` tells that repeats were compared turn by turn.
    """

    name: str
    kind: str
    strategy: str
    started_at: str
    commit: str
    durable_per_s: float
    repeats: list[float]
    verdict: Verdict
    ratio: Interval | None
    paired: bool
    p50_ms: float
    p99_ms: float
    p999_ms: float | None
    size_mean: float | None
    closed_by: dict[str, int] | None


DRIFT: Final = 1.1
"""How many times as fast the same settings may be at another time of the same machine, beyond what
repeats show. On the shared machine of the published runs it was up to 1.3, mostly below 1.1."""


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """Entries beside the first of them, and why they may not be comparable."""

    base: str
    entries: list[Compared]
    warnings: list[str]

    @property
    def too_few(self) -> list[Compared]:
        return [each for each in self.entries if each.verdict == "too few repeats"]

    def below(self, limit: float) -> list[Compared]:
        """The entries shown to be slower than the base, whose median ratio is below `limit`."""
        return [
            each
            for each in self.entries
            if each.verdict == "slower" and each.ratio is not None and each.ratio.median < limit
        ]


def compare(entries: Sequence[Entry], warnings: Sequence[str] = ()) -> Comparison:
    """Compare every entry with the first."""
    base = entries[0]
    return Comparison(
        base=base.name,
        entries=[_compare(base, each) for each in entries],
        warnings=list(warnings),
    )


def _compare(base: Entry, other: Entry) -> Compared:
    verdict: Verdict
    ratio, paired = None, False
    if other is base:
        verdict = "base"
    elif min(len(base.samples), len(other.samples)) < REPEATS_MIN:
        verdict = "too few repeats"
    else:
        ratio, paired = _ratio(base, other)
        verdict = _judge(ratio)
    return Compared(
        name=other.name,
        kind=", ".join(dict.fromkeys(each.kind for each in other.origins)),
        strategy=other.strategy,
        started_at=min(each.started_at for each in other.origins),
        commit=", ".join(dict.fromkeys(each.commit for each in other.origins)),
        durable_per_s=other.durable_per_s,
        repeats=other.rates,
        verdict=verdict,
        ratio=ratio,
        paired=paired,
        p50_ms=other.p50_ms,
        p99_ms=other.p99_ms,
        p999_ms=other.p999_ms,
        size_mean=other.size_mean,
        closed_by=other.closed_by,
    )


def _ratio(base: Entry, other: Entry) -> tuple[Interval, bool]:
    """Turn by turn where both were repeated in turns of one experiment, and if those are enough."""
    turns = {each.turn: each.durable_per_s for each in base.samples}
    pairs = [(turns[each.turn], each.durable_per_s) for each in other.samples if each.turn in turns]
    together = {each.file for each in (*base.origins, *other.origins)}
    if len(together) == 1 and None not in turns and len(pairs) >= REPEATS_MIN:
        return paired_ratio_of(*zip(*pairs, strict=True)), True
    return apart(ratio_of(base.rates, other.rates)), False


def apart(ratio: Interval) -> Interval:
    """Repeats made one after the other tell nothing of how the machine differed between two times."""
    return Interval(ratio.median, ratio.low / DRIFT, ratio.high * DRIFT)


def _judge(ratio: Interval) -> Verdict:
    if ratio.low > 1:
        return "faster"
    return "slower" if ratio.high < 1 else "no difference shown"


def sentence(base: Compared, other: Compared, called: str = "") -> str:
    """The verdict in words; `called` is a short name of the base."""
    called = called or base.name
    if other.verdict == "base":
        return "the base"
    if other.ratio is None:
        seen = (
            f"{_digits(other.durable_per_s / base.durable_per_s)} times {called}"
            if base.durable_per_s
            else "?"
        )
        return (
            f"no difference shown: {seen}, but that was not tested: it takes {REPEATS_MIN} repeats of "
            f"each, and this has {len(other.repeats)} and {called} {len(base.repeats)}"
        )
    median, span = numbers(other.ratio)
    found = f"{median} times the throughput of {called} {span}"
    return f"no difference shown, {found}" if other.verdict == "no difference shown" else found


def numbers(ratio: Interval) -> tuple[str, str]:
    """A ratio and its interval to read, with as many digits as the ratio deserves: 1.43, 0.0178."""
    digits = _decimals(ratio.median)
    median, low, high = (f"{value:,.{digits}f}" for value in msgspec.structs.astuple(ratio))
    return median, f"({low} to {high})"


def _digits(ratio: float) -> str:
    return f"{ratio:,.{_decimals(ratio)}f}"


def _decimals(ratio: float) -> int:
    if 0 < ratio < 0.3:
        return 2 - math.floor(math.log10(ratio))
    return 2 if ratio < 10 else 1 if ratio < 100 else 0
