"""POST /v1/reservations:batch: an outcome for each order, or nothing of the list."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, cast

import pytest

from engine.gate.gate import PASS, SOLD_OUT, Gate, GateOrder, Verdict
from engine.testing.virtual_clock import settle
from tests.service.api import Api, Reply, faulty_store, serving

PATH = "/v1/reservations:batch"
NDJSON = "application/x-ndjson"


def order(id_: str, sku: str = "PHONE", buyer: str = "alice", quantity: int = 1) -> dict[str, Any]:
    return {"id": id_, "sku": sku, "buyer": buyer, "quantity": quantity}


def lines(orders: Sequence[object]) -> bytes:
    return b"".join(json.dumps(each).encode() + b"\n" for each in orders)


async def send(api: Api, orders: Sequence[object], form: str, **more: Any) -> Reply:
    """Send a list as `form`; the outcomes of both forms are told as a list."""
    if form == "json":
        return await api.public.post(PATH, orders, **more)
    return await api.public.post(PATH, lines(orders), headers={"content-type": NDJSON}, **more)


def outcomes(reply: Reply) -> list[dict[str, Any]]:
    if reply.headers["content-type"] == NDJSON:
        return [json.loads(line) for line in reply.content.splitlines()]
    return list(reply.body)


@pytest.mark.parametrize("form", ["json", "lines"])
async def test_each_order_of_a_list_has_its_own_outcome_in_the_order_of_the_list(form: str) -> None:
    async with serving() as api:
        await api.open("PHONE", 3, hold_seconds=600)
        await api.open("a b", 1)
        orders = [
            order("1"),
            order("2", "a b"),
            order("3", "NONE"),
            order("4", quantity=9),
            order("1"),
            order("1", buyer="bob"),
            {"id": "5", "sku": "PHONE", "buyer": "bob"},
        ]
        reply = await send(api, orders, form)
        assert reply.status == 200
        until = {"quantity": 1, "held_until_ms": 1_600_000}
        assert outcomes(reply) == [
            {"id": "PHONE:1", "status": 201, **until},
            {"id": "a%20b:2", "status": 201, "quantity": 1},
            {"id": "NONE:3", "status": 404, "reason": "unknown_sku"},
            {"id": "PHONE:4", "status": 409, "reason": "sold_out"},
            {"id": "PHONE:1", "status": 201, **until},
            {
                "id": "PHONE:1",
                "status": 422,
                "reason": "command_id_reused",
                "detail": "The Idempotency-Key belongs to another request",
            },
            {"id": "PHONE:5", "status": 201, **until},
        ]
        # Sent once more, each gets its first answer.
        assert outcomes(await send(api, orders, form)) == outcomes(reply)
        assert await api.available("PHONE") == 1


@pytest.mark.parametrize("form", ["json", "lines"])
async def test_ten_thousand_orders_are_taken_and_one_more_is_refused_whole(form: str) -> None:
    async with serving() as api:
        await api.open("PHONE", 20_000)
        orders = [order(str(number)) for number in range(10_001)]
        reply = await send(api, orders, form)
        assert (reply.status, reply.reason) == (400, "invalid")
        assert reply.body["detail"] == "a list holds 1 to 10,000 orders, got 10,001"
        assert await api.available("PHONE") == 20_000
        reply = await send(api, orders[1:], form)
        assert {each["status"] for each in outcomes(reply)} == {201}
        assert await api.available("PHONE") == 10_000


@pytest.mark.parametrize("form", ["json", "lines"])
@pytest.mark.parametrize(
    ("bad", "detail"),
    [
        ({"id": "2", "sku": "PHONE"}, "missing required field `buyer`"),
        ([], "Expected `object`, got `array`"),
        ({**order("2"), "more": 1}, "contains unknown field `more`"),
        ({**order("2"), "quantity": "1"}, "Expected `int`, got `str`"),
        (order("2", quantity=0), "command 1 of the list: quantity must be from 1 to 1,000,000"),
        (order("x" * 65), "command 1 of the list: command id must have 1 to 64 characters"),
        (order("2", sku=""), "command 1 of the list: aggregate id must have 1 to 64 characters"),
        (order("2", buyer="a "), "command 1 of the list: buyer must not end with a space"),
    ],
)
async def test_one_malformed_order_refuses_the_whole_list(
    form: str, bad: object, detail: str
) -> None:
    async with serving() as api:
        await api.open("PHONE", 5)
        reply = await send(api, [order("1"), bad, order("3")], form)
        assert (reply.status, reply.reason) == (400, "invalid")
        assert detail in reply.body["detail"]
        assert await api.available("PHONE") == 5


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b"[{]", b"\xff", b"null"])
async def test_what_is_no_list_is_400(body: bytes) -> None:
    async with serving() as api:
        for headers in ({}, {"content-type": NDJSON}):
            reply = await api.public.post(PATH, body, headers=headers)
            assert (reply.status, reply.reason) == (400, "invalid")


@pytest.mark.parametrize(
    "kind",
    [NDJSON, "application/ndjson", "application/jsonl; charset=utf-8", "APPLICATION/X-NDJSON"],
)
async def test_lines_are_known_by_their_content_type_and_answered_as_lines(kind: str) -> None:
    async with serving() as api:
        await api.open("PHONE", 5)
        reply = await api.public.post(PATH, lines([order("1")]), headers={"content-type": kind})
        assert (reply.status, reply.headers["content-type"]) == (200, NDJSON)
        # The last line may end without a newline.
        body = lines([order("2"), order("3")]).rstrip()
        reply = await api.public.post(PATH, body, headers={"content-type": kind})
        assert [each["status"] for each in outcomes(reply)] == [201, 201]


async def test_beyond_the_bytes_of_a_body_a_list_is_413_and_not_read() -> None:
    async with serving(service__body_bytes_max=2_048) as api:
        await api.open("PHONE", 5)
        listed = api.public.start("POST", PATH, json.dumps([order("1")]).encode().ljust(2_049))
        reply = await listed.reply()
        assert (reply.status, reply.reason, listed.reads) == (413, "too_large", 0)
        assert reply.body["detail"] == "at most 2,048 bytes"
        body = json.dumps([order("1")]).encode()
        reply = await api.public.post(PATH, chunks=[body.ljust(2_000), b" " * 49])
        assert reply.status == 413
        assert await api.available("PHONE") == 5
        assert (await api.public.post(PATH, body.ljust(2_048))).status == 200


async def test_beyond_the_bytes_of_all_lists_one_is_503_before_its_body_is_read() -> None:
    store = faulty_store(["hang"])
    async with serving(
        store=store, service__body_bytes_max=2_000, service__lists_bytes_max=3_000
    ) as api:
        await api.open("PHONE", 9)
        first = api.public.start("POST", PATH, json.dumps([order("1")]).encode().ljust(1_500))
        await settle()
        second = api.public.start("POST", PATH, json.dumps([order("2")]).encode().ljust(1_501))
        reply = await second.reply()
        assert (reply.status, reply.reason, second.reads) == (503, "overloaded", 0)
        assert "retry-after" in reply.headers
        # One without a length counts as the longest it may become.
        third = api.public.start("POST", PATH, chunks=[json.dumps([order("3")]).encode()])
        assert ((await third.reply()).status, third.reads) == (503, 0)
        fourth = api.public.start("POST", PATH, json.dumps([order("4")]).encode().ljust(1_500))
        store.released.set()
        assert [(await each.reply()).status for each in (first, fourth)] == [200, 200]
        # What was counted is given back, also by those who were refused or left.
        assert (await api.public.post(PATH, b"x" * 2_000)).status == 400
        gone = api.public.start("POST", PATH, chunks=[b"["], breaks_off=True)
        await settle()
        gone.leave()
        assert await gone.next() is None
        assert (
            await api.public.post(PATH, chunks=[json.dumps([order("3")]).encode()])
        ).status == 200
        assert await api.available("PHONE") == 6


async def test_a_list_for_which_the_queue_has_no_room_is_refused_whole() -> None:
    async with serving(queue__depth_max=3, batch__size_max=3) as api:
        await api.open("PHONE", 9)
        reply = await api.public.post(PATH, [order(str(number)) for number in range(4)])
        assert (reply.status, reply.reason) == (400, "invalid")
        assert "a list may hold at most 3 commands, got 4" in reply.body["detail"]
    store = faulty_store(["hang"])
    async with serving(store=store, queue__depth_max=3, batch__size_max=3) as api:
        await api.open("PHONE", 9)
        first = api.public.start("POST", PATH, [order("1"), order("2")])
        await settle()
        waiting = api.public.start("POST", PATH, [order("3"), order("4")])
        await settle()
        reply = await api.public.post(PATH, [order("5"), order("6")])
        assert (reply.status, reply.reason) == (503, "overloaded")
        store.released.set()
        assert [(await each.reply()).status for each in (first, waiting)] == [200, 200]
        assert await api.available("PHONE") == 5


async def test_the_time_a_list_waits_is_honoured_for_each_of_its_orders() -> None:
    store = faulty_store(["hang"])
    async with serving(store=store, batch__size_max=1) as api:
        await api.open("PHONE", 9)
        headers = {"x-request-timeout-ms": "250"}
        sent = api.public.start("POST", PATH, [order("1"), order("2")], headers=headers)
        await settle()
        api.clock.advance(0.25)
        reply = await sent.reply()
        late = "It was not its turn in time; nothing happened"
        assert outcomes(reply) == [
            {"id": "PHONE:1", "status": 202, "reason": "in_doubt"},
            {"id": "PHONE:2", "status": 503, "reason": "deadline_exceeded", "detail": late},
        ]
        store.released.set()
        await settle()
        assert await api.available("PHONE") == 8
        bad = await api.public.post(PATH, [order("9")], headers={"x-request-timeout-ms": "0"})
        assert (bad.status, bad.reason) == (400, "invalid")


class Flags:
    """A gate that stops what it is told to."""

    def __init__(self, verdicts: dict[str, Verdict]) -> None:
        self._verdicts = verdicts

    async def check(self, orders: Sequence[GateOrder]) -> list[Verdict]:
        return [self._verdicts.get(each.buyer, PASS) for each in orders]


async def test_what_the_gate_stops_is_told_in_its_place_and_the_rest_is_sold() -> None:
    gate = cast(Gate, Flags({"late": SOLD_OUT, "robot": Verdict("too_fast", 1.5)}))
    async with serving(gate=gate) as api:
        await api.open("PHONE", 9)
        orders = [order("1", buyer="late"), order("2"), order("3", buyer="robot"), order("4")]
        reply = await api.public.post(PATH, orders)
        assert outcomes(reply) == [
            {"id": "PHONE:1", "status": 409, "reason": "sold_out"},
            {"id": "PHONE:2", "status": 201, "quantity": 1},
            {"id": "PHONE:3", "status": 429, "reason": "too_fast"},
            {"id": "PHONE:4", "status": 201, "quantity": 1},
        ]
        # A malformed order is refused also when a gate would have stopped it.
        reply = await api.public.post(PATH, [order("5"), order("6", buyer="late", quantity=0)])
        assert (reply.status, reply.reason) == (400, "invalid")
        assert await api.available("PHONE") == 7
        alone = await api.public.reserve("PHONE", "robot", key="7")
        assert (alone.status, alone.reason, alone.headers["retry-after"]) == (429, "too_fast", "2")
        assert alone.body["retry_after_ms"] == 1_500


async def test_sold_out_of_a_gate_is_not_believed_for_an_order_that_was_accepted() -> None:
    verdicts: dict[str, Verdict] = {}
    async with serving(gate=cast(Gate, Flags(verdicts))) as api:
        await api.open("PHONE", 1)
        first = await api.public.reserve("PHONE", "alice", key="1")
        assert first.status == 201
        verdicts["alice"] = SOLD_OUT
        assert (await api.public.reserve("PHONE", "alice", key="1")).body == first.body
        assert (await api.public.reserve("PHONE", "alice", key="2")).reason == "sold_out"
        listed = await api.public.post(PATH, [order("1"), order("2")])
        assert [each["status"] for each in outcomes(listed)] == [201, 409]
