"""An aggregate is what its events say; a snapshot only saves the way there."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.cqrs.codec import Codec, checksum
from engine.cqrs.command_side.repository import REPLAY_PAGE_COMMITS, Repository, Resident
from engine.cqrs.event_store import NewCommit, StoredCommit, StoredSnapshot
from engine.cqrs.messages import Event
from engine.errors import AggregateHalted, StoreUnavailable, StreamKey
from engine.stores.memory import MemoryStore
from tests.cqrs.bank_account import (
    ACCOUNT,
    COUNTER,
    Account,
    Corrupted,
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

    async def save_snapshot(self, snapshot: StoredSnapshot) -> None:
        if self.full:
            raise StoreUnavailable("the disk is full")
        await super().save_snapshot(snapshot)


def repository(store: MemoryStore, snapshot_events_min: int = 0) -> Repository:
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
    plain = WatchedStore()
    await write(plain, *batches)
    assert contents(fast) == contents(await load(plain))


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


@pytest.mark.parametrize(
    ("state", "check", "code_version", "warning"),
    [
        pytest.param(None, None, 2, "", id="code of another version"),
        pytest.param(None, 1, 1, "checksum is wrong", id="checksum"),
        pytest.param(b"\xc1", None, 1, "ignored", id="no MessagePack"),
        pytest.param(msgspec.msgpack.encode(("x", [])), None, 1, "ignored", id="another state"),
    ],
)
async def test_a_snapshot_that_does_not_fit_is_ignored(
    state: bytes | None,
    check: int | None,
    code_version: int,
    warning: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A trusted one would show its own balance of 900 instead of the events' 5."""
    store = MemoryStore()
    await write(store, [Deposited("1", 5)])
    if state is None:
        state = msgspec.msgpack.encode((Account(900), []))
    check = checksum(state) if check is None else check
    await store.save_snapshot(StoredSnapshot(*STREAM, 1, code_version, state, check))
    resident = await load(store)
    assert contents(resident) == (Account(5), 1, {"1": Deposited("1", 5)})
    assert resident.snapshot_version == 0
    assert warning in caplog.text
    assert bool(caplog.records) == bool(warning)


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
    ("version", "newest", "due"),
    [
        (9, 0, False),
        (10, 0, True),
        (19, 10, False),
        (20, 10, True),
        (59, 30, False),
        (60, 30, True),
    ],
)
def test_a_snapshot_is_due_when_the_stream_doubled_but_not_below_the_least(
    version: int, newest: int, due: bool
) -> None:
    resident = Resident(ACCOUNT, STREAM)
    resident.version, resident.snapshot_version = version, newest
    assert repository(MemoryStore(), 10).snapshot_is_due(resident) == due
    assert not repository(MemoryStore(), 0).snapshot_is_due(resident)


@given(least=st.integers(1, 50), events=st.integers(0, 3_000))
def test_all_snapshots_of_a_stream_together_hold_at_most_two_times_its_events(
    least: int, events: int
) -> None:
    resident, keeper, written = Resident(ACCOUNT, STREAM), repository(MemoryStore(), least), 0
    for version in range(1, events + 1):
        resident.version = version
        if keeper.snapshot_is_due(resident):
            written += version
            resident.snapshot_version = version
    assert written <= 2 * events
