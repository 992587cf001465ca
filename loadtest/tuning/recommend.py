"""Which setting to take: the fastest of those whose latency holds the condition.

The default stays unless it holds no condition or is shown to be slower: what cannot be told from it
is no reason to leave it.

With several concurrencies a setting is judged over all of them, each as often as the others: by the
geometric mean of its throughput, so that twice as fast at one counts as much as at any other, and
by its worst p99. Repeats are paired: those of one turn were made within a short time.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median

import msgspec

from engine.config import BatchSettings
from loadtest.intervals import REPEATS_MIN, Interval, interval_of, paired_ratio_of
from loadtest.tuning.experiment import Aim, Cell, CellRun


class Standing(msgspec.Struct, frozen=True):
    """One setting over all concurrencies.

    `rates` are durable orders a second by repeat, over the concurrencies the geometric mean; only
    repeats that were made at each of them count. `p99_ms` is the median at the concurrency where it
    is worst.
    """

    batch: BatchSettings
    label: str
    rates: dict[int, float]
    p99_ms: float
    p99_at: int

    @property
    def durable_per_s(self) -> float:
        return median(self.rates.values())

    def holds(self, p99_ms_max: float | None) -> bool:
        return p99_ms_max is None or self.p99_ms <= p99_ms_max


class Recommendation(msgspec.Struct, frozen=True, kw_only=True):
    """The setting to take for `aim`, and those that are not shown to be slower.

    `default` is the label of the default, and `fastest` of the setting that was ahead where the
    default is taken because the two cannot be told apart. `p99_ms_max` was the condition, null without one; `holds` is false when no setting held it, and
    this one came nearest. With several concurrencies `durable_per_s` is over all of them and
    `p99_ms` that of the worst. `not_told_from` are labels of other settings that hold the condition
    too and whose throughput, relative to this one, has an interval that does not lie below 1.

    The rest is null unless the setting was run again after it was chosen: `measured_again` is its
    throughput then, `held` whether its median came up to the interval of before (null where too few
    runs gave none). `ratio_to_default` is how many times the default's throughput was had by what
    ran in turns with it (null for the default alone, and with too few runs).
    """

    aim: Aim
    p99_ms_max: float | None
    batch: BatchSettings
    label: str
    durable_per_s: Interval
    p99_ms: float
    not_told_from: list[str]
    holds: bool = True
    default: str = ""
    fastest: str | None = None
    fastest_per_s: Interval | None = None
    measured_again: Interval | None = None
    p99_ms_again: float | None = None
    ratio_to_default: Interval | None = None
    held: bool | None = None


def standings(cells: Sequence[Cell], runs: Sequence[CellRun]) -> list[Standing]:
    """Every setting that was run at each of its concurrencies, in the order of `cells`."""
    found = []
    for label in dict.fromkeys(each.label for each in cells):
        ours = [each for each in cells if each.label == label]
        by_cell = [[run for run in runs if run.cell == cell] for cell in ours]
        rates = [{run.repeat: run.durable_per_s for run in each} for each in by_cell]
        common = sorted(set.intersection(*(set(each) for each in rates)))
        if not common:
            continue
        worst, at = max(
            (median(run.p99_ms for run in each), cell.concurrency)
            for cell, each in zip(ours, by_cell, strict=True)
        )
        means = {n: geometric_mean([each[n] for each in rates]) for n in common}
        found.append(Standing(ours[0].batch, label, means, worst, at))
    return found


def geometric_mean(values: Sequence[float]) -> float:
    """Of numbers above 0."""
    if len(values) == 1:
        return values[0]
    return math.exp(sum(map(math.log, values)) / len(values))


def ranked(found: Sequence[Standing], p99_ms_max: float | None) -> list[Standing]:
    """Best first: the faster of those that hold the condition, then who comes nearest to it.

    Of equals the one that was named first.
    """

    def place(each: Standing) -> tuple[bool, float]:
        holds = each.holds(p99_ms_max)
        return not holds, -each.durable_per_s if holds else each.p99_ms

    return sorted(found, key=place)


def recommend(
    found: Sequence[Standing],
    p99_ms_max: float | None,
    aim: Aim = "throughput",
    default: str = "",
) -> Recommendation:
    """The best of at least one setting, or the default if that cannot be told from it."""
    best = ranked(found, p99_ms_max)[0]
    usual = _called(default, found)
    if usual is None or not usual.holds(p99_ms_max) or is_slower(usual, best):
        usual = best
    blank = Recommendation(
        aim=aim,
        p99_ms_max=p99_ms_max,
        batch=best.batch,
        label=best.label,
        durable_per_s=_interval(best),
        p99_ms=best.p99_ms,
        not_told_from=[],
        holds=best.holds(p99_ms_max),
        default=default,
    )
    return _taking(blank, usual, best, found)


def _taking(
    before: Recommendation, chosen: Standing, best: Standing, found: Sequence[Standing]
) -> Recommendation:
    """The same with `chosen`, though `best` is ahead."""
    limit = before.p99_ms_max
    others = [each for each in ranked(found, limit) if each is not chosen and each.holds(limit)]
    return msgspec.structs.replace(
        before,
        batch=chosen.batch,
        label=chosen.label,
        durable_per_s=_interval(chosen),
        p99_ms=chosen.p99_ms,
        not_told_from=[
            each.label for each in others if before.holds and not is_slower(each, chosen)
        ],
        fastest=None if best is chosen else best.label,
        fastest_per_s=None if best is chosen else _interval(best),
    )


def _called(label: str, found: Sequence[Standing]) -> Standing | None:
    return next((each for each in found if each.label == label), None)


def _interval(each: Standing) -> Interval:
    return interval_of(list(each.rates.values()))


def is_slower(one: Standing, other: Standing) -> bool:
    """Whether it is shown; of fewer than REPEATS_MIN common repeats nothing is."""
    ratio = ratio_between(one, other)
    return ratio is not None and ratio.high < 1


def ratio_between(one: Standing, other: Standing) -> Interval | None:
    """How many times as fast `one` is, by the repeats both have; None of too few."""
    common = [n for n in one.rates if n in other.rates]
    if len(common) < REPEATS_MIN:
        return None
    return paired_ratio_of([other.rates[n] for n in common], [one.rates[n] for n in common])


def confirmed(
    chosen: Recommendation, found: Sequence[Standing], fresh: Sequence[Standing]
) -> Recommendation:
    """The recommendation of `found` with what fresh runs of it, and of the default, say.

    The best of many was chosen partly by luck. Where fresh runs do not show it to be faster than the
    default, the default is recommended after all. What is recommended held when the fresh median is
    not below the first interval, and the condition was met again.
    """
    limit, default = chosen.p99_ms_max, chosen.default
    first, again = _called(chosen.label, found), _called(chosen.label, fresh)
    assert first is not None
    assert again is not None
    ratio = None
    if chosen.label != default and (beside := _called(default, fresh)) is not None:
        ratio, usual = ratio_between(again, beside), _called(default, found)
        no_faster = ratio is not None and ratio.low <= 1
        if no_faster and usual is not None and usual.holds(limit) and beside.holds(limit):
            chosen = _taking(chosen, usual, first, found)
            first, again = usual, beside
    return msgspec.structs.replace(
        chosen,
        measured_again=_interval(again),
        p99_ms_again=again.p99_ms,
        ratio_to_default=ratio,
        held=_held(first, again, limit),
    )


def _held(first: Standing, again: Standing, p99_ms_max: float | None) -> bool | None:
    if not again.holds(p99_ms_max):
        return False
    if len(first.rates) < REPEATS_MIN:
        return None
    return again.durable_per_s >= _interval(first).low
