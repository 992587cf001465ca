"""What every store does with the source of a partition's commands; a part of the store contract."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import AbstractAsyncContextManager

import pytest

from engine.cqrs.codec import checksum
from engine.cqrs.event_store import NO_SOURCE, EventStore, Lease, NewCommit, Source
from engine.errors import CommitOutcomeUnknown, Fenced, StoreUnavailable, WrongExpectedVersion
from engine.stores.failpoint import AFTER_COMMIT, Failpoint, no_failpoint

FAR = Source("2026-11-29 commands", 7, ((9, 9), (12, 14)))


def commit(version: int) -> NewCommit:
    return NewCommit("counter", "a", version, version, b"[{}]", checksum(b"[{}]"))


class SourceContract(ABC):
    """One sentence a test. Every test opens a store of its own."""

    @abstractmethod
    def store(
        self, *, partitions: int = 1, failpoint: Failpoint = no_failpoint
    ) -> AbstractAsyncContextManager[EventStore]: ...

    async def test_a_new_partition_has_no_source(self) -> None:
        async with self.store() as store:
            assert (await store.acquire(0)).source == NO_SOURCE

    async def test_a_source_is_stored_with_the_commits_of_its_partition(self) -> None:
        async with self.store(partitions=2) as store:
            await store.append(await store.acquire(0), [commit(1)], source=FAR)
            again = await store.acquire(0)
            assert (again.position, again.source) == (1, FAR)
            assert (await store.acquire(1)).source == NO_SOURCE

    async def test_a_source_is_stored_by_itself_and_stays_when_none_is_named(self) -> None:
        async with self.store() as store:
            lease = await store.acquire(0)
            await store.append(lease, [], source=FAR)
            await store.append(lease, [commit(1)])
            again = await store.acquire(0)
            assert (again.position, again.source) == (1, FAR)

    async def test_a_source_is_not_stored_when_the_commits_are_not(self) -> None:
        async with self.store() as store:
            lease = await store.acquire(0)
            with pytest.raises(WrongExpectedVersion):
                await store.append(lease, [commit(5)], source=FAR)
            assert (await store.acquire(0)).source == NO_SOURCE

    async def test_an_older_writer_stores_no_source(self) -> None:
        async with self.store() as store:
            old = await store.acquire(0)
            new = await store.acquire(0)
            with pytest.raises((Fenced, StoreUnavailable)):
                await store.append(old, [], source=FAR)
            assert (await store.acquire(0)).source == NO_SOURCE
            assert new.epoch == old.epoch + 1

    async def test_a_source_in_doubt_is_what_acquire_says(self) -> None:
        def fail(step: str) -> None:
            if step == AFTER_COMMIT and armed:
                armed.clear()
                raise OSError("injected: no reply to COMMIT")

        armed = [True]
        async with self.store(failpoint=fail) as store:
            lease = await store.acquire(0)
            with pytest.raises(CommitOutcomeUnknown):
                await store.append(lease, [], source=FAR)
            assert not armed
            taken = await store.acquire(0, lease)
            assert taken.source == FAR
            await store.append(Lease(0, taken.epoch, 0, taken.owner), [commit(1)])
