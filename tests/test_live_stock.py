"""The stock in memory is the stock in the store, whatever was done and whatever failed."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.config import load_settings
from engine.cqrs.command_side.command_side import CommandSide
from engine.cqrs.event_store import EventStore, Lease, NewCommit, Source
from engine.cqrs.messages import Command
from engine.cqrs.query_side.read_model import Step
from engine.errors import WrongExpectedVersion
from engine.inventory.commands import (
    CloseSale,
    Confirm,
    ExtendHold,
    OpenSale,
    PauseSale,
    Release,
    Reserve,
    Restock,
    ResumeSale,
    Withdraw,
)
from engine.inventory.refusals import COUNTED_COMMANDS, COUNTED_REASONS
from engine.inventory.sale import sale_registry
from engine.live_stock import LiveStock, StockRow
from engine.stores.memory import MemoryStore
from engine.testing.faulty_store import FAULTS, Fault, FaultyStore
from engine.testing.virtual_clock import VirtualClock

SKUS = ("A", "B", "C d")

skus = st.sampled_from(SKUS)
names = st.sampled_from([f"r{number}" for number in range(6)])
units = st.integers(1, 4)


commands = st.one_of(
    st.tuples(st.just(OpenSale), skus, st.integers(0, 9), st.integers(0, 3), st.integers(0, 60)),
    *(st.tuples(st.just(kind), skus, units) for kind in (Restock, Withdraw)),
    *(st.tuples(st.just(kind), skus) for kind in (PauseSale, ResumeSale, CloseSale)),
    *(st.tuples(st.just(kind), skus, names) for kind in (Confirm, Release, ExtendHold)),
    st.tuples(st.just(Reserve), skus, st.sampled_from("ab"), units, names),
)
batches = st.lists(st.lists(commands, min_size=1, max_size=6), max_size=8)


def made(number: int, parts: Sequence[object]) -> Command:
    kind, sku, *rest = parts
    if kind is Reserve:
        buyer, quantity, name = rest
        return Reserve(str(name), str(sku), str(buyer), int(str(quantity)))
    assert isinstance(kind, type)
    command: Command = kind(f"c{number}", sku, *rest)
    return command


async def opened(store: EventStore, clock: VirtualClock) -> CommandSide:
    config = load_settings(None, {"store.url": "memory:"}, {})
    side = await CommandSide.open(store, sale_registry(), config, clock)
    side.count_refusals(COUNTED_COMMANDS, COUNTED_REASONS)
    return side


async def in_the_store(store: EventStore) -> list[StockRow]:
    rows = msgspec.convert(await store.read_rows("stock"), list[StockRow])
    return sorted(rows, key=lambda row: row.sku)


async def check(todo: list[list[tuple[object, ...]]], script: list[Fault]) -> None:
    clock = VirtualClock()
    store = FaultyStore(MemoryStore(2, sale_registry().tables, clock), script)
    side = await opened(store, clock)
    live = LiveStock(side)
    watch = live.watch()
    seen: dict[str, StockRow] = {}
    number = 0
    for batch in todo:
        given_ = [made(number + index, parts) for index, parts in enumerate(batch)]
        number += len(batch)
        await clock.run(side.bus.execute_many(given_))
        rows = await in_the_store(store)
        assert live.page() == rows
        # A page that shows what it is told of shows everything.
        seen |= {row.sku: row for row in watch.drain()}
        assert [seen[sku] for sku in sorted(seen)] == rows
        assert watch.drain() == []
    await side.close()
    again = await opened(store, clock)
    assert LiveStock(again).page() == await in_the_store(store)
    await again.close()


@settings(max_examples=60)
@given(batches, st.lists(st.sampled_from(["ok", "ok", *FAULTS]), max_size=12))
def test_rows_equal_the_table_after_any_commands_and_faults(
    todo: list[list[tuple[object, ...]]], script: list[Fault]
) -> None:
    asyncio.run(check(todo, script))


class Racing(MemoryStore):
    """Says once that another writer was faster with the SKU `A`."""

    raced = False

    async def append(
        self,
        lease: Lease,
        commits: Sequence[NewCommit],
        steps: Sequence[Step] = (),
        at_us: int | None = None,
        source: Source | None = None,
    ) -> None:
        if not self.raced and len(commits) == len(SKUS):
            self.raced = True
            raise WrongExpectedVersion(frozenset({("stock", "A")}))
        await super().append(lease, commits, steps, at_us, source)


async def test_a_commit_that_was_left_out_of_its_transaction_changes_no_row() -> None:
    clock = VirtualClock()
    store = Racing(1, sale_registry().tables, clock)
    side = await opened(store, clock)
    live = LiveStock(side)
    for sku in SKUS:
        await side.bus.execute(OpenSale("open", sku, 5))
    await side.bus.execute_many([Reserve("1", sku, "b", 2) for sku in SKUS])
    assert store.raced
    assert [row.available for row in live.page()] == [3, 3, 3]
    assert live.page() == await in_the_store(store)
    await side.close()


async def test_pages_go_on_behind_a_name_and_a_row_is_found_by_its_name() -> None:
    clock = VirtualClock()
    side = await opened(MemoryStore(1, sale_registry().tables, clock), clock)
    live = LiveStock(side)
    assert live.row("B") is None
    for sku in ("C", "A", "B"):
        await side.bus.execute(OpenSale("open", sku, 5))
    assert [row.sku for row in live.page(limit=2)] == ["A", "B"]
    assert [row.sku for row in live.page(after="A")] == ["B", "C"]
    assert [row.sku for row in live.page(after="AA", limit=1)] == ["B"]
    assert live.page(after="C") == []
    assert live.row("B") == StockRow("B", "open", 5, 0, 0, 0, 0, 1)
    await side.close()


async def test_who_closed_a_watch_is_told_nothing_more() -> None:
    clock = VirtualClock()
    side = await opened(MemoryStore(1, sale_registry().tables, clock), clock)
    live = LiveStock(side)
    closed, other = live.watch(), live.watch()
    closed.close()
    await side.bus.execute(OpenSale("open", "A", 5))
    assert closed.drain() == []
    assert [row.sku for row in other.drain()] == ["A"]
    await side.close()


async def test_refusals_and_the_queue_of_a_sku_are_told() -> None:
    clock = VirtualClock()
    side = await opened(MemoryStore(1, sale_registry().tables, clock), clock)
    live = LiveStock(side)
    await side.bus.execute(OpenSale("open", "A", 1))
    for number in range(3):
        await side.bus.execute(Reserve(str(number), "A", "b"))
    assert dict(live.refused("A")) == {"sold_out": 2}
    assert dict(live.refused("B")) == {}
    assert await live.waiting("A", ()) == {}
    assert live.may_know("A", "2")
    assert not live.may_know("A", "3")
    await side.close()
