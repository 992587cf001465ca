"""The pace follows the store: batches as large as the aim allows, and no wait that brings nothing."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.cqrs.command_side.adaptive import AdaptivePacer, RoundTime
from engine.cqrs.command_side.batch import BatchLimits

SIZE_MAX = 8_190


class Rounds:
    """Drives a pacer through rounds on a store of known cost; time is a number here."""

    def __init__(self, cost: Callable[[int], float], aim_seconds: float = 0.02) -> None:
        self.cost = cost
        self.pacer = AdaptivePacer(SIZE_MAX, aim_seconds, 256)
        self.now = 0.0

    def round(self, commands: int, waiting: int = 0, aggregates: int = 1) -> BatchLimits:
        """One round, and the limits that are asked right after it."""
        seconds = self.cost(commands)
        self.now += seconds
        self.pacer.round_over(commands, seconds, self.now, wrote=True)
        return self.pacer.limits(waiting, aggregates, self.now)

    def rounds(self, sizes: list[int], waiting: int = 1) -> BatchLimits:
        return [self.round(each, waiting) for each in sizes][-1]


def varied(around: int, count: int = 60) -> list[int]:
    rng = random.Random(1)
    return [rng.randint(max(1, around // 2), around * 3 // 2) for _ in range(count)]


@pytest.mark.parametrize(
    ("fixed", "each", "aim", "size"),
    [
        (0.002, 1e-5, 0.02, 800),
        (0.002, 1e-5, 0.05, 2_300),
        (0.002, 1e-6, 0.05, SIZE_MAX),
        # Half of the aim is hardly more than the fixed cost, or less: a batch of a few orders would
        # spend all its time on it.
        (0.002, 1e-5, 0.005, 200),
        (0.050, 1e-5, 0.02, 5_000),
    ],
)
def test_the_largest_batch_takes_half_of_the_aim_and_is_not_mostly_fixed_cost(
    fixed: float, each: float, aim: float, size: int
) -> None:
    limits = Rounds(lambda n: fixed + each * n, aim).rounds(varied(200))
    assert limits.size_max == pytest.approx(size, rel=0.15)


def test_a_store_that_becomes_slower_gets_smaller_batches_within_some_dozen_rounds() -> None:
    rounds = Rounds(lambda n: 0.001 + 1e-5 * n)
    assert rounds.rounds(varied(400)).size_max == pytest.approx(900, rel=0.1)
    rounds.cost = lambda n: 0.001 + 4e-5 * n
    assert rounds.rounds(varied(400)).size_max == pytest.approx(225, rel=0.2)


def test_noise_moves_the_bound_and_does_not_carry_it_away() -> None:
    rng = random.Random(2)
    rounds = Rounds(lambda n: (0.002 + 1e-5 * n) * rng.uniform(0.8, 1.2))
    bounds = [rounds.round(each, 1).size_max for each in varied(400, 300)][60:]
    assert all(400 < each < 2_400 for each in bounds)


def test_one_stall_does_not_upset_the_bound() -> None:
    rounds = Rounds(lambda n: 0.002 + 1e-5 * n)
    before = rounds.rounds(varied(400)).size_max
    rounds.cost = lambda n: 2.0
    stalled = rounds.round(400, 1).size_max
    rounds.cost = lambda n: 0.002 + 1e-5 * n
    assert stalled > before / 3
    assert rounds.rounds(varied(400)).size_max == pytest.approx(before, rel=0.2)


def test_while_more_waits_than_the_aim_has_room_for_the_fixed_cost_is_a_tenth_and_nobody_waits() -> (
    None
):
    rounds = Rounds(lambda n: 0.002 + 1e-5 * n)
    size = rounds.rounds(varied(400)).size_max
    assert rounds.round(400, 2 * size - 100).size_max == pytest.approx(size, rel=0.05)
    flooded = rounds.round(400, 3 * size)
    assert flooded.size_max == pytest.approx(1_800, rel=0.15)
    assert flooded.delay_seconds_max == 0


def test_a_rush_after_rounds_of_one_order_is_not_cut_into_crumbs() -> None:
    rounds = Rounds(lambda n: 0.002 + 1e-5 * n)
    assert rounds.rounds([1] * 50, waiting=0).size_max >= 50
    # Two rounds are enough to get to hundreds.
    first = rounds.pacer.limits(5_000, 1, rounds.now).size_max
    second = rounds.round(first, 5_000).size_max
    assert second >= 500


def test_nothing_waits_before_the_first_round_and_all_fits() -> None:
    assert AdaptivePacer(SIZE_MAX, 0.02, 7).limits(5, 1, 0.0) == BatchLimits(SIZE_MAX, 0.0, 7)


def test_orders_on_an_idle_writer_never_wait() -> None:
    rounds = Rounds(lambda n: 0.002)
    for _ in range(100):
        assert rounds.round(1).delay_seconds_max == 0
        rounds.now += 0.01
        assert rounds.pacer.limits(1, 1, rounds.now).delay_seconds_max == 0


def test_an_order_long_after_the_crowd_does_not_wait_and_one_right_behind_it_does() -> None:
    rounds = Rounds(lambda n: 0.002 + 1e-5 * n)
    rounds.rounds(varied(100))
    assert rounds.round(100).delay_seconds_max == 0
    soon = rounds.pacer.limits(1, 1, rounds.now + 0.001)
    # It ends when those who were just answered are all back.
    assert (soon.delay_seconds_max, soon.size_enough) == (0.01, 100)
    rounds.round(100)
    late = rounds.now + 0.011
    assert rounds.pacer.limits(1, 1, late).delay_seconds_max == 0


def test_who_waits_and_who_was_answered_are_enough() -> None:
    rounds = Rounds(lambda n: 0.002 + 1e-5 * n)
    rounds.rounds(varied(100))
    limits = rounds.round(25, 30)
    assert (limits.delay_seconds_max, limits.size_enough) == (0.01, 55)


def test_several_aggregates_do_not_wait_for_each_other() -> None:
    rounds = Rounds(lambda n: 0.002 + 1e-5 * n)
    rounds.rounds(varied(100))
    assert rounds.round(100, 30, aggregates=1).delay_seconds_max > 0
    assert rounds.round(100, 30, aggregates=2).delay_seconds_max == 0


def test_nobody_waits_when_the_round_takes_all_of_the_aim() -> None:
    rounds = Rounds(lambda n: 0.03 + 1e-5 * n)
    rounds.rounds(varied(100))
    assert rounds.round(100, 30).delay_seconds_max == 0


def test_a_round_that_wrote_nothing_teaches_nothing() -> None:
    rounds = Rounds(lambda n: 0.002 + 1e-5 * n)
    before = rounds.rounds(varied(400))
    for _ in range(50):
        rounds.pacer.round_over(400, 1e-4, rounds.now, wrote=False)
    assert rounds.pacer.limits(1, 1, rounds.now).size_max == before.size_max


ROUNDS = st.tuples(
    st.integers(1, 100_000),  # commands
    st.floats(0, 1e6),  # seconds
    st.floats(0, 1e3),  # until somebody comes
    st.integers(0, 100_000),  # who waits then
    st.integers(0, 3),  # aggregates
    st.booleans(),
)


@given(
    rounds=st.lists(ROUNDS, max_size=60),
    size_max=st.integers(1, 100_000),
    aim=st.floats(0.001, 10),
)
def test_whatever_is_measured_the_limits_stay_in_bounds(
    rounds: list[tuple[int, float, float, int, int, bool]], size_max: int, aim: float
) -> None:
    pacer, now = AdaptivePacer(size_max, aim, 3), 0.0
    for commands, seconds, gap, waiting, aggregates, wrote in rounds:
        now += seconds
        pacer.round_over(commands, seconds, now, wrote=wrote)
        now += gap
        limits = pacer.limits(waiting, aggregates, now)
        assert 1 <= limits.size_max <= size_max
        assert type(limits.size_max) is int
        assert 0 <= limits.delay_seconds_max <= aim / 2
        assert limits.aggregates_max == 3
        assert limits.size_enough is None or limits.size_enough >= 1


@given(
    rounds=st.lists(st.tuples(st.integers(1, 100_000), st.floats(0, 1e9)), min_size=1, max_size=50)
)
def test_the_estimate_is_finite_and_never_negative(rounds: list[tuple[int, float]]) -> None:
    estimate = RoundTime()
    for commands, seconds in rounds:
        estimate.learn(commands, seconds)
        assert math.isfinite(estimate.fixed)
        assert math.isfinite(estimate.each)
        assert estimate.fixed >= 0
        assert estimate.each >= 0
