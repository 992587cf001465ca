"""A gateway's figures: the counters of all engines together, whoever has gone since."""

from __future__ import annotations

import msgspec

from engine.cluster.membership import FORGET_SECONDS, Heartbeat, Members
from engine.cluster.totals import Totals
from engine.cqrs.command_side.batch import BatchLimits
from engine.cqrs.command_side.statistics import Counters, Statistics
from engine.testing.virtual_clock import VirtualClock

DEAD_AFTER_SECONDS = 3.0
LIMITS = {0: BatchLimits(1, 0.0)}


def counted(accepted: int, queue_depth: int = 0) -> Statistics:
    counters = Counters()
    counters.accepted = accepted
    counters.rejected["sold_out"] = accepted
    counters.batch_sizes[accepted] = 1
    counters.commit_seconds = 0.5
    # The gateway tells the same to whoever is told.
    counters.expired = counters.unknown = accepted
    return counters.snapshot(queue_depth, 4, 5, LIMITS)


class Watching:
    def __init__(self) -> None:
        self.clock = VirtualClock()
        self.members = Members(DEAD_AFTER_SECONDS, self.clock)
        self.totals = Totals(self.members)

    def show(self, node: str, boot: str, statistics: Statistics | None) -> None:
        self.members.hears()
        self.members.show(Heartbeat(node, boot, "engine", statistics=statistics))

    def pass_time(self, seconds: float) -> None:
        for _ in range(round(seconds)):
            self.clock.advance(1)
            self.members.hears()

    def sum(self) -> Statistics:
        told = Counters()
        told.overloaded, told.expired, told.unknown, told.unserved = 2, 3, 4, 5
        return self.totals.sum(10, told)


def test_everything_is_summed_and_what_waits_here_comes_with_it() -> None:
    watching = Watching()
    watching.show("a", "1", counted(3, queue_depth=7))
    watching.show("b", "1", counted(4))
    watching.show("g", "1", None)
    found = watching.sum()
    assert (found.accepted, found.queue_depth, found.overloaded) == (7, 17, 2)
    assert found.rejected == {"sold_out": 7}
    assert (found.expired, found.unknown, found.unserved) == (3, 4, 5)
    assert found.batch_sizes == {3: 1, 4: 1}
    assert found.commit_seconds == 1.0
    assert (found.residents, found.halted) == (8, 10)
    assert found.batch_limits == LIMITS


def test_nobody_at_all_is_nothing_yet() -> None:
    found = Watching().sum()
    assert found == msgspec.structs.replace(
        Counters().snapshot(10, 0, 0), overloaded=2, expired=3, unknown=4, unserved=5
    )


def test_an_engine_that_died_keeps_its_counts_and_nothing_that_is_now() -> None:
    watching = Watching()
    watching.show("a", "1", counted(3, queue_depth=7))
    watching.sum()
    watching.pass_time(DEAD_AFTER_SECONDS + 1)
    found = watching.sum()
    assert (found.accepted, found.queue_depth, found.residents) == (3, 10, 0)
    assert found.batch_limits == {}
    # It was only silent: it counts once.
    watching.show("a", "1", counted(5, queue_depth=1))
    found = watching.sum()
    assert (found.accepted, found.queue_depth) == (5, 11)


def test_an_engine_that_starts_again_counts_on_and_its_past_takes_no_room() -> None:
    watching = Watching()
    for boot in range(100):
        watching.show("a", f"{boot}", counted(1))
        assert watching.sum().accepted == boot + 1
    assert len(watching.totals._of_boot) == 1


def test_engines_that_are_long_gone_count_on_and_take_no_room() -> None:
    watching = Watching()
    for number in range(50):
        watching.show(f"made-up-{number}", "1", counted(1))
        watching.sum()
    watching.pass_time(FORGET_SECONDS + 1)
    watching.show("b", "1", counted(1))
    assert watching.sum().accepted == 51
    assert len(watching.totals._of_boot) == 1
