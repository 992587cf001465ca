"""An aggregate is what its events say; a snapshot only saves the way there."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.cqrs.codec import Codec, checksum
from engine.cqrs.command_side.decide import Refusals, decide
from engine.cqrs.command_side.repository import REPLAY_PAGE_COMMITS, Repository, Resident
from engine.cqrs.command_side.snapshots import (
    Blob,
    Head,
    IdSpan,
    SnapshotFormat,
    UnusableSnapshot,
    encode_head,
)
from engine.cqrs.event_store import NewCommit, SnapshotPart, StoredCommit, StoredSnapshot
from engine.cqrs.messages import Event
from engine.errors import AggregateHalted, StoreUnavailable, StreamKey
from engine.stores.memory import MemoryStore
from tests.cqrs.bank_account import (
    ACCOUNT,
    COUNTER,
    Account,
    Corrupted,
    Deposit,
    Deposited,
    FeeCharged,
    Withdrawn,
    bank_registry,
)

STREAM = ("account", "a")
CODECS = {each.name: Codec(each.events) for each in (ACCOUNT, COUNTER)}
TWO_EVENTS = (Withdrawn("w", 3), FeeCharged("w", 1))


class WatchedStore(MemoryStore):
    """Notes after which version it was read, leaves commits out, refuses snapshots on demand."""

    def __init__(self) -> None:
        super().__init__()
        self.read_after: list[int] = []
        self.hidden: set[int] = set()
        self.full = False

    async def read_stream(
        self, stream: StreamKey, after_version: int, limit: int
    ) -> list[StoredCommit]:
        self.read_after.append(after_version)
        commits = await super().read_stream(stream, after_version, limit)
        return [each for each in commits if each.first_version not in self.hidden]

    async def save_snapshot(self, snapshot: StoredSnapshot, *more: Any, **named: Any) -> None:
        if self.full:
            raise StoreUnavailable("the disk is full")
        await super().save_snapshot(snapshot, *more, **named)


def repository(store: MemoryStore, snapshot_events_min: int = 1_000) -> Repository:
    return Repository(store, bank_registry().types, CODECS, snapshot_events_min)


async def write(store: MemoryStore, *batches: Sequence[Event], check: int | None = None) -> None:
    """Append one commit for each batch to the account."""
    for events in batches:
        stored = await store.read_stream(STREAM, 0, 1_000)
        first = stored[-1].last_version + 1 if stored else 1
        data = CODECS["account"].encode(events)
        commit = NewCommit(
            *STREAM,
            first,
            first + len(events) - 1,
            data,
            checksum(data) if check is None else check,
        )
        await store.append(await store.acquire(0), [commit])


async def load(store: MemoryStore) -> Resident:
    return await repository(store).load(ACCOUNT, STREAM)


def contents(resident: Resident) -> tuple[object, int, dict[str, object]]:
    return (resident.state, resident.version, dict(resident.answers))


async def test_an_aggregate_without_events_is_new() -> None:
    resident = await load(MemoryStore())
    assert contents(resident) == (Account(0), 0, {})
    assert (resident.stream, resident.snapshot_version) == (STREAM, 0)


async def test_every_event_is_replayed_in_order_and_kept_with_its_command() -> None:
    store = MemoryStore()
    await write(store, [Deposited("1", 9), *TWO_EVENTS], [Deposited("2", 1)])
    resident = await load(store)
    answers = {"1": Deposited("1", 9), "w": TWO_EVENTS, "2": Deposited("2", 1)}
    assert contents(resident) == (Account(6), 4, answers)


def test_three_events_of_one_command_are_kept_together() -> None:
    events = tuple(FeeCharged("1", n) for n in range(3))
    resident = Resident(ACCOUNT, STREAM)
    resident.apply(events[:1])
    resident.apply(events[1:])
    assert resident.answers == {"1": events}


@pytest.mark.parametrize("extra", [-1, 0, 1])
async def test_a_stream_longer_than_a_page_is_read_to_its_end(extra: int) -> None:
    store, commits = MemoryStore(), REPLAY_PAGE_COMMITS + extra
    await write(store, *([Deposited(f"{n}", 1)] for n in range(commits)))
    assert (await load(store)).state == Account(commits)


async def test_a_long_replay_lets_others_run_between_commits() -> None:
    store = MemoryStore()
    await write(store, *([Deposited(f"{n}", 1)] for n in range(20)))
    loading = asyncio.create_task(load(store))
    turns = 0
    while not loading.done():
        await asyncio.sleep(0)
        turns += 1
    assert turns >= 20


async def test_a_gap_in_the_versions_halts_and_names_what_is_missing() -> None:
    store = WatchedStore()
    await write(store, [Deposited("1", 1)], [Deposited("2", 1), Deposited("3", 1)])
    await write(store, [Deposited("4", 1)])
    store.hidden = {2}
    with pytest.raises(AggregateHalted, match=r"events 2\.\.3 are missing") as caught:
        await load(store)
    assert caught.value.stream == STREAM


async def test_a_commit_that_cannot_be_trusted_halts() -> None:
    store = MemoryStore()
    await write(store, [Deposited("1", 1)], check=7)
    with pytest.raises(AggregateHalted, match=r"is stopped: commit at position 1 .*checksum"):
        await load(store)


async def test_an_event_that_cannot_be_applied_halts_and_is_named() -> None:
    store = MemoryStore()
    await write(store, [Deposited("1", 1)], [Corrupted("2")])
    with pytest.raises(AggregateHalted, match=r"from version 2 on.*bug in evolve"):
        await load(store)


async def test_a_store_that_cannot_be_read_is_no_reason_to_halt() -> None:
    store = MemoryStore()
    await store.close()
    with pytest.raises(StoreUnavailable):
        await load(store)


AMOUNTS = st.lists(st.integers(1, 9), max_size=8)


@given(amounts=AMOUNTS, later=AMOUNTS)
async def test_with_a_snapshot_or_without_the_aggregate_is_the_same(
    amounts: list[int], later: list[int]
) -> None:
    store = WatchedStore()
    # Odd amounts are commands of two events.
    batches = [
        [Deposited(f"{n}", amount), FeeCharged(f"{n}", 1)][: 1 + amount % 2]
        for n, amount in enumerate([*amounts, *later])
    ]
    await write(store, *batches[: len(amounts)])
    saved = await load(store)
    await repository(store).save_snapshot(saved)
    await write(store, *batches[len(amounts) :])
    store.read_after.clear()
    fast = await load(store)
    # Only what came after the snapshot is read.
    assert store.read_after[0] == saved.version == fast.snapshot_version
    assert fast.answers.keys() == {f"{n}" for n in range(len(amounts), len(batches))}
    plain = WatchedStore()
    await write(plain, *batches)
    slow = await load(plain)
    assert (fast.state, fast.version) == (slow.state, slow.version)
    asked = [Deposit(f"{n}", "a", 1) for n in range(len(batches))]
    await repository(store).recall(fast, asked)
    assert fast.answers == slow.answers
    # What was recalled is in memory, and not read again.
    store.read_after.clear()
    await repository(store).recall(fast, asked)
    assert store.read_after == []


async def test_a_snapshot_names_its_stream_version_and_code() -> None:
    store = MemoryStore()
    await write(store, [Deposited("1", 9), *TWO_EVENTS])
    resident = await load(store)
    await repository(store).save_snapshot(resident)
    snapshot = await store.load_snapshot(STREAM)
    assert snapshot is not None
    assert (snapshot.aggregate_type, snapshot.aggregate_id) == STREAM
    assert (snapshot.version, snapshot.code_version) == (3, ACCOUNT.snapshot_version)
    assert snapshot.checksum == checksum(snapshot.state)
    assert resident.snapshot_version == 3


Damage = Callable[[MemoryStore, StoredSnapshot], None]


def change_head(**changed: Any) -> Damage:
    def damage(store: MemoryStore, head: StoredSnapshot) -> None:
        store._snapshots[STREAM] = msgspec.structs.replace(head, **changed)

    return damage


def change_part(number: int, data: bytes | None) -> Damage:
    """Put `data` into a part of the snapshot, or take the part away."""

    def damage(store: MemoryStore, _: StoredSnapshot) -> None:
        parts = store._snapshot_parts[STREAM]
        assert number in [each.number for each in parts]
        others = [each for each in parts if each.number != number]
        new = [] if data is None else [SnapshotPart(number, data)]
        store._snapshot_parts[STREAM] = sorted([*others, *new], key=lambda each: each.number)

    return damage


def sealed(state: bytes) -> dict[str, Any]:
    return {"state": state, "checksum": checksum(state)}


@pytest.mark.parametrize(
    ("damage", "warning"),
    [
        pytest.param(change_head(code_version=2), "code version 2", id="code of another version"),
        pytest.param(change_head(checksum=1), "checksum is wrong", id="checksum of the head"),
        pytest.param(change_head(**sealed(b"\xc1")), "ignored", id="no MessagePack"),
        pytest.param(change_head(version=1), "up to version 2 of 1", id="another version"),
        pytest.param(
            change_head(**sealed(encode_head(Head(2, 2, Blob(1, 1, 0), 1, ())))),
            "up to version 0 of 2",
            id="ids missing",
        ),
        pytest.param(
            change_head(
                **sealed(
                    encode_head(
                        Head(2, 2, Blob(1, 1, 0), 1, (IdSpan(2, 2, Blob(0, 1, 0)),)),
                    )
                )
            ),
            "from version 1 on",
            id="a span missing",
        ),
        pytest.param(change_part(0, None), "part 0 is missing", id="ids gone"),
        pytest.param(change_part(1, None), "part 1 is missing", id="state gone"),
        pytest.param(change_part(0, b"x"), r"checksum of its parts 0\.\.0", id="ids damaged"),
        pytest.param(change_part(1, b"x"), r"checksum of its parts 1\.\.1", id="state damaged"),
    ],
)
async def test_a_snapshot_that_does_not_fit_is_ignored(
    damage: Damage, warning: str, caplog: pytest.LogCaptureFixture
) -> None:
    """One that is trusted would show in `snapshot_version`."""
    store = MemoryStore()
    await write(store, [Deposited("1", 5)], [Deposited("2", 5)])
    await repository(store).save_snapshot(await load(store))
    assert (await load(store)).snapshot_version == 2
    assert not caplog.records
    head = await store.load_snapshot(STREAM)
    assert head is not None
    damage(store, head)
    resident = await load(store)
    answers = {"1": Deposited("1", 5), "2": Deposited("2", 5)}
    assert contents(resident) == (Account(10), 2, answers)
    assert resident.snapshot_version == 0
    assert re.search(warning, caplog.text)
    # The next one does not build on it.
    resident.snapshot_version = 0
    await repository(store).save_snapshot(resident)
    assert (await load(store)).snapshot_version == 2


async def test_a_state_of_another_snapshot_is_not_taken_for_this_ones() -> None:
    parts = SnapshotFormat(ACCOUNT, 1_000).encode(7, Account(900), [], None)[1]
    head = Head(8, 1, Blob(0, 1, 0), 1, ())
    with pytest.raises(UnusableSnapshot, match="its state is of version 7"):
        SnapshotFormat(ACCOUNT, 1_000).decode_state(head, parts[0].data)


async def test_nothing_that_is_ahead_of_the_store_gets_into_a_snapshot(
    caplog: pytest.LogCaptureFixture,
) -> None:
    store = MemoryStore()
    await write(store, [Deposited("1", 5)])
    resident = await load(store)
    decide(resident, [Deposit("2", "a", 900)], Refusals(1), 0)
    await repository(store).save_snapshot(resident)
    assert await store.load_snapshot(STREAM) is None
    assert "ahead of what is stored" in caplog.text


async def test_ids_are_written_once_and_the_state_is_replaced() -> None:
    store = MemoryStore()
    written = set[int]()
    for n in range(5):
        await write(store, [Deposited(f"{n}", 1)])
        await repository(store).save_snapshot(await load(store))
        parts = await store.read_snapshot_parts(STREAM, 0, 99)
        assert len(parts) == n + 2
        written |= {each.number for each in parts}
    assert written == set(range(10))


async def test_what_is_longer_than_a_part_is_cut_and_put_together_again() -> None:
    class SmallParts(MemoryStore):
        @property
        def commit_bytes_max(self) -> int:
            return 4 * 7

    store = SmallParts()
    await write(store, *([Deposited(f"{n:64}", 1)] for n in range(20)))
    await repository(store).save_snapshot(await load(store))
    parts = await store.read_snapshot_parts(STREAM, 0, 9_999)
    assert max(len(each.data) for each in parts) == 7
    resident = await load(store)
    assert (resident.state, resident.snapshot_version) == (Account(20), 20)
    await repository(store).recall(resident, [Deposit(f"{11:64}", "a", 1)])
    assert resident.answers[f"{11:64}"] == Deposited(f"{11:64}", 1)


async def test_a_store_that_takes_no_snapshot_now_is_no_error_and_not_asked_at_once_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    store = WatchedStore()
    store.full = True
    await write(store, [Deposited("1", 5), Deposited("2", 5)])
    resident, keeper = await load(store), repository(store, 2)
    assert keeper.snapshot_is_due(resident)
    await keeper.save_snapshot(resident)
    assert "the disk is full" in caplog.text
    assert not keeper.snapshot_is_due(resident)
    assert await store.load_snapshot(STREAM) is None


@pytest.mark.parametrize(
    ("version", "newest", "state_bytes", "due", "at_closing"),
    [
        (0, 0, 0, False, False),
        (1, 0, 0, False, True),
        (9, 0, 0, False, True),
        (10, 0, 0, True, True),
        (109, 100, 0, False, True),
        (110, 100, 0, True, True),
        (119, 100, 64 * 20, False, True),
        (120, 100, 64 * 20, True, True),
    ],
)
def test_a_snapshot_is_due_every_so_many_events_and_more_rarely_when_its_state_is_large(
    version: int, newest: int, state_bytes: int, due: bool, at_closing: bool
) -> None:
    resident = Resident(ACCOUNT, STREAM)
    resident.version, resident.snapshot_version = version, newest
    resident.saved = Head(newest, 1, Blob(0, 1, 0), state_bytes, ())
    keeper = repository(MemoryStore(), 10)
    assert keeper.snapshot_is_due(resident) == due
    assert keeper.snapshot_is_due(resident, closing=True) == at_closing
    never = repository(MemoryStore(), 0)
    assert not never.snapshot_is_due(resident)
    assert not never.snapshot_is_due(resident, closing=True)
