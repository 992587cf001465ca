"""Replays run beside the partition: one that waits for the store holds up no other."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from engine.cqrs.aggregate import AggregateType
from engine.cqrs.command_side.loader import RETRY_SECONDS, Loader
from engine.cqrs.command_side.mailbox import Mailbox
from engine.cqrs.command_side.repository import Repository, Resident
from engine.errors import AggregateHalted, StoreUnavailable, StreamKey
from engine.stores.memory import MemoryStore
from engine.testing.virtual_clock import VirtualClock, settle
from tests.cqrs.bank_account import bank_registry
from tests.cqrs.command_side.queued import ACCOUNT, mailbox, request


class ScriptedRepository(Repository):
    """Each load of a stream waits while it is held, meets the next error, or succeeds."""

    def __init__(self) -> None:
        super().__init__(MemoryStore(), bank_registry().types, {}, 0)
        self.errors: list[Exception] = []
        self.held: dict[str, asyncio.Event] = {}
        self.loads: list[str] = []

    async def load(self, aggregate: AggregateType[Any], stream: StreamKey) -> Resident:
        self.loads.append(stream[1])
        if (held := self.held.get(stream[1])) is not None:
            await held.wait()
        if self.errors:
            raise self.errors.pop(0)
        return Resident(aggregate, stream)


class Lab:
    def __init__(self, *errors: Exception) -> None:
        self.repository = ScriptedRepository()
        self.repository.errors += errors
        self.clock = VirtualClock()
        self.ready: list[tuple[str, AggregateHalted | None]] = []
        self.busy_when_changed: list[bool] = []
        self.loader = Loader(
            self.repository,
            self.clock,
            self._ready,
            lambda: self.busy_when_changed.append(self.loader.busy),
        )

    def _ready(self, box: Mailbox, halted: AggregateHalted | None) -> None:
        assert not box.loading, "whoever is told must find the mailbox finished"
        self.ready.append((box.stream[1], halted))


async def test_a_loaded_aggregate_is_handed_over_and_the_loader_is_free() -> None:
    lab, box = Lab(), mailbox(request("1"))
    assert not lab.loader.busy
    lab.loader.start(box)
    assert (box.loading, lab.loader.busy, lab.ready) == (True, True, [])
    await settle()
    assert lab.ready == [("a", None)]
    assert box.resident is not None
    assert (box.resident.aggregate, box.resident.stream) == (ACCOUNT, ("account", "a"))
    # The partition drains once nothing is loading, so it must be told after that is true.
    assert lab.busy_when_changed == [False]


async def test_a_store_that_cannot_be_read_is_tried_again_at_intervals() -> None:
    lab, box = Lab(*[StoreUnavailable("gone")] * 2), mailbox(request("1"))
    lab.loader.start(box)
    for tries in (1, 2):
        await settle()
        lab.clock.advance(RETRY_SECONDS - 0.01)
        await settle()
        assert lab.repository.loads == ["a"] * tries
        assert (box.loading, lab.loader.busy, lab.ready) == (True, True, [])
        lab.clock.advance(0.02)
    await settle()
    assert (box.resident is not None, lab.ready) == (True, [("a", None)])
    assert lab.busy_when_changed == [False]


async def test_nobody_is_loaded_for_callers_that_were_all_answered() -> None:
    lab, box = Lab(*[StoreUnavailable("gone")] * 9), mailbox(request("1"))
    lab.loader.start(box)
    await settle()
    box.queue.clear()
    lab.clock.advance(RETRY_SECONDS)
    await settle()
    assert (lab.repository.loads, box.resident) == (["a"], None)
    assert (lab.loader.busy, lab.busy_when_changed) == (False, [False])
    # It is not halted by that: the next command asks again.
    assert lab.ready == [("a", None)]
    lab.repository.errors.clear()
    box.put(request("2"))
    lab.loader.start(box)
    await settle()
    assert box.resident is not None


async def test_an_aggregate_that_cannot_be_trusted_is_handed_over_with_its_error() -> None:
    error = AggregateHalted(("account", "a"), "a gap")
    lab, box = Lab(error), mailbox(request("1"))
    lab.loader.start(box)
    await settle()
    assert (lab.ready, box.resident) == ([("a", error)], None)
    assert lab.repository.loads == ["a"]
    assert lab.busy_when_changed == [False]


async def test_an_unforeseen_error_halts_the_aggregate_and_is_named() -> None:
    lab, box = Lab(ZeroDivisionError("a bug")), mailbox(request("1"))
    lab.loader.start(box)
    await settle()
    ((_, halted),) = lab.ready
    assert halted is not None
    assert halted.stream == ("account", "a")
    assert "ZeroDivisionError('a bug')" in halted.reason
    assert box.resident is None


async def test_one_that_waits_holds_up_no_other() -> None:
    lab = Lab()
    held = lab.repository.held["slow"] = asyncio.Event()
    for name in ("slow", "quick"):
        lab.loader.start(mailbox(request("1"), name=name))
    await settle()
    assert (lab.ready, lab.loader.busy) == ([("quick", None)], True)
    held.set()
    await settle()
    assert lab.ready == [("quick", None), ("slow", None)]
    assert lab.busy_when_changed == [True, False]


@pytest.mark.parametrize("state", ["reading", "between two tries"])
async def test_a_cancelled_load_is_handed_over_to_nobody(state: str) -> None:
    lab = Lab()
    if state == "reading":
        lab.repository.held["a"] = asyncio.Event()
    else:
        lab.repository.errors.append(StoreUnavailable("gone"))
    lab.loader.start(mailbox(request("1")))
    await settle()
    lab.loader.cancel()
    await settle()
    assert (lab.ready, lab.loader.busy, lab.busy_when_changed) == ([], False, [False])
    lab.clock.advance(2 * RETRY_SECONDS)
    await settle()
    assert lab.repository.loads == ["a"]
