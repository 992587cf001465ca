"""The faulty store fails as real ones do: what it says about the data is true of the inner store."""

from __future__ import annotations

import asyncio

import pytest

from engine.cqrs.event_store import Lease
from engine.errors import CommitOutcomeUnknown, Fenced, StoreUnavailable
from engine.stores.failpoint import Failpoint, no_failpoint
from engine.stores.memory import MemoryStore
from engine.testing.faulty_store import FAULTS, Fault, FaultyStore
from engine.testing.store_contract import TABLES, EventStoreContract, commit
from engine.testing.virtual_clock import settle


class TestAFaultyStoreWithoutFaults(EventStoreContract):
    async def open_store(
        self, *, partitions: int = 1, failpoint: Failpoint = no_failpoint
    ) -> FaultyStore:
        return FaultyStore(MemoryStore(partitions, TABLES, failpoint=failpoint))


async def written(store: FaultyStore) -> int:
    return len(await store.read_partition(0, 0, 100))


async def test_the_script_is_followed_and_then_all_is_well() -> None:
    store = FaultyStore(MemoryStore(), ["fail_before", "ok"])
    lease = await store.acquire(0)
    with pytest.raises(StoreUnavailable):
        await store.append(lease, [commit("a", 1)])
    assert await written(store) == 0
    for n in range(3):
        await store.append(Lease(0, lease.epoch, n), [commit("a", n + 1)])
    assert store.taken == {"fail_before": 1, "ok": 3}


@pytest.mark.parametrize(("fault", "commits"), [("commit_then_raise", 1), ("lost_commit", 0)])
async def test_a_doubtful_commit_needs_acquire_which_tells_the_truth(
    fault: Fault, commits: int
) -> None:
    store = FaultyStore(MemoryStore(), [fault])
    lease = await store.acquire(0)
    with pytest.raises(CommitOutcomeUnknown):
        await store.append(lease, [commit("a", 1)])
    assert await written(store) == commits
    with pytest.raises(StoreUnavailable):
        await store.append(lease, [commit("b", 1)])
    renewed = await store.acquire(0)
    assert renewed.position == commits
    with pytest.raises(Fenced):
        await store.append(lease, [commit("b", 1)])
    await store.append(renewed, [commit("b", 1)])
    assert await written(store) == commits + 1


async def test_a_hanging_append_is_done_once_it_is_released() -> None:
    store = FaultyStore(MemoryStore(), ["hang"])
    lease = await store.acquire(0)
    hanging = asyncio.create_task(store.append(lease, [commit("a", 1)]))
    await settle()
    assert not hanging.done()
    assert await written(store) == 0
    store.released.set()
    await hanging
    assert await written(store) == 1


async def test_acquire_fails_as_often_as_asked() -> None:
    store = FaultyStore(MemoryStore())
    store.acquire_failures = 2
    for _ in range(2):
        with pytest.raises(StoreUnavailable):
            await store.acquire(0)
    assert (await store.acquire(0)).epoch == 1


async def test_a_failed_acquire_clears_no_doubt() -> None:
    store = FaultyStore(MemoryStore(), ["commit_then_raise"])
    lease = await store.acquire(0)
    with pytest.raises(CommitOutcomeUnknown):
        await store.append(lease, [commit("a", 1)])
    with pytest.raises(ValueError, match="no partition 7"):
        await store.acquire(7)
    with pytest.raises(StoreUnavailable):
        await store.append(Lease(0, lease.epoch, 1), [commit("b", 1)])
    assert await written(store) == 1


async def drawn(seed: int, share: float) -> list[Fault]:
    """The faults of 200 appends."""
    store = FaultyStore.seeded(MemoryStore(), seed, share)
    faults: list[Fault] = []
    for n in range(200):
        before = store.taken.copy()
        try:
            await store.append(await store.acquire(0), [commit(f"s{n}", 1)])
        except (StoreUnavailable, CommitOutcomeUnknown):
            pass
        faults += (store.taken - before).keys()
    return faults


async def test_a_seed_draws_the_same_faults_again() -> None:
    faults = await drawn(7, 0.5)
    assert faults == await drawn(7, 0.5)
    assert faults != await drawn(8, 0.5)
    assert set(faults) == {"ok", *FAULTS}
    assert len(faults) == 200


async def test_a_share_of_nothing_never_fails_and_of_one_always_does() -> None:
    assert set(await drawn(7, 0.0)) == {"ok"}
    assert set(await drawn(7, 1.0)) == set(FAULTS)
