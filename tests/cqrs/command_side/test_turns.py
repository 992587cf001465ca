"""Aggregates take turns: a batch each, oldest turn first, however much one of them has to do."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.config import load_settings
from engine.cqrs.command_side import ahead
from engine.cqrs.command_side.command_side import CommandSide
from engine.cqrs.event_store import Lease, NewCommit
from engine.stores.memory import MemoryStore
from engine.testing.virtual_clock import VirtualClock, settle
from tests.cqrs.bank_account import Increment, Incremented, bank_registry


class HeldStore(MemoryStore):
    """Holds its first transaction until `released`, and notes which aggregates are in each."""

    is_remote = False

    def __init__(self, *, is_remote: bool) -> None:
        super().__init__()
        self.is_remote = is_remote
        self.released = asyncio.Event()
        self.transactions: list[list[str]] = []

    async def append(
        self, lease: Lease, commits: Sequence[NewCommit], *more: Any, **named: Any
    ) -> None:
        self.transactions.append([each.aggregate_id for each in commits])
        await self.released.wait()
        await super().append(lease, commits, *more, **named)


@pytest.fixture(autouse=True, scope="module")
def _ahead() -> Iterator[None]:
    """On a store that is remote, every full batch is decided ahead."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ahead, "COMMANDS_MIN", 1)
        yield


def turns_of(counts: Sequence[int], size_max: int) -> list[str]:
    """Who is served when: everybody who still waits once, then everybody once more, and so on."""
    batches = [-(-count // size_max) for count in counts]
    rounds = range(max(batches))
    return [f"c{n}" for turn in rounds for n, own in enumerate(batches) if turn < own]


def rounds_waited(transactions: Sequence[Sequence[str]]) -> Counter[int]:
    """Batches by transactions of others between this turn of an aggregate and the one before."""
    waited: Counter[int] = Counter()
    since: dict[str, int] = {}
    for number, served in enumerate(transactions):
        for each in served:
            # Everybody came while the first transaction was flying.
            waited[number - since.get(each, min(number, 1))] += 1
            since[each] = number + 1
    return waited


@given(
    counts=st.lists(st.integers(1, 12), min_size=1, max_size=6),
    size_max=st.integers(1, 5),
    aggregates_max=st.integers(1, 4),
    is_remote=st.booleans(),
)
async def test_nobody_is_served_twice_while_another_waits(
    counts: list[int], size_max: int, aggregates_max: int, is_remote: bool
) -> None:
    store = HeldStore(is_remote=is_remote)
    overrides = {"batch.size_max": size_max, "batch.aggregates_max": aggregates_max}
    settings = load_settings(environ={}, overrides=overrides)
    side = await CommandSide.open(store, bank_registry(), settings, VirtualClock())
    # Everything below is queued while this one is being written.
    flying = asyncio.create_task(side.bus.execute(Increment("0", "flying")))
    await settle()
    waiting = []
    for n, count in enumerate(counts):
        commands = [Increment(f"{m}", f"c{n}") for m in range(count)]
        waiting.append(asyncio.create_task(side.bus.execute_many(commands)))
        await settle()
    assert store.transactions == [["flying"]]
    store.released.set()
    outcomes = await asyncio.gather(*waiting)
    await flying
    waited = side.statistics().rounds_waited
    await side.close()
    assert outcomes == [[(Incremented(f"{m}"),) for m in range(count)] for count in counts]
    assert [each for served in store.transactions[1:] for each in served] == turns_of(
        counts, size_max
    )
    # Counted from when the batch before took its turn, or from the arrival.
    assert waited == rounds_waited(store.transactions)
    for served in store.transactions:
        assert len(served) <= aggregates_max
        # A transaction holds one commit a stream at most.
        assert len(set(served)) == len(served)
