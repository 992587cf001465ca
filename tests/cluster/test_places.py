"""The place in the queue, shown by the gateway that did not take the order."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from engine.cluster import places
from engine.cluster.intake import Intake
from engine.cluster.places import PlacesIn
from engine.cqrs.command_side.command_bus import CommandBus
from engine.service import buyer_stream
from engine.stores.mysql import MysqlStore
from engine.testing.nats_server import NatsServer
from tests.cluster.town import Site, eventually, served, sku_in, town
from tests.gate.waiting import until
from tests.service.test_buyer_stream import Listening

SKU = sku_in(1)
OPEN = f"/v1/admin/skus/{SKU}/open"


class SlowStore:
    """Once `slow`, every transaction of the owner waits until it is let through."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.slow = False
        self.waiting = 0
        through = self._through = asyncio.Semaphore(0)
        append = MysqlStore.append

        async def slowly(store: MysqlStore, *arguments: Any, **more: Any) -> Any:
            if self.slow:
                self.waiting += 1
                await through.acquire()
                self.waiting -= 1
            return await append(store, *arguments, **more)

        monkeypatch.setattr(MysqlStore, "append", slowly)

    async def is_held(self) -> bool:
        return self.waiting > 0

    def let_one(self) -> None:
        self._through.release()

    def go_on(self) -> None:
        self.slow = False
        for _ in range(100):
            self.let_one()


@asynccontextmanager
async def slow_town(
    mariadb_url: str, nats: NatsServer, store: SlowStore
) -> AsyncIterator[tuple[Site, Site]]:
    """Two gateways of an engine that writes one order at a time, and none before it may."""
    settings: dict[str, Any] = {
        "batch__size_max": 1,
        "queue__deadline_ms": 60_000,
        "cluster__events": False,
    }
    async with town(mariadb_url, nats, **settings) as made:
        await made.join("engine", "engine-1")
        here = await made.join("gateway", "gateway-1")
        there = await made.join("gateway", "gateway-2")
        for each in (here, there):
            await served(each)
        assert (await here.admin.post(OPEN, {"stock": 5, "hold_seconds": 600})).status == 201
        await there.shows(SKU, available=5)
        store.slow = True
        try:
            yield here, there
        finally:
            store.go_on()


async def arrived(site: Site, *keys: str) -> None:
    """Wait until the owner has these orders, and no other."""

    async def found() -> set[str]:
        where = site.gateway
        queue = await where.waiting(("stock", SKU), [str(n) for n in range(20)])
        return set(queue)

    await eventually(found, set(keys))


async def test_a_place_is_shown_by_the_other_gateway_and_counts_down_to_the_answer(
    mariadb_url: str, nats: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = SlowStore(monkeypatch)
    async with slow_town(mariadb_url, nats, store) as (here, there):
        orders = []
        for n in range(4):
            orders.append(here.public.reserving(SKU, "alice", key=str(n)))
            await arrived(there, *map(str, range(n + 1)))
        await until(store.is_held)
        # Opened before its order comes, which its question would hide.
        early = Listening(there.public, f"{SKU}:4")
        heard = [Listening(there.public, f"{SKU}:{n}") for n in range(4)]

        async def told() -> list[list[int]]:
            return [each.places[:1] for each in heard]

        await eventually(told, [[0], [1], [2], [3]])
        orders.append(here.public.reserving(SKU, "bob", key="4"))

        async def early_told() -> bool:
            return bool(early.places)

        await until(early_told)
        assert early.places[0] >= 4
        # Whoever asks for an order does not take its place away.
        asking = there.public.start("GET", f"/v1/commands/{SKU}:3")
        store.let_one()

        async def third() -> list[int]:
            return heard[2].places

        await eventually(third, [2, 1])
        store.go_on()
        for each, order in zip([*heard, early], orders, strict=True):
            await each.task
            reply = await order.reply()
            assert reply.status == 201
            assert each.events[-1] == ("result", {"status": 201, "body": reply.body})
            assert each.places == sorted(each.places, reverse=True)
        assert (await asking.reply()).body["status"] == "executed"


async def test_what_is_on_its_way_stands_behind_what_has_arrived_and_is_counted_once(
    mariadb_url: str, nats: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = SlowStore(monkeypatch)
    async with slow_town(mariadb_url, nats, store) as (here, there):
        for n in range(3):
            here.public.reserving(SKU, "alice", key=str(n))
            await arrived(there, *map(str, range(n + 1)))
        await until(store.is_held)
        take = Intake.take
        held: list[tuple[Any, ...]] = []
        monkeypatch.setattr(Intake, "take", lambda *found: held.append(found))
        for n in (3, 4):
            here.public.reserving(SKU, "alice", key=str(n))

        async def positions() -> dict[str, int]:
            # What was asked a moment ago is answered from what was seen then.
            found = await here.gateway.waiting(("stock", SKU), [str(n) for n in range(5)])
            return {id_: place for id_, (place, _) in found.items()}

        await eventually(positions, {"0": 0, "1": 1, "2": 2, "3": 3, "4": 4})
        assert len(await there.gateway.waiting(("stock", SKU), [str(n) for n in range(5)])) == 3
        monkeypatch.setattr(Intake, "take", take)
        for each in held:
            take(*each)
        await eventually(positions, {"0": 0, "1": 1, "2": 2, "3": 3, "4": 4})


async def test_more_readers_than_one_question_holds_are_all_told(
    mariadb_url: str, nats: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(places, "IDS_MAX", 2)
    asked: list[int] = []
    ask = PlacesIn._ask

    async def counted(self: PlacesIn, *question: Any) -> Any:
        asked.append(len(question[-1]))
        return await ask(self, *question)

    monkeypatch.setattr(PlacesIn, "_ask", counted)
    store = SlowStore(monkeypatch)
    async with slow_town(mariadb_url, nats, store) as (here, there):
        for n in range(5):
            here.public.reserving(SKU, "alice", key=str(n))
        await arrived(there, *"01234")
        assert max(asked) == 2
        asked.clear()
        # A crowd that opens its pages at once: whoever comes while a question is on its way waits
        # for it, and the next one is for all of them.
        heard = [Listening(there.public, f"{SKU}:{n % 5}") for n in range(50)]

        async def told() -> bool:
            return all(each.places for each in heard)

        await until(told)
        assert sum(asked) < 50


async def test_nothing_is_asked_of_the_owner_about_names_that_nobody_sells(
    mariadb_url: str, nats: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    questions: list[str] = []

    async def counted(self: PlacesIn, *question: Any) -> Any:
        questions.append(question[0][1])
        raise AssertionError(question)

    asks: list[str] = []
    ask = CommandBus.ask

    async def counted_ask(self: CommandBus, *question: Any, **more: Any) -> Any:
        asks.append(question[2])
        return await ask(self, *question, **more)

    async with town(mariadb_url, nats) as made:
        await made.join("engine", "engine-1")
        gateway = await made.join("gateway", "gateway-1")
        await served(gateway)
        monkeypatch.setattr(PlacesIn, "_ask", counted)
        monkeypatch.setattr(CommandBus, "ask", counted_ask)
        monkeypatch.setattr(buyer_stream, "LOOK_SECONDS", 0.02)
        heard = [Listening(gateway.public, f"no-such-{n}:x{n}") for n in range(5)]
        for each in heard:
            await each.task
            assert [data["status"] for _, data in each.events] == [404]
        assert questions == []
        # Of 21 looks each.
        assert len(asks) == 6 * len(heard)
