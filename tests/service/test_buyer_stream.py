"""A buyer who waits is told their place in the queue, then their answer: the one that the POST gets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from engine.service.buyer_stream import UNKNOWN_LOOKS_MAX
from engine.service.tokens import Purchase, sign
from engine.service.waiting import LOOK_SECONDS
from engine.testing.virtual_clock import settle
from tests.service.api import KEY, Api, Client, faulty_store, serving


class Listening:
    """Takes the events of one buyer as they come."""

    def __init__(self, client: Client, id_: str) -> None:
        self.events: list[tuple[str, Any]] = []
        self.task = asyncio.create_task(self._read(client, id_))

    async def _read(self, client: Client, id_: str) -> None:
        async for each in client.events(f"/v1/commands/{id_}/stream"):
            self.events.append(each)

    @property
    def places(self) -> list[int]:
        assert all(data["ahead"] == max(0, data["position"] - 1) for data in self.waits)
        return [data["position"] for data in self.waits]

    @property
    def waits(self) -> list[Any]:
        return [data for name, data in self.events if name == "queue"]


async def look(api: Api, times: int = 1) -> None:
    for _ in range(times):
        api.clock.advance(LOOK_SECONDS)
        await settle()


@asynccontextmanager
async def slow_shop(hangs: int) -> AsyncIterator[tuple[Api, Any]]:
    """A shop that writes one order at a time, each as long as a test wants."""
    store = faulty_store(["hang"] * hangs)
    async with serving(store=store, batch__size_max=1, queue__deadline_ms=60_000) as api:
        await api.open("PHONE", 3, hold_seconds=600)
        yield api, store
        store.released.set()
        await settle()


async def write_one(store: Any) -> None:
    """Let the transaction under way end, and the next one hang."""
    store.released.set()
    # Cleared when the waiting one has gone on, before the next one comes.
    store.released = asyncio.Event()
    await settle()


async def test_the_place_counts_down_to_the_answer_that_the_post_gets() -> None:
    async with slow_shop(4) as (api, store):
        orders = [api.public.reserving("PHONE", "alice", key=str(number)) for number in range(4)]
        await settle()
        # The first is being written, the others wait behind it.
        heard = [Listening(api.public, f"PHONE:{number}") for number in range(4)]
        await settle()
        assert [each.places for each in heard] == [[0], [1], [2], [3]]
        for written in range(1, 4):
            await write_one(store)
            await look(api)
            assert [each.places for each in heard] == [
                [0],
                [1, 0],
                [2, 1, 0][: written + 1],
                # Nothing has to be written to tell the last one that there is nothing left.
                [3, 2, 1][: written + 1],
            ]
        for each, order in zip(heard, orders, strict=True):
            assert each.task.done()
            reply = await order.reply()
            assert each.events[-1] == ("result", {"status": reply.status, "body": reply.body})
        assert [each.events[-1][1]["status"] for each in heard] == [201, 201, 201, 409]


async def test_a_place_is_shown_although_somebody_asks_for_the_order() -> None:
    async with slow_shop(9) as (api, store):
        api.public.reserving("PHONE", "bob", key="0")
        await settle()
        # Both questions wait in the queue: before the order that they are about, and behind it.
        early = Listening(api.public, "PHONE:1")
        await look(api)
        order = api.public.reserving("PHONE", "alice", key="1")
        await settle()
        asked = api.public.start("GET", "/v1/commands/PHONE:1")
        await look(api)
        assert early.places == [2]
        for _ in range(3):
            await write_one(store)
        await look(api, 2)
        assert early.events[-1][1]["status"] == (await order.reply()).status == 201
        assert (await asked.reply()).body["status"] == "executed"


async def test_a_place_that_does_not_change_is_told_once() -> None:
    async with slow_shop(1) as (api, _):
        api.public.reserving("PHONE", "bob", key="1")
        await settle()
        api.public.reserving("PHONE", "alice", key="2")
        await settle()
        alice = Listening(api.public, "PHONE:2")
        await look(api, 8)
        assert alice.places == [1]


async def test_the_queue_of_one_sku_says_nothing_of_another() -> None:
    async with slow_shop(9) as (api, _):
        for number in range(3):
            api.public.reserving("PHONE", "bob", key=str(number))
        await settle()
        api.public.reserving("HAT", "alice", key="1")
        await settle()
        alice = Listening(api.public, "HAT:1")
        await settle()
        assert alice.places == [1]


async def test_a_stream_opened_after_the_answer_begins_with_it() -> None:
    async with serving() as api:
        await api.open("PHONE", 1, hold_seconds=600)
        sold = await api.public.reserve("PHONE", "alice", key="1")
        late = await api.public.reserve("PHONE", "bob", key="2")
        for id_, reply in (("PHONE:1", sold), ("PHONE:2", late)):
            heard = Listening(api.public, id_)
            await heard.task
            assert heard.events == [("result", {"status": reply.status, "body": reply.body})]


async def test_a_stream_may_be_opened_before_the_order_comes() -> None:
    async with serving() as api:
        await api.open("PHONE", 1)
        heard = Listening(api.public, "PHONE:1")
        await look(api, 3)
        assert heard.events == []
        reply = await api.public.reserve("PHONE", "alice", key="1")
        await look(api)
        assert heard.events == [("result", {"status": 201, "body": reply.body})]
        assert heard.task.done()


async def test_a_command_that_does_not_come_is_told_to_be_unknown() -> None:
    async with serving() as api:
        heard = Listening(api.public, "PHONE:1")
        await look(api, UNKNOWN_LOOKS_MAX)
        assert heard.events == []
        await look(api)
        ((name, result),) = heard.events
        assert (name, result["status"], result["body"]["reason"]) == (
            "result",
            404,
            "unknown_command",
        )
        assert heard.task.done()


async def test_while_the_outcome_is_not_known_the_stream_goes_on() -> None:
    async with slow_shop(1) as (api, store):
        headers = {"x-request-timeout-ms": "250"}
        order = api.public.reserving("PHONE", "alice", key="1", headers=headers)
        await settle()
        heard = Listening(api.public, "PHONE:1")
        await settle()
        await look(api)
        assert (await order.reply()).status == 202
        await look(api, 2 * UNKNOWN_LOOKS_MAX)
        assert not heard.task.done()
        store.released.set()
        # Who waits was looked up just before, for all who ask within a quarter of a second.
        await look(api, 2)
        assert (heard.events[-1][0], heard.events[-1][1]["status"]) == ("result", 201)


async def test_a_stream_ends_when_the_service_closes() -> None:
    async with slow_shop(1) as (api, _):
        order = api.public.reserving("PHONE", "alice", key="1")
        await settle()
        waiting = Listening(api.public, "PHONE:1")
        await look(api)
        api.service.stop_taking()
        await look(api)
        assert waiting.task.done()
        assert not order.task.done()
    async with serving() as api:
        unknown = Listening(api.public, "PHONE:1")
        await look(api)
        api.service.stop_taking()
        await look(api)
        assert unknown.task.done()
        assert unknown.events == []


async def test_another_buyer_is_told_neither_the_place_nor_the_answer() -> None:
    store = faulty_store(["hang"])
    async with serving(store=store, auth__mode="token", auth__token_key=KEY) as api:
        await api.open("PHONE", 1)
        alice, bob = (
            api.public.with_bearer(sign(KEY, Purchase(name, "PHONE", 9_999, f"{name}-1")))
            for name in ("alice", "bob")
        )
        order = alice.start("POST", "/v1/skus/PHONE/reservations", {})
        await settle()
        hers, his = (Listening(each, "PHONE:alice-1") for each in (alice, bob))
        await settle()
        assert hers.places == [0]
        store.released.set()
        assert (await order.reply()).status == 201
        await look(api, UNKNOWN_LOOKS_MAX + 2)
        assert hers.events[-1][1]["status"] == 201
        assert [(name, data["status"]) for name, data in his.events] == [("result", 404)]
        reply = await api.public.get("/v1/commands/PHONE:alice-1/stream")
        assert (reply.status, reply.reason) == (401, "unauthorized")


@pytest.mark.parametrize("id_", ["PHONE", ":1", "PHONE:"])
async def test_what_is_no_id_is_400(id_: str) -> None:
    async with serving() as api:
        reply = await api.public.get(f"/v1/commands/{id_}/stream")
        assert (reply.status, reply.reason) == (400, "invalid")
