"""Successive halving: a short look at every setting, and more repeats for the better half only.

After Jamieson and Talwalkar, "Non-stochastic Best Arm Identification and Hyperparameter
Optimization" (AISTATS 2016), algorithm 1: in every round as much time is spent, on half as many
settings. It stops when few are left, because the question is also which cannot be told from the
best, and gives those all their repeats. The default goes on while it holds the condition: without
its repeats nobody could say whether there is a reason to leave it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import msgspec

from loadtest.tuning.recommend import Standing, ranked

FEW: Final = 3


class Round(NamedTuple):
    """So many settings, each with `repeats` in all when the round is over."""

    settings: int
    repeats: int


class Dropped(msgspec.Struct, frozen=True):
    """A setting that a search did not look at any longer, and why."""

    label: str
    repeats: int
    why: str


def rounds(settings: int, repeats: int) -> list[Round]:
    """What a search does; it ends when few settings are left, or those left have all `repeats`."""
    found = [Round(settings, repeats if settings <= FEW else 1)]
    while found[-1].repeats < repeats:
        left = -(-found[-1].settings // 2)
        upto = repeats if left <= FEW else min(repeats, 2 * found[-1].repeats)
        found.append(Round(left, upto))
    return found


def runs_in(plan: Sequence[Round]) -> int:
    """Runs at one concurrency."""
    before = [0, *(each.repeats for each in plan)]
    return sum(
        each.settings * (each.repeats - done) for each, done in zip(plan, before, strict=False)
    )


def halve(
    found: Sequence[Standing], keep: int, p99_ms_max: float | None, default: str = ""
) -> tuple[list[str], list[Dropped]]:
    """Labels of the `keep` best, in the order of `found`, and the others, best first.

    The default takes the last place if it would not have one.
    """
    places = ranked(found, p99_ms_max)
    late = [
        each
        for each in places[keep:]
        if keep > 1 and each.label == default and each.holds(p99_ms_max)
    ]
    kept = places[: keep - len(late)]
    dropped = [each for each in places[len(kept) :] if each not in late]
    last, beside = kept[-1], " beside the default" if late else ""
    kept += late
    labels = {each.label for each in kept}
    return (
        [each.label for each in found if each.label in labels],
        [
            Dropped(each.label, len(each.rates), _why(each, last, p99_ms_max, beside))
            for each in dropped
        ],
    )


def _why(each: Standing, last: Standing, p99_ms_max: float | None, beside: str) -> str:
    """Against the last one that was kept by its rank."""
    if each.holds(p99_ms_max):
        return (
            f"{each.durable_per_s:,.0f} durable orders/s, and the slowest that goes on{beside} has "
            f"{last.durable_per_s:,.0f}"
        )
    nearest = (
        "" if last.holds(p99_ms_max) else f", and the worst that goes on has {last.p99_ms:,.1f}"
    )
    return (
        f"p99 {each.p99_ms:,.1f} ms at {each.p99_at:,} in flight is above {p99_ms_max:g}{nearest}"
    )
