"""POST /v1/skus/{sku}/reservations: a definite answer to every order, and nothing done to a bad one."""

from __future__ import annotations

import json
from typing import Any

import pytest

from engine.cqrs.command_side.commit import ATTEMPTS_MAX
from engine.testing.faulty_store import Fault
from engine.testing.virtual_clock import settle
from tests.service.api import PROBLEM, Api, faulty_store, serving

PATH = "/v1/skus/PHONE/reservations"


async def test_an_order_is_answered_with_what_was_reserved_and_where_it_is() -> None:
    async with serving() as api:
        await api.open("PHONE", 5, hold_seconds=600)
        reply = await api.public.reserve("PHONE", "alice", 2, key="alice-1")
        assert (reply.status, reply.headers["content-type"]) == (201, "application/json")
        assert reply.headers["location"] == "/v1/reservations/PHONE:alice-1"
        assert reply.body == {
            "id": "PHONE:alice-1",
            "sku": "PHONE",
            "buyer": "alice",
            "quantity": 2,
            "state": "held",
            "held_until_ms": 1_600_000,
        }
        assert (await api.public.get(reply.headers["location"])).body == reply.body
        assert await api.available("PHONE") == 3


async def test_a_reservation_of_a_sale_without_holds_is_final() -> None:
    async with serving() as api:
        await api.open("PHONE", 5)
        reply = await api.public.reserve("PHONE", "alice", key="1")
        assert (reply.body["state"], reply.body["held_until_ms"]) == ("final", None)


async def test_the_quantity_is_one_when_it_is_left_out() -> None:
    async with serving() as api:
        await api.open("PHONE", 5)
        reply = await api.public.post(PATH, {"buyer": "alice"}, key="1")
        assert (reply.status, reply.body["quantity"]) == (201, 1)


async def refused(api: Api, reason: str) -> None:
    """Bring the sale into a state in which an order of 2 units is refused for `reason`."""
    if reason == "sold_out":
        await api.public.reserve("PHONE", "bob", 4, key="bob")
    elif reason == "over_limit":
        await api.public.reserve("PHONE", "alice", 2, key="first")
    elif reason in ("paused", "closed"):
        verb = {"paused": "pause", "closed": "close"}[reason]
        await api.admin.post(f"/v1/admin/skus/PHONE/{verb}")


@pytest.mark.parametrize(
    ("reason", "detail"),
    [
        ("sold_out", "not enough units are left"),
        ("over_limit", "the buyer would hold more than the limit per buyer"),
        ("paused", "the sale is paused"),
        ("closed", "the sale is closed"),
    ],
)
async def test_a_refusal_is_409_and_says_why(reason: str, detail: str) -> None:
    async with serving() as api:
        await api.open("PHONE", 5, limit_per_buyer=3 if reason == "over_limit" else 0)
        await refused(api, reason)
        before = await api.available("PHONE")
        reply = await api.public.reserve("PHONE", "alice", 2, key="1")
        assert reply.status == 409
        assert reply.body == {
            "type": f"urn:seckill:problem:{reason}",
            "title": reason.replace("_", " ").capitalize(),
            "status": 409,
            "detail": detail,
            "reason": reason,
        }
        assert "retry-after" not in reply.headers
        assert await api.available("PHONE") == before


async def test_an_order_for_a_sku_that_nobody_sells_is_404() -> None:
    async with serving() as api:
        reply = await api.public.reserve("NONE", "alice", key="1")
        assert (reply.status, reply.reason) == (404, "unknown_sku")


async def test_a_repeated_order_gets_its_first_answer_and_takes_nothing_more() -> None:
    async with serving() as api:
        await api.open("PHONE", 2, hold_seconds=600)
        first = await api.public.reserve("PHONE", "alice", 2, key="1")
        api.clock.advance(5)
        again = await api.public.reserve("PHONE", "alice", 2, key="1")
        assert (again.status, again.body) == (201, first.body)
        assert again.headers["location"] == first.headers["location"]
        late = await api.public.reserve("PHONE", "bob", key="2")
        assert late.reason == "sold_out"
        assert (await api.public.reserve("PHONE", "bob", key="2")).body == late.body
        assert await api.available("PHONE") == 0


@pytest.mark.parametrize("change", [{"buyer": "bob"}, {"quantity": 2}])
async def test_the_same_key_with_another_order_is_422_and_changes_nothing(
    change: dict[str, Any],
) -> None:
    async with serving() as api:
        await api.open("PHONE", 5)
        await api.public.reserve("PHONE", "alice", key="1")
        reply = await api.public.post(PATH, {"buyer": "alice", "quantity": 1, **change}, key="1")
        assert (reply.status, reply.reason) == (422, "command_id_reused")
        assert "command id '1' was already used for a different request" in reply.body["detail"]
        assert await api.available("PHONE") == 4


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        (b"", "the body is empty"),
        (b"{", "Input data was truncated"),
        (b"[]", "Expected `object`, got `array`"),
        (b"\xff", "JSON is malformed"),
        (b"[" * 10_000, "the body is not what is expected here"),
        (b'{"quantity":1}', "missing required field `buyer`"),
        (b'{"buyer":"a","quantity":0}', "Expected `int` >= 1 - at `$.quantity`"),
        (b'{"buyer":"a","quantity":1000001}', "Expected `int` <= 1000000 - at `$.quantity`"),
        (b'{"buyer":"a","quantity":1.5}', "Expected `int`, got `float` - at `$.quantity`"),
        (b'{"buyer":"a","quantity":"1"}', "Expected `int`, got `str` - at `$.quantity`"),
        (b'{"buyer":"a","quantity":true}', "Expected `int`, got `bool` - at `$.quantity`"),
        (b'{"buyer":5}', "Expected `str`, got `int` - at `$.buyer`"),
        (b'{"buyer":""}', "Expected `str` of length >= 1 - at `$.buyer`"),
        (b'{"buyer":"%s"}' % (b"a" * 65), "Expected `str` of length <= 64 - at `$.buyer`"),
        (b'{"buyer":"a","sku":"HAT"}', "contains unknown field `sku`"),
        (b'{"buyer":"a\\n"}', "buyer must be printable text, got 'a\\n'"),
        (b'{"buyer":"a "}', "buyer must not end with a space, got 'a '"),
    ],
)
async def test_a_body_that_is_wrong_is_400_naming_what_is_wrong_and_changes_nothing(
    body: bytes, detail: str
) -> None:
    async with serving() as api:
        await api.open("PHONE", 5)
        reply = await api.public.post(PATH, body, key="1")
        assert (reply.status, reply.reason) == (400, "invalid")
        assert detail in reply.body["detail"]
        assert (await api.public.get("/v1/commands/PHONE:1")).reason == "unknown_command"
        assert await api.available("PHONE") == 5


async def test_an_order_without_a_key_is_told_what_to_send() -> None:
    async with serving() as api:
        await api.open("PHONE", 5)
        reply = await api.public.reserve("PHONE", "alice")
        assert (reply.status, reply.reason) == (400, "invalid")
        assert "send the header Idempotency-Key: a new id (a UUID, say)" in reply.body["detail"]
        assert await api.available("PHONE") == 5


@pytest.mark.parametrize("key", ['"alice-1"', "alice-1"])
async def test_a_key_is_taken_bare_or_quoted_and_both_are_the_same(key: str) -> None:
    async with serving() as api:
        await api.open("PHONE", 5)
        await api.public.reserve("PHONE", "alice", key="alice-1")
        reply = await api.public.reserve("PHONE", "alice", key=key)
        assert (reply.status, reply.body["id"]) == (201, "PHONE:alice-1")
        assert await api.available("PHONE") == 4


@pytest.mark.parametrize(
    ("key", "detail"),
    [
        ("", "command id must have 1 to 64 characters, got 0"),
        ('""', "command id must have 1 to 64 characters, got 0"),
        ("k" * 65, "command id must have 1 to 64 characters, got 65"),
        (b"\xff\xfe", "the Idempotency-Key must be UTF-8"),
        ("a\tb", "command id must be printable text, got 'a\\tb'"),
    ],
)
async def test_a_key_that_is_none_is_400_and_changes_nothing(key: str | bytes, detail: str) -> None:
    async with serving() as api:
        await api.open("PHONE", 5)
        reply = await api.public.reserve("PHONE", "alice", key=key)
        assert (reply.status, reply.reason, reply.body["detail"]) == (400, "invalid", detail)
        assert await api.available("PHONE") == 5


async def test_a_key_of_64_characters_or_of_other_letters_is_taken() -> None:
    async with serving() as api:
        await api.open("PHONE", 5)
        for key in ("k" * 64, '"' + "q" * 64 + '"', "Schlüssel 🔑", '"', "a:b/c%20"):
            reply = await api.public.reserve("PHONE", "alice", key=key)
            assert reply.status == 201, key
            assert (await api.public.get(reply.headers["location"])).body == reply.body


@pytest.mark.parametrize(
    "text", ["0", "600001", "-1", "1.5", "", " 5", "abc", "\u0665", "9" * 5_000]
)
async def test_a_wrong_timeout_is_400_naming_what_is_allowed(text: str) -> None:
    async with serving() as api:
        await api.open("PHONE", 5)
        reply = await api.public.reserve(
            "PHONE", "alice", key="1", headers={"x-request-timeout-ms": text}
        )
        assert (reply.status, reply.reason) == (400, "invalid")
        assert (
            "X-Request-Timeout-Ms must be a whole number from 1 to 600,000" in reply.body["detail"]
        )
        assert len(reply.body["detail"]) < 200
        assert await api.available("PHONE") == 5


async def test_an_order_whose_turn_does_not_come_in_time_did_not_happen() -> None:
    store = faulty_store(["hang"])
    async with serving(store=store) as api:
        await api.open("PHONE", 5)
        first = api.public.reserving("PHONE", "bob", key="bob")
        await settle()
        late = api.public.reserving(
            "PHONE", "alice", key="alice", headers={"x-request-timeout-ms": "250"}
        )
        await settle()
        api.clock.advance(0.125)
        await settle()
        assert not late.task.done()
        api.clock.advance(0.125)
        reply = await late.reply()
        assert (reply.status, reply.reason) == (503, "deadline_exceeded")
        assert reply.headers["retry-after"] == "1"
        assert 200 <= reply.body["retry_after_ms"] <= 1_000
        store.released.set()
        assert (await first.reply()).status == 201
        assert (await api.public.get("/v1/commands/PHONE:alice")).reason == "unknown_command"
        assert await api.available("PHONE") == 4


@pytest.mark.parametrize("fault", ["commit_then_raise", "lost_commit"])
async def test_an_unknown_outcome_is_202_and_its_link_tells_the_definite_one(fault: Fault) -> None:
    store = faulty_store([fault])
    async with serving(store=store) as api:
        await api.open("PHONE", 5)
        store.acquire_failures = 3
        order = api.public.reserving(
            "PHONE", "alice", key="alice-1", headers={"x-request-timeout-ms": "100"}
        )
        await settle()
        api.clock.advance(0.1)
        reply = await order.reply()
        link = "/v1/commands/PHONE:alice-1"
        assert reply.status == 202
        assert (reply.headers["location"], reply.headers["retry-after"]) == (link, "1")
        assert reply.body == {"id": "PHONE:alice-1", "link": link, "status": "in_doubt"}
        found = await api.clock.run(api.public.get(link))
        assert (found.status, found.body["status"]) == (200, "executed")
        assert store.taken[fault] == 1
        again = await api.public.reserve("PHONE", "alice", key="alice-1")
        assert (again.status, again.body) == (201, found.body["reservation"])
        assert await api.available("PHONE") == 4


async def test_a_question_about_what_is_still_in_doubt_is_202_too() -> None:
    store = faulty_store(["hang"])
    async with serving(store=store, queue__deadline_ms=100) as api:
        await api.open("PHONE", 5)
        order = api.public.reserving("PHONE", "alice", key="1")
        await settle()
        asked = [
            api.public.start("GET", f"/v1/{kind}/PHONE:1") for kind in ("commands", "reservations")
        ]
        await settle()
        api.clock.advance(0.1)
        for each in (order, *asked):
            reply = await each.reply()
            assert (reply.status, reply.body["status"]) == (202, "in_doubt")
            assert reply.headers["location"] == "/v1/commands/PHONE:1"
        store.released.set()
        await settle()
        assert (await api.public.get("/v1/reservations/PHONE:1")).status == 200


async def test_a_store_that_does_not_take_it_is_503_and_nothing_happened() -> None:
    store = faulty_store(["fail_before"] * ATTEMPTS_MAX)
    async with serving(store=store) as api:
        await api.open("PHONE", 5)
        reply = await api.clock.run(api.public.reserve("PHONE", "alice", key="1"))
        assert (reply.status, reply.reason) == (503, "store_unavailable")
        # What a broken store says is for the log.
        assert "injected" not in reply.content.decode()
        assert reply.headers["retry-after"] == "1"
        assert (await api.public.reserve("PHONE", "alice", key="1")).status == 201


async def test_beyond_the_queue_an_order_is_refused_at_once() -> None:
    store = faulty_store(["hang"])
    async with serving(store=store, queue__depth_max=2, batch__size_max=2) as api:
        await api.open("PHONE", 9)
        taken = [api.public.reserving("PHONE", "alice", key="0")]
        await settle()
        taken += [api.public.reserving("PHONE", "alice", key=key) for key in ("1", "2")]
        await settle()
        reply = await api.public.reserve("PHONE", "alice", key="3")
        assert (reply.status, reply.reason) == (503, "overloaded")
        assert reply.headers["retry-after"] == "1"
        store.released.set()
        assert [(await each.reply()).status for each in taken] == [201] * 3
        assert await api.available("PHONE") == 6


async def test_a_body_beyond_its_limit_is_413_and_the_rest_of_it_is_not_read() -> None:
    async with serving() as api:
        await api.open("PHONE", 5)
        padded = json.dumps({"buyer": "alice"}).encode()
        named = api.public.start("POST", PATH, padded.ljust(16_385), key="1")
        reply = await named.reply()
        assert (reply.status, reply.reason, named.reads) == (413, "too_large", 0)
        assert reply.body["detail"] == "at most 16,384 bytes"
        assert reply.headers["connection"] == "close"
        pieces = [padded.ljust(9_000), b" " * 9_000, b" " * 9_000]
        streamed = api.public.start("POST", PATH, chunks=pieces, key="1")
        assert ((await streamed.reply()).status, streamed.reads) == (413, 2)
        whole = await api.public.post(PATH, chunks=[padded.ljust(16_385)], key="1")
        assert whole.status == 413
        assert await api.available("PHONE") == 5
        fits = await api.public.post(PATH, padded.ljust(16_384), key="1")
        assert fits.status == 201


async def test_a_body_in_pieces_is_put_together() -> None:
    async with serving() as api:
        await api.open("PHONE", 5)
        reply = await api.public.post(PATH, chunks=[b'{"buy', b'er":"al', b'ice"}'], key="1")
        assert (reply.status, reply.body["buyer"]) == (201, "alice")


@pytest.mark.parametrize("begin", [b"", b'{"buyer":'])
async def test_who_leaves_before_the_order_is_there_gets_no_reply_and_ordered_nothing(
    begin: bytes,
) -> None:
    async with serving() as api:
        await api.open("PHONE", 5)
        chunks = [begin] if begin else []
        order = api.public.start("POST", PATH, chunks=chunks, key="1", breaks_off=True)
        await settle()
        assert not order.task.done()
        order.leave()
        assert await order.next() is None
        assert await api.available("PHONE") == 5


@pytest.mark.parametrize(
    "sku", ["a b", "a/b", "100%", "%2F", "a%20b", "Größe 42", "🎟", "a?b#c", "..", ".", "+&="]
)
async def test_an_odd_sku_comes_back_in_every_place_as_it_was_sent(sku: str) -> None:
    async with serving() as api:
        await api.open(sku, 5, hold_seconds=60)
        reply = await api.public.reserve(sku, "alice", key="k:1/2 %41")
        assert (reply.status, reply.body["sku"]) == (201, sku)
        assert reply.headers["location"].isascii()
        seen = await api.public.get(reply.headers["location"])
        assert seen.body == reply.body
        link = reply.headers["location"].replace("reservations", "commands")
        assert (await api.public.get(link)).body["reservation"] == reply.body
        paid = await api.public.post(f"{reply.headers['location']}/confirm")
        assert (paid.status, paid.body["state"], paid.body["sku"]) == (200, "paid", sku)
        assert await api.available(sku) == 4


@pytest.mark.parametrize(
    ("path", "detail"),
    [
        (b"/v1/skus/%FF/reservations", "the path must be percent-encoded UTF-8"),
        (b"/v1/skus/\xff/reservations", "the path must be percent-encoded UTF-8"),
        (b"/v1/skus/%0A/reservations", "aggregate id must be printable text"),
        (b"/v1/skus/" + b"x" * 65 + b"/reservations", "aggregate id must have 1 to 64 characters"),
    ],
)
async def test_a_sku_that_can_be_none_is_400(path: bytes, detail: str) -> None:
    async with serving() as api:
        reply = await api.public.post(path, {"buyer": "alice"}, key="1")
        assert (reply.status, reply.reason) == (400, "invalid")
        assert detail in reply.body["detail"]
        assert reply.headers["content-type"] == PROBLEM
