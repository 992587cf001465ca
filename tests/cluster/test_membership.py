"""Who is alive and whose partition is whose, as one node sees it."""

from __future__ import annotations

from collections import Counter

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.cluster.membership import (
    FORGET_SECONDS,
    Heartbeat,
    Holding,
    Members,
    best_able,
    best_of,
    decode_heartbeat,
    encode_heartbeat,
    score,
)
from engine.cqrs.command_side.batch import BatchLimits
from engine.cqrs.command_side.statistics import Counters
from engine.cqrs.event_store import Source
from engine.testing.virtual_clock import VirtualClock

DEAD_AFTER_SECONDS = 3.0
BEAT_SECONDS = 0.5

names = st.text(alphabet="abcdefgh-0123", min_size=1, max_size=12)


def beat(node: str, *holds: Holding, **changes: object) -> Heartbeat:
    return msgspec.structs.replace(Heartbeat(node, f"boot of {node}", "engine", holds), **changes)


def holding(partition: int, epoch: int = 1) -> Holding:
    return Holding(partition, epoch, 0, Source("life", 7, ((9, 9),)), 3)


class Hearing:
    """Members that hear what a test lets them hear; the test's own node is `me`."""

    def __init__(self) -> None:
        self.clock = VirtualClock()
        self.members = Members(DEAD_AFTER_SECONDS, self.clock)

    def hear(self, *nodes: str) -> None:
        self.members.hears()
        for each in nodes:
            self.members.show(beat(each))

    def go_on(self, seconds: float, *nodes: str) -> None:
        """Time in which `nodes` show themselves at every beat."""
        for _ in range(round(seconds / BEAT_SECONDS)):
            self.clock.advance(BEAT_SECONDS)
            self.hear("me", *nodes)

    def live(self) -> set[str]:
        return {each.node for each in self.members.live()}


@given(st.sets(names, min_size=1, max_size=8), names)
def test_who_joins_takes_partitions_and_moves_no_other(nodes: set[str], newcomer: str) -> None:
    for partition in range(16):
        before, after = best_of(nodes, partition), best_of({*nodes, newcomer}, partition)
        assert after in (before, newcomer)


@given(st.sets(names, min_size=2, max_size=8), st.data())
def test_who_leaves_moves_its_own_partitions_only(nodes: set[str], data: st.DataObject) -> None:
    gone = data.draw(st.sampled_from(sorted(nodes)))
    for partition in range(16):
        before = best_of(nodes, partition)
        if before != gone:
            assert best_of(nodes - {gone}, partition) == before


@given(st.permutations(["a", "b", "c", "d"]))
def test_everybody_finds_the_same_whatever_the_order(nodes: list[str]) -> None:
    assert [best_of(nodes, n) for n in range(20)] == [best_of("abcd", n) for n in range(20)]


@pytest.mark.parametrize("count", [2, 3, 8, 32])
def test_partitions_are_spread_fairly(count: int) -> None:
    partitions = 128 * count
    shares = Counter(best_of((f"node-{n}" for n in range(count)), p) for p in range(partitions))
    assert len(shares) == count
    assert 0.6 * 128 <= min(shares.values()) <= max(shares.values()) <= 1.4 * 128


def test_who_cannot_own_a_partition_is_left_out_unless_nobody_can() -> None:
    best = best_of("abc", 3)
    assert best is not None
    rest = {*"abc"} - {best}
    cannot = {**dict.fromkeys(rest, (4,)), best: (3,)}
    assert best_able(cannot, 3) == best_of(rest, 3)
    assert best_able(dict.fromkeys("abc", (3,)), 3) == best
    assert best_able({}, 3) is None


def test_the_rank_is_the_same_in_every_version() -> None:
    assert score("node", 3) == 0x88D62538EDF89243
    assert best_of([], 3) is None


def test_a_node_is_dead_once_it_is_silent_for_long_enough() -> None:
    hearing = Hearing()
    hearing.hear("a", "b")
    hearing.go_on(DEAD_AFTER_SECONDS, "b")
    assert hearing.live() == {"me", "a", "b"}
    hearing.go_on(BEAT_SECONDS, "b")
    assert hearing.live() == {"me", "b"}
    hearing.hear("a")
    assert hearing.live() == {"me", "a", "b"}


@pytest.mark.parametrize("outage_seconds", [2.0, 10.0, 100_000.0])
def test_nobody_is_dead_after_a_time_in_which_nobody_could_be_heard(outage_seconds: float) -> None:
    hearing = Hearing()
    hearing.hear("me", "a")
    hearing.clock.advance(outage_seconds)
    # Only itself, first: the heartbeats of the others are still on their way.
    hearing.hear("me")
    assert hearing.live() == {"me", "a"}
    hearing.go_on(DEAD_AFTER_SECONDS)
    assert hearing.live() == {"me"}


def test_who_was_dead_before_an_outage_is_dead_after_it() -> None:
    hearing = Hearing()
    hearing.hear("me", "dead", "a")
    hearing.go_on(DEAD_AFTER_SECONDS + 1, "a")
    hearing.clock.advance(60)
    hearing.hear("me")
    assert hearing.live() == {"me", "a"}


def test_who_hears_nothing_takes_nobody_for_dead_and_knows_how_long_it_is_deaf() -> None:
    hearing = Hearing()
    hearing.hear("me", "a")
    hearing.clock.advance(60)
    # Its own heartbeat, which it knows of without the broker.
    hearing.members.show(beat("me"))
    assert hearing.live() == {"me", "a"}
    assert hearing.members.silent_seconds == 60
    hearing.hear()
    assert hearing.members.silent_seconds == 0


def test_gateways_and_who_leaves_own_nothing() -> None:
    hearing = Hearing()
    for each in (
        beat("e"),
        beat("g", role="gateway"),
        beat("l", leaving=True),
        beat("x", role="all"),
    ):
        hearing.members.show(each)
    assert [each.node for each in hearing.members.engines()] == ["e", "x"]


def test_a_partition_is_that_of_the_newest_epoch_among_the_living() -> None:
    hearing = Hearing()
    hearing.members.show(beat("old", holding(0, 4), holding(1, 4)))
    hearing.members.show(beat("new", holding(0, 5)))
    found = hearing.members.holdings()
    assert {number: node for number, (node, _) in found.items()} == {0: "new", 1: "old"}
    hearing.go_on(DEAD_AFTER_SECONDS + 1)
    assert hearing.members.holdings() == {}


def test_names_that_are_made_up_are_forgotten() -> None:
    hearing = Hearing()
    for n in range(500):
        hearing.clock.advance(BEAT_SECONDS)
        hearing.hear("me", f"node-{n}")
    hearing.go_on(FORGET_SECONDS + 1, "a")
    hearing.hear("another")
    assert {each.node for each in hearing.members.all_seen()} == {"me", "a", "another"}


@given(
    st.lists(st.builds(holding, st.integers(0, 99), st.integers(0, 2**40)), max_size=3),
    st.sampled_from(["all", "gateway", "engine"]),
    st.booleans(),
    st.booleans(),
)
def test_a_heartbeat_comes_back_as_it_was(
    holds: list[Holding], role: str, leaving: bool, hello: bool
) -> None:
    counters = Counters()
    counters.rejected["sold_out"] = 7
    counters.closed_by["size"] = 1
    counters.latencies[9] = 3
    limits = {0: BatchLimits(64, 0.002, 4, None), 7: BatchLimits(1, 0.0, 1, 5)}
    sent = beat(
        "ü",
        *holds,
        role=role,
        leaving=leaving,
        hello=hello,
        cannot=(1, 7),
        statistics=counters.snapshot(1, 2, 3, limits),
    )
    assert decode_heartbeat(encode_heartbeat(sent)) == sent


@given(st.binary(max_size=60))
def test_what_is_no_heartbeat_is_none(data: bytes) -> None:
    assert decode_heartbeat(data) is None


@pytest.mark.parametrize(
    "data", [b'{"node": "\xff"}', b"[" * 100_000, b'{"node": "a", "boot": "b", "role": "chief"}']
)
def test_damage_and_another_version_are_none(data: bytes) -> None:
    assert decode_heartbeat(data) is None


def test_a_newer_version_may_say_more() -> None:
    newer = encode_heartbeat(beat("a")).replace(b'"node"', b'"mood":"fine","node"')
    assert decode_heartbeat(newer) == beat("a")
