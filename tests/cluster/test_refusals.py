"""A refusal that a buyer was told is never executed later, whoever owns the partition then."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from engine.clock import SystemClock
from engine.cluster.broker import Broker
from engine.cluster.intake import Limits
from engine.cluster.owner import Owner
from engine.cluster.wire import Wire
from engine.config import Settings
from engine.cqrs.command_side.live_rows import LiveRows
from engine.cqrs.command_side.partition_maker import PartitionMaker
from engine.cqrs.command_side.statistics import Counters
from engine.cqrs.event_store import StoredCommit
from engine.cqrs.messages import Ask, Command, Found, Rejected
from engine.cqrs.query_side.subscription import Feed
from engine.errors import StreamKey
from engine.inventory.commands import OpenSale, Reserve, Restock
from engine.inventory.events import Reserved
from engine.inventory.sale import sale_registry
from engine.stores.memory import MemoryStore
from engine.testing.scripted_broker import ScriptedServer

REGISTRY = sale_registry()
WIRE = Wire(REGISTRY)
POLLS_MAX = 12_000
QUIET_POLLS = 40


class SlowStore(MemoryStore):
    """One SKU takes as long to load as a test wants."""

    def __init__(self, clock: SystemClock) -> None:
        super().__init__(1, REGISTRY.tables, clock)
        self.open = asyncio.Event()
        self.open.set()

    async def read_stream(
        self, stream: StreamKey, after_version: int, limit: int
    ) -> list[StoredCommit]:
        if stream[1] == "SLOW":
            await self.open.wait()
        return await super().read_stream(stream, after_version, limit)


class Site:
    """One partition on a broker without a network, and what its owners told the gateways."""

    def __init__(self) -> None:
        self.clock = SystemClock()
        self.server = ScriptedServer(self.clock)
        self.server.make()
        self.store = SlowStore(self.clock)
        self.replies: list[tuple[str, bytes]] = []

    async def own(self) -> Owner:
        rows = LiveRows()
        await rows.load(self.store, REGISTRY.tables)
        maker = PartitionMaker(
            *(self.store, REGISTRY, Settings(), self.clock, Counters(), Feed(), rows)
        )

        async def prepare(_: int) -> None:
            await rows.load(self.store, REGISTRY.tables)

        broker: Broker = self.server.connect()
        owner = await Owner.take(0, maker, broker, prepare, self.clock)
        owner.start(WIRE, REGISTRY, 1, Limits(10_000, 1), self._reply, lambda _: None)
        return owner

    def _reply(self, inbox: str, data: bytes) -> None:
        self.replies.append((inbox, data))

    def send(self, inbox: str, number: int, *commands: Command) -> None:
        far = self.clock.wall_us() + 60_000_000
        self.server.store(0, WIRE.encode_commands(inbox, number, [("stock", far, commands)]))

    def told(self, inbox: str, number: int) -> list[Any] | None:
        for to, data in self.replies:
            reply = WIRE.decode_reply(data)
            if (to, reply.number) == (inbox, number):
                return WIRE.decode_outcomes(reply)
        return None

    async def until(self, seen: Callable[[], Any]) -> None:
        for _ in range(POLLS_MAX):
            if seen():
                return
            await self.clock.sleep(0.005)
        raise AssertionError("it was not seen")

    async def answer(self, inbox: str, number: int) -> Any:
        await self.until(lambda: self.told(inbox, number))
        found = self.told(inbox, number)
        assert found is not None
        return found[0]

    async def sold_out(self) -> Owner:
        """The only unit of X is gone; SLOW takes long to load from now on."""
        owner = await self.own()
        self.send("gw1", 1, OpenSale("open", "X", 1), Reserve("first", "X", "other"))
        await self.until(lambda: self.told("gw1", 1))
        await owner.give_back()
        self.store.open.clear()
        return await self.own()


@pytest.mark.parametrize(
    "second", [Ask("order", "X"), Reserve("order", "X", "buyer")], ids=["asked for", "sent again"]
)
async def test_nobody_is_told_of_a_command_while_an_earlier_message_with_it_may_come_again(
    second: Command,
) -> None:
    site = Site()
    owner = await site.sold_out()
    # One message for two buyers, one of whom has to wait; the other one comes to another gateway.
    site.send("gw1", 2, Reserve("order", "X", "buyer"), Reserve("y", "SLOW", "z"))
    site.send("gw2", 1, second)
    site.send("gw2", 2, Reserve("of nobody else", "X", "third"))
    site.send("admin", 1, Restock("more", "X", 5))
    # What has nothing to do with it is told all the same.
    assert isinstance(await site.answer("gw2", 2), Rejected)
    await site.answer("admin", 1)
    for _ in range(QUIET_POLLS):
        await site.clock.sleep(0.005)
    assert site.told("gw2", 1) is None
    await owner.drop()
    site.store.open.set()
    again = await site.own()
    executed = await site.answer("gw1", 2)
    answer = await site.answer("gw2", 1)
    assert isinstance(executed[0], Reserved)
    assert (answer.answer if isinstance(answer, Found) else answer) == executed
    await again.give_back()


async def test_what_an_owner_read_of_a_stream_that_is_gone_is_told_nobody() -> None:
    site = Site()
    owner = await site.sold_out()
    order = (Reserve("order", "X", "buyer"), Reserve("y", "SLOW", "z"))
    site.send("gw1", 2, *order)
    await site.until(lambda: owner.partition.queue_depth)
    site.server.wipe()
    site.server.make()
    await site.until(lambda: owner.holding().source.stream == site.server.life.name)
    site.store.open.set()
    for _ in range(QUIET_POLLS):
        await site.clock.sleep(0.005)
    assert site.told("gw1", 2) is None
    # Whoever waits for it sends it again, and is told by that.
    site.send("gw1", 3, *order)
    assert isinstance(await site.answer("gw1", 3), Rejected)
    await owner.give_back()


async def test_a_sku_that_takes_long_to_load_does_not_stop_the_others() -> None:
    site = Site()
    owner = await site.own()
    site.send("gw", 1, OpenSale("open", "X", 100_000))
    await site.answer("gw", 1)
    site.store.open.clear()
    site.send("gw", 2, Reserve("y", "SLOW", "z"))
    last = 2 + 2 * 1_024
    for number in range(3, last + 1):
        site.send("gw", number, Reserve(f"c{number}", "X", f"b{number}"))
    await site.until(lambda: len(site.replies) >= last - 1)
    assert site.told("gw", 2) is None
    assert len(owner.holding().source.ahead) <= 1
    site.store.open.set()
    await site.answer("gw", 2)
    await owner.give_back()
