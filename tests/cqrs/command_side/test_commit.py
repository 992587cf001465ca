"""After an unknown outcome only the store knows: ours, nothing, or another owner's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from engine.cqrs.codec import Codec, checksum
from engine.cqrs.command_side.commit import ATTEMPTS_MAX, Committer
from engine.cqrs.command_side.statistics import Counters
from engine.cqrs.event_store import Lease, NewCommit
from engine.cqrs.messages import Event
from engine.errors import (
    CommitOutcomeUnknown,
    Fenced,
    OutcomeUnknown,
    PartitionLost,
    StoreUnavailable,
)
from engine.stores.memory import MemoryStore
from engine.testing.faulty_store import Fault, FaultyStore
from engine.testing.virtual_clock import VirtualClock
from tests.cqrs.bank_account import ACCOUNT, Deposit, Deposited
from tests.cqrs.test_command_side import running

CODECS = {"account": Codec(ACCOUNT.events)}


def commit_of(name: str, *events: Event, first: int = 1) -> NewCommit:
    data = CODECS["account"].encode(events)
    return NewCommit("account", name, first, first + len(events) - 1, data, checksum(data))


OURS = [commit_of("a", Deposited("1", 5)), commit_of("b", Deposited("1", 5))]
MORE = commit_of("z", Deposited("9", 5))


class TakenOver(MemoryStore):
    """Another owner writes `theirs` before our first append, which then fails with `error`.

    A forgetful store does not know who acquired it last, as one that was put back from a backup.
    """

    def __init__(
        self, theirs: Sequence[NewCommit], error: Exception, *, forgetful: bool = False
    ) -> None:
        super().__init__()
        self.theirs = theirs
        self._errors = [error]
        self._forgetful = forgetful

    async def acquire(self, partition: int, held: Lease | None = None) -> Lease:
        return await super().acquire(partition, None if self._forgetful else held)

    async def append(
        self, lease: Lease, commits: Sequence[NewCommit], *more: Any, **named: Any
    ) -> None:
        if not self._errors:
            return await super().append(lease, commits, *more, **named)
        await super().append(await super().acquire(lease.partition), self.theirs)
        raise self._errors.pop()


async def committer(store: MemoryStore | FaultyStore, clock: VirtualClock) -> Committer:
    return Committer(store, await store.acquire(0), CODECS, {}, clock, Counters())


async def stored(store: MemoryStore | FaultyStore) -> list[tuple[str, int]]:
    return [(each.aggregate_id, each.checksum) for each in await store.read_partition(0, 0, 100)]


def names_of(commits: Sequence[NewCommit]) -> list[tuple[str, int]]:
    return [(each.aggregate_id, each.checksum) for each in commits]


@pytest.mark.parametrize("forgetful", [False, True])
@pytest.mark.parametrize(
    "theirs",
    [
        pytest.param([OURS[0], MORE], id="another stream"),
        pytest.param([OURS[0], commit_of("b", Deposited("1", 6))], id="other events"),
        pytest.param([OURS[1], OURS[0]], id="another order"),
        pytest.param([OURS[0]], id="fewer"),
    ],
)
async def test_what_another_owner_wrote_is_never_taken_for_ours(
    theirs: list[NewCommit], forgetful: bool
) -> None:
    error = CommitOutcomeUnknown("no reply")
    clock, store = VirtualClock(), TakenOver(theirs, error, forgetful=forgetful)
    ours = await committer(store, clock)
    with pytest.raises(PartitionLost if forgetful else Fenced):
        await clock.run(ours.write(OURS))
    assert await stored(store) == names_of(theirs)


async def test_a_commit_that_went_through_before_another_owner_came_is_known_to_have() -> None:
    clock, store = VirtualClock(), TakenOver([*OURS, MORE], CommitOutcomeUnknown("no reply"))
    ours = await committer(store, clock)
    assert await clock.run(ours.write(OURS)) == {}
    with pytest.raises(Fenced):
        await clock.run(ours.write([MORE]))
    assert await stored(store) == names_of([*OURS, MORE])


@pytest.mark.parametrize("error", [StoreUnavailable("gone"), CommitOutcomeUnknown("no reply")])
async def test_the_other_owner_is_not_disturbed(error: Exception) -> None:
    clock, store = VirtualClock(), MemoryStore()
    ours = await committer(FaultyStore(store, [_fault_of(error)]), clock)
    theirs = await committer(store, clock)
    with pytest.raises(Fenced):
        await clock.run(ours.write(OURS))
    assert await clock.run(theirs.write([MORE])) == {}
    assert await stored(store) == names_of([MORE])


def _fault_of(error: Exception) -> Fault:
    return "lost_commit" if isinstance(error, CommitOutcomeUnknown) else "fail_before"


async def test_a_batch_rolled_back_while_another_owner_wrote_is_not_tried_again() -> None:
    error = StoreUnavailable("rolled back")
    clock, store = VirtualClock(), TakenOver([MORE], error, forgetful=True)
    ours = await committer(store, clock)
    with pytest.raises(PartitionLost, match="at position 1, expected 0"):
        await clock.run(ours.write(OURS))
    assert await stored(store) == names_of([MORE])


async def test_a_store_that_fell_behind_is_not_written_to() -> None:
    """A replica that was promoted may lack the newest commits."""
    clock, store = VirtualClock(), FaultyStore(MemoryStore(), ["fail_before"])
    ours = Committer(store, Lease(0, 1, 5), CODECS, {}, clock, Counters())
    with pytest.raises(PartitionLost, match="at position 0, expected 5"):
        await clock.run(ours.write(OURS))
    assert await stored(store) == []


async def answers_of_a_lost_partition(
    clock: VirtualClock, store: MemoryStore, first: type[Exception]
) -> None:
    async with running(store, clock) as side:
        with pytest.raises(first):
            await side.bus.execute(Deposit("1", "b", 5))
        with pytest.raises(PartitionLost):
            await side.bus.execute(Deposit("2", "b", 5))


@pytest.mark.parametrize("forgetful", [False, True])
async def test_callers_of_a_lost_partition_are_in_doubt_or_refused_and_never_told_success(
    forgetful: bool,
) -> None:
    error = CommitOutcomeUnknown("no reply")
    clock, store = VirtualClock(), TakenOver([MORE], error, forgetful=forgetful)
    first = OutcomeUnknown if forgetful else PartitionLost
    await clock.run(answers_of_a_lost_partition(clock, store, first))
    assert await stored(store) == names_of([MORE])


@pytest.mark.parametrize("fault", ["commit_then_raise", "lost_commit", "fail_before"])
async def test_whatever_became_of_the_first_try_ours_is_stored_once(fault: Fault) -> None:
    clock, store = VirtualClock(), FaultyStore(MemoryStore(), [fault])
    ours = await committer(store, clock)
    assert await clock.run(ours.write(OURS)) == {}
    assert await clock.run(ours.write([MORE])) == {}
    assert store.taken[fault] == 1
    assert await stored(store) == names_of([*OURS, MORE])
    assert ours.lease.position == 3


async def test_what_could_not_be_written_is_left_out_and_the_next_batch_is_not() -> None:
    clock, store = VirtualClock(), FaultyStore(MemoryStore(), ["fail_before"] * ATTEMPTS_MAX)
    ours = await committer(store, clock)
    left_out = await clock.run(ours.write(OURS))
    assert {stream: type(error) for stream, error in left_out.items()} == {
        each.stream: StoreUnavailable for each in OURS
    }
    assert await clock.run(ours.write(OURS)) == {}
    assert await stored(store) == names_of(OURS)


@pytest.mark.parametrize("failures", [1, 40])
async def test_an_unknown_outcome_is_cleared_up_however_long_the_store_is_away(
    failures: int,
) -> None:
    clock, store = VirtualClock(), FaultyStore(MemoryStore(), ["commit_then_raise"])
    ours = await committer(store, clock)
    store.acquire_failures = failures
    assert await clock.run(ours.write(OURS)) == {}
    assert store.acquire_failures == 0
    assert await stored(store) == names_of(OURS)
