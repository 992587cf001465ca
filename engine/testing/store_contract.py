"""What every event store must do. Subclass it, say how a store is opened, and run it with pytest.

class TestMyStore(EventStoreContract):
    async def open_store(self, *, partitions=1, failpoint=no_failpoint):
        return await MyStore.open(..., tables=TABLES)
"""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from engine.cqrs.codec import checksum
from engine.cqrs.event_store import (
    EventStore,
    Lease,
    NewCommit,
    RowChange,
    SnapshotPart,
    StoredCommit,
    StoredSnapshot,
    Table,
)
from engine.errors import (
    CommitOutcomeUnknown,
    Fenced,
    ProjectionDiverged,
    StoreUnavailable,
    StreamKey,
    WrongExpectedVersion,
)
from engine.stores.failpoint import (
    AFTER_COMMIT,
    STEPS_BEFORE_COMMIT,
    Failpoint,
    no_failpoint,
)
from engine.testing.source_contract import SourceContract

TABLES = (Table(name="totals", key="name", numbers=("amount", "version"), texts=("label",)),)
"""The inline table of the contract: a total for each stream."""

INSERT = RowChange("totals", "a", insert=True, put={"amount": 5, "version": 1, "label": "new"})


def commit(
    aggregate_id: str, first: int, count: int = 1, changes: tuple[RowChange, ...] = ()
) -> NewCommit:
    """A commit of `count` small events."""
    events = b"[" + b",".join([b'{"type":"counted.1","command_id":"c"}'] * count) + b"]"
    last = first + count - 1
    return NewCommit("counter", aggregate_id, first, last, events, checksum(events), changes)


def add(amount: int, version: int) -> tuple[RowChange, ...]:
    """Add to the total of stream `a`, which must be at the version before."""
    return (
        RowChange(
            "totals",
            "a",
            add={"amount": amount},
            put={"version": version},
            expect={"version": version - 1},
        ),
    )


class FailOnce:
    """A failpoint that raises the first time its step is reached after `arm`."""

    def __init__(self) -> None:
        self.step = ""

    def arm(self, step: str) -> None:
        self.step = step

    def __call__(self, step: str) -> None:
        if step == self.step:
            self.step = ""
            raise OSError(f"injected at {step}")


class EventStoreContract(SourceContract):
    """One sentence a test. Every test opens a store of its own."""

    @abstractmethod
    async def open_store(
        self, *, partitions: int = 1, failpoint: Failpoint = no_failpoint
    ) -> EventStore:
        """Open an empty store with TABLES."""

    @asynccontextmanager
    async def store(
        self, *, partitions: int = 1, failpoint: Failpoint = no_failpoint
    ) -> AsyncIterator[EventStore]:
        store = await self.open_store(partitions=partitions, failpoint=failpoint)
        try:
            yield store
        finally:
            await store.close()

    async def test_what_was_appended_is_read_back_by_stream_and_by_position(self) -> None:
        async with self.store() as store:
            lease = await store.acquire(0)
            await store.append(lease, [commit("a", 1, 2), commit("bé✓", 1)])
            await store.append(Lease(0, lease.epoch, 2), [commit("a", 3)])
            stored = await store.read_partition(0, 0, 10)
            assert [(each.position, *_span(each)) for each in stored] == [
                (1, "a", 1, 2),
                (2, "bé✓", 1, 1),
                (3, "a", 3, 3),
            ]
            assert [_span(each) for each in await store.read_stream(("counter", "a"), 0, 10)] == [
                ("a", 1, 2),
                ("a", 3, 3),
            ]
            assert await store.read_stream(("counter", "a"), 2, 10) == [stored[2]]
            assert await store.read_partition(0, 1, 1) == [stored[1]]
            assert all(checksum(each.events) == each.checksum for each in stored)
            assert [(s.aggregate_id, s.version, s.commits) for s in await store.read_streams()] == [
                ("a", 3, 2),
                ("bé✓", 1, 1),
            ]

    async def test_a_large_batch_is_read_back_whole(self) -> None:
        async with self.store() as store:
            large = commit("a", 1, 8_190)
            await store.append(await store.acquire(0), [large])
            (stored,) = await store.read_partition(0, 0, 10)
            assert stored.events == large.events

    @pytest.mark.parametrize("first", [1, 2, 4])
    async def test_a_version_too_low_or_too_high_is_refused(self, first: int) -> None:
        async with self.store() as store:
            lease = await store.acquire(0)
            await store.append(lease, [commit("a", 1, 2)])
            with pytest.raises(WrongExpectedVersion):
                await store.append(Lease(0, lease.epoch, 1), [commit("a", first)])
            assert len(await store.read_partition(0, 0, 10)) == 1

    async def test_every_stream_at_fault_is_named_and_nothing_is_written(self) -> None:
        async with self.store() as store:
            lease = await store.acquire(0)
            with pytest.raises(WrongExpectedVersion) as caught:
                await store.append(
                    lease, [commit("a", 1, 1, (INSERT,)), commit("b", 2), commit("c", 3)]
                )
            assert caught.value.streams == {("counter", "b"), ("counter", "c")}
            await self._assert_empty(store)
            await store.append(lease, [commit("a", 1)])

    @pytest.mark.parametrize("again", [1, 2])
    async def test_a_stream_twice_in_one_append_is_refused_but_not_its_namesake(
        self, again: int
    ) -> None:
        async with self.store() as store:
            lease = await store.acquire(0)
            with pytest.raises(WrongExpectedVersion) as caught:
                await store.append(lease, [commit("a", 1), commit("b", 1), commit("a", again)])
            assert caught.value.streams == {("counter", "a")}
            await self._assert_empty(store)
            namesake = NewCommit("other", "a", 1, 1, b"[]", checksum(b"[]"))
            await store.append(lease, [commit("a", 1), namesake])
            assert [each.position for each in await store.read_stream(("other", "a"), 0, 9)] == [2]

    async def test_an_older_lease_writes_nothing(self) -> None:
        async with self.store() as store:
            old = await store.acquire(0)
            new = await store.acquire(0)
            assert new.epoch > old.epoch
            with pytest.raises(Fenced):
                await store.append(old, [commit("a", 1, 1, (INSERT,))])
            await self._assert_empty(store)
            await store.append(new, [commit("a", 1)])

    async def test_a_lease_at_another_position_writes_nothing(self) -> None:
        async with self.store() as store:
            lease = await store.acquire(0)
            with pytest.raises(Fenced):
                await store.append(Lease(0, lease.epoch, 1), [commit("a", 1)])
            await self._assert_empty(store)

    async def test_a_partition_is_taken_back_only_while_nobody_else_has_it(self) -> None:
        async with self.store() as store:
            first = await store.acquire(0)
            again = await store.acquire(0, first)
            assert (again.epoch > first.epoch, again.owner) == (True, first.owner)
            with pytest.raises(Fenced):
                await store.append(first, [commit("a", 1)])
            await store.append(again, [commit("a", 1)])
            # The answer to the first time may have been lost: asked again with the older lease.
            again = await store.acquire(0, first)
            assert again.position == 1
            other = await store.acquire(0)
            assert other.owner != first.owner
            for held in (first, again):
                with pytest.raises(Fenced):
                    await store.acquire(0, held)
            # It still is the other one's, who may have lost the connection through this.
            other = await store.acquire(0, other)
            await store.append(other, [commit("b", 1)])
            assert (await store.acquire(0, other)).position == 2

    async def test_of_two_writers_racing_only_the_newer_one_wins(self) -> None:
        async with self.store() as store:
            old = await store.acquire(0)
            new = await store.acquire(0)
            results = await asyncio.gather(
                *(store.append(old, [commit(f"o{n}", 1)]) for n in range(5)),
                store.append(new, [commit("n", 1)]),
                return_exceptions=True,
            )
            assert [type(each) for each in results] == [Fenced] * 5 + [type(None)]
            assert [each.aggregate_id for each in await store.read_partition(0, 0, 10)] == ["n"]

    async def test_of_two_appends_on_one_lease_only_one_wins(self) -> None:
        async with self.store() as store:
            lease = await store.acquire(0)
            results = await asyncio.gather(
                *(store.append(lease, [commit(name, 1)]) for name in ("x", "y")),
                return_exceptions=True,
            )
            (stored,) = await store.read_partition(0, 0, 10)
            won = {name for name, each in zip(("x", "y"), results, strict=True) if each is None}
            assert won == {stored.aggregate_id}
            assert [type(each) for each in results if each is not None] == [Fenced]

    async def test_partitions_count_their_positions_apart(self) -> None:
        async with self.store(partitions=2) as store:
            assert store.partitions == 2
            for partition in (0, 1):
                lease = await store.acquire(partition)
                await store.append(lease, [commit(f"p{partition}", 1)])
            for partition in (0, 1):
                (stored,) = await store.read_partition(partition, 0, 10)
                assert (stored.partition, stored.position) == (partition, 1)

    async def test_a_tailing_reader_never_skips_or_reorders(self) -> None:
        async with self.store(partitions=2) as store:
            seen: list[int] = []

            async def write(partition: int) -> None:
                lease = await store.acquire(partition)
                for n in range(20):
                    await store.append(
                        Lease(partition, lease.epoch, n), [commit(f"{partition}-{n}", 1)]
                    )

            async def tail() -> None:
                while len(seen) < 20:
                    page = await store.read_partition(0, len(seen), 3)
                    seen.extend(each.position for each in page)
                    await asyncio.sleep(0)

            await asyncio.gather(write(0), write(1), tail())
            assert seen == list(range(1, 21))

    async def test_a_row_changes_with_its_commit(self) -> None:
        async with self.store() as store:
            lease = await store.acquire(0)
            await store.append(lease, [commit("a", 1, 1, (INSERT,))])
            await store.append(Lease(0, lease.epoch, 1), [commit("a", 2, 1, add(-5, 2))])
            row = {"name": "a", "amount": 0, "version": 2, "label": "new"}
            assert await store.read_row("totals", "a") == row
            assert await store.read_rows("totals") == [row]
            assert await store.read_row("totals", "b") is None

    @pytest.mark.parametrize(
        "change",
        [
            pytest.param(add(-6, 2), id="below zero"),
            pytest.param(add(1, 3), id="another version"),
            pytest.param((INSERT,), id="exists already"),
            pytest.param(
                (RowChange("totals", "b", add={"amount": 1}),),
                id="does not exist",
            ),
        ],
    )
    async def test_a_row_that_does_not_match_rolls_everything_back(
        self, change: tuple[RowChange, ...]
    ) -> None:
        async with self.store() as store:
            lease = await store.acquire(0)
            await store.append(lease, [commit("a", 1, 1, (INSERT,))])
            before = await store.read_rows("totals")
            next_lease = Lease(0, lease.epoch, 1)
            with pytest.raises(ProjectionDiverged) as caught:
                await store.append(next_lease, [commit("other", 1), commit("a", 2, 1, change)])
            assert caught.value.stream == ("counter", "a")
            assert len(await store.read_partition(0, 0, 10)) == 1
            assert await store.read_rows("totals") == before
            await store.append(next_lease, [commit("a", 2, 1, add(1, 2))])

    @pytest.mark.parametrize("step", STEPS_BEFORE_COMMIT)
    async def test_a_failure_before_commit_writes_nothing(self, step: str) -> None:
        fail = FailOnce()
        async with self.store(failpoint=fail) as store:
            lease = await store.acquire(0)
            fail.arm(step)
            with pytest.raises(StoreUnavailable):
                await store.append(lease, [commit("a", 1, 1, (INSERT,))])
            await self._assert_empty(store)
            await store.append(lease, [commit("a", 1, 1, (INSERT,))])

    async def test_after_a_doubtful_commit_only_acquire_tells_the_truth(self) -> None:
        fail = FailOnce()
        async with self.store(failpoint=fail) as store:
            lease = await store.acquire(0)
            fail.arm(AFTER_COMMIT)
            with pytest.raises(CommitOutcomeUnknown):
                await store.append(lease, [commit("a", 1, 1, (INSERT,))])
            assert len(await store.read_rows("totals")) == 1
            with pytest.raises(StoreUnavailable):
                await store.append(lease, [commit("b", 1)])
            renewed = await store.acquire(0)
            assert (renewed.position, renewed.epoch > lease.epoch) == (1, True)
            with pytest.raises(Fenced):
                await store.append(lease, [commit("b", 1)])
            await store.append(renewed, [commit("b", 1)])
            assert len(await store.read_partition(0, 0, 10)) == 2

    async def test_a_store_tells_who_acquired_each_partition_and_how_far_it_is(self) -> None:
        async with self.store(partitions=2) as store:
            lease = await store.acquire(1)
            await store.append(lease, [commit("a", 1)])
            found = [(p.partition, p.epoch, p.position, p.owner) for p in await store.read_places()]
            assert found == [(0, 0, 0, ""), (1, lease.epoch, 1, lease.owner)]

    async def test_the_newest_snapshot_is_kept(self) -> None:
        async with self.store() as store:
            stream: StreamKey = ("counter", "a")
            assert await store.load_snapshot(stream) is None
            newer = StoredSnapshot(*stream, 7, 1, b"\x00seven", checksum(b"\x00seven"))
            older = StoredSnapshot(*stream, 3, 1, b"three", checksum(b"three"))
            for snapshot, kept in ((older, older), (newer, newer), (older, newer)):
                await store.save_snapshot(snapshot)
                assert await store.load_snapshot(stream) == kept
            assert await store.load_snapshot(("counter", "b")) is None

    async def test_parts_of_a_snapshot_are_added_and_replaced_with_it(self) -> None:
        async with self.store() as store:
            stream: StreamKey = ("counter", "a")
            first, second = SnapshotPart(0, b"\x00ids"), SnapshotPart(1, b"state \xff")
            await store.save_snapshot(_head(stream, 2), [first, second])
            other = SnapshotPart(1, b"of another stream")
            await store.save_snapshot(_head(("counter", "b"), 9), [other])
            assert await store.read_snapshot_parts(stream, 0, 10) == [first, second]
            assert await store.read_snapshot_parts(stream, 1, 10) == [second]
            assert await store.read_snapshot_parts(stream, 0, 1) == [first]
            third, fourth = SnapshotPart(2, b"more ids"), SnapshotPart(3, b"newer state")
            await store.save_snapshot(_head(stream, 5), [third, fourth], (1, 2))
            assert await store.read_snapshot_parts(stream, 0, 10) == [first, third, fourth]
            # An older one changes nothing, and one that begins anew leaves nothing behind.
            await store.save_snapshot(_head(stream, 4), [SnapshotPart(9, b"stale")])
            assert await store.read_snapshot_parts(stream, 0, 10) == [first, third, fourth]
            await store.save_snapshot(_head(stream, 6), [first])
            assert await store.read_snapshot_parts(stream, 0, 10) == [first]
            assert await store.read_snapshot_parts(("counter", "b"), 0, 10) == [other]

    async def test_a_snapshot_that_fails_half_way_leaves_the_one_before(self) -> None:
        async with self.store() as store:
            stream: StreamKey = ("counter", "a")
            before = _head(stream, 2), [SnapshotPart(0, b"ids"), SnapshotPart(1, b"state")]
            await store.save_snapshot(*before)
            # The number of its second part is taken.
            clash = [SnapshotPart(2, b"more"), SnapshotPart(0, b"again")]
            with pytest.raises(StoreUnavailable):
                await store.save_snapshot(_head(stream, 3), clash, (1, 2))
            assert await store.load_snapshot(stream) == before[0]
            assert await store.read_snapshot_parts(stream, 0, 10) == before[1]

    async def test_close_may_be_called_twice_and_ends_the_store(self) -> None:
        store = await self.open_store()
        lease = await store.acquire(0)
        await store.close()
        await store.close()
        with pytest.raises(StoreUnavailable):
            await store.append(lease, [commit("a", 1)])
        with pytest.raises(StoreUnavailable):
            await store.acquire(0)
        with pytest.raises(StoreUnavailable):
            await store.read_partition(0, 0, 10)

    async def _assert_empty(self, store: EventStore) -> None:
        assert await store.read_partition(0, 0, 10) == []
        assert await store.read_rows("totals") == []


def _head(stream: StreamKey, version: int) -> StoredSnapshot:
    data = b"%d" % version
    return StoredSnapshot(*stream, version, 1, data, checksum(data))


def _span(stored: StoredCommit) -> tuple[str, int, int]:
    return (stored.aggregate_id, stored.first_version, stored.last_version)
