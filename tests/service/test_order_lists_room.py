"""Lists that could not be answered in the time of their callers are refused before they are read."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import cast

import msgspec
import pytest

from engine.auth_settings import AuthSettings
from engine.clock import SystemClock
from engine.config import Settings
from engine.engine import Engine
from engine.inventory.commands import Reserve
from engine.inventory.events import Reserved
from engine.service.access import Access, Denied
from engine.service.http import Message, Scope
from engine.service.order_lists import SATURATED_BYTES, OrderLists
from engine.service.replies import Reply


class Sale:
    """An engine that answers when it is told to."""

    def __init__(self) -> None:
        self.settings = Settings()
        self.answering = asyncio.Event()

    async def reserve_many(
        self, orders: Sequence[Reserve], *, timeout_ms: int | None = None
    ) -> list[Reserved]:
        await self.answering.wait()
        return [Reserved(each.id, each.buyer, each.quantity) for each in orders]


class Door:
    """Sends lists of one order that say how long they are."""

    def __init__(self) -> None:
        self.sale = Sale()
        service = self.sale.settings.service
        self.lists = OrderLists(
            *(cast(Engine, self.sale), Access(AuthSettings(), SystemClock()), None),
            *(service.body_bytes_max, service.lists_bytes_max),
        )
        self.read = 0

    def send(self, length: int, **headers: str) -> asyncio.Task[Reply]:
        body = msgspec.json.encode([{"id": "a", "sku": "HOT", "buyer": "b"}])
        given = {"content-length": str(length), **headers}
        scope: Scope = {
            "headers": [(k.replace("_", "-").encode(), v.encode()) for k, v in given.items()]
        }

        async def receive() -> Message:
            self.read += 1
            return {"type": "http.request", "body": body.ljust(length)}

        async def reply() -> Reply:
            try:
                return await self.lists.reserve(scope, receive)
            except Denied as denied:
                return denied.reply

        return asyncio.create_task(reply())


@pytest.mark.parametrize(("timeout_ms", "status"), [("1", 503), ("10000", 200)])
async def test_a_list_behind_much_is_taken_only_when_its_caller_has_the_time(
    timeout_ms: str, status: int
) -> None:
    door = Door()
    first = door.send(SATURATED_BYTES + 1)
    second = door.send(1_000, x_request_timeout_ms=timeout_ms)
    await asyncio.wait([second], timeout=0)
    await asyncio.sleep(0)
    assert door.read == (2 if status == 200 else 1), "a refused body is not read"
    door.sale.answering.set()
    assert (await second).status == status
    assert (await first).status == 200


async def test_a_batch_of_orders_is_under_way_however_little_time_their_callers_have() -> None:
    door = Door()
    sent = [door.send(SATURATED_BYTES // 4, x_request_timeout_ms="1") for _ in range(4)]
    door.sale.answering.set()
    assert [(await each).status for each in sent] == [200] * 4


async def test_room_is_there_again_once_lists_were_answered() -> None:
    door = Door()
    first = door.send(SATURATED_BYTES + 1)
    door.sale.answering.set()
    await first
    assert (await door.send(SATURATED_BYTES + 1, x_request_timeout_ms="1")).status == 200


async def test_lists_that_are_announced_and_not_sent_keep_nobody_out() -> None:
    door = Door()
    never = asyncio.Event()

    async def receive() -> Message:
        await never.wait()
        raise AssertionError("nothing comes")

    length = str(door.sale.settings.service.body_bytes_max).encode()
    scope: Scope = {"headers": [(b"content-length", length)]}
    announced = [asyncio.create_task(door.lists.reserve(scope, receive)) for _ in range(20)]
    await asyncio.sleep(0)
    door.sale.answering.set()
    assert (await door.send(1_000)).status == 200
    for each in announced:
        each.cancel()
    await asyncio.wait(announced)


async def test_what_has_arrived_of_all_lists_is_bounded() -> None:
    door = Door()
    settings = door.sale.settings.service
    each = settings.body_bytes_max
    sent = [door.send(each) for _ in range(settings.lists_bytes_max // each + 1)]
    await asyncio.wait(sent, timeout=0.0)
    await asyncio.sleep(0)
    door.sale.answering.set()
    assert 503 in [(await one).status for one in sent]
