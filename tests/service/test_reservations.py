"""Confirm, release, extend, and what became of a command."""

from __future__ import annotations

from typing import Any

import pytest

from engine.cqrs.codec import Codec
from engine.inventory.stock import STOCK
from engine.testing.virtual_clock import settle
from tests.service.api import Api, faulty_store, serving

AT = "/v1/reservations/PHONE:1"

HELD: dict[str, Any] = {
    "id": "PHONE:1",
    "sku": "PHONE",
    "buyer": "alice",
    "quantity": 2,
    "state": "held",
    "held_until_ms": 1_600_000,
}


async def hold(api: Api, hold_seconds: int = 600) -> None:
    await api.open("PHONE", 5, hold_seconds=hold_seconds)
    assert (await api.public.reserve("PHONE", "alice", 2, key="1")).status == 201


async def stock(api: Api) -> tuple[int, int, int]:
    row = (await api.public.get("/v1/skus/PHONE")).body
    return row["available"], row["reserved"], row["paid"]


@pytest.mark.parametrize(
    ("verb", "change", "after"),
    [
        ("confirm", {"state": "paid", "held_until_ms": None}, (3, 0, 2)),
        ("release", {"state": "released", "held_until_ms": None}, (5, 0, 0)),
        ("extend", {"state": "held", "held_until_ms": 1_610_000}, (3, 2, 0)),
    ],
)
async def test_a_change_is_answered_with_the_reservation_as_it_is_then_also_when_repeated(
    verb: str, change: dict[str, Any], after: tuple[int, int, int]
) -> None:
    async with serving() as api:
        await hold(api)
        assert (await api.public.get(AT)).body == HELD
        api.clock.advance(10)
        first = await api.public.post(f"{AT}/{verb}")
        assert (first.status, first.body) == (200, HELD | change)
        assert (await api.public.get(AT)).body == HELD | change
        assert await stock(api) == after
        api.clock.advance(10)
        again = await api.public.post(f"{AT}/{verb}")
        assert (again.status, again.body) == (200, first.body)
        assert await stock(api) == after


REFUSALS = [
    (["confirm"], "confirm", "already_paid", "the reservation was paid before"),
    (["confirm"], "release", "already_paid", "the reservation was paid before"),
    (["confirm"], "extend", "already_paid", "the reservation was paid before"),
    (["release"], "release", "already_released", "the reservation was given back before"),
    (["release"], "extend", "already_released", "the reservation was given back before"),
    (["extend"], "extend", "already_extended", "a hold is extended once at most"),
    (
        ["release"],
        "confirm",
        "hold_expired",
        "its units are for sale again, and may be sold to others: refund the buyer",
    ),
]


@pytest.mark.parametrize(("before", "verb", "reason", "detail"), REFUSALS)
async def test_a_change_that_comes_too_late_is_409_and_says_why(
    before: list[str], verb: str, reason: str, detail: str
) -> None:
    async with serving() as api:
        await hold(api)
        for each in before:
            assert (await api.public.post(f"{AT}/{each}")).status == 200
        was = await stock(api)
        for _ in range(2):
            reply = await api.public.post(f"{AT}/{verb}", key="another")
            assert (reply.status, reply.reason) == (409, reason)
            assert reply.body["detail"] == detail
        assert await stock(api) == was


@pytest.mark.parametrize("verb", ["confirm", "release", "extend"])
async def test_what_is_no_reservation_of_a_hold_cannot_be_changed(verb: str) -> None:
    async with serving() as api:
        await hold(api, hold_seconds=0)
        reply = await api.public.post(f"{AT}/{verb}")
        assert (reply.status, reply.reason) == (409, "no_holds")
        for id_ in ("PHONE:2", "NONE:1"):
            reply = await api.public.post(f"/v1/reservations/{id_}/{verb}")
            assert (reply.status, reply.reason) == (404, "unknown_reservation")
        reply = await api.public.post(f"/v1/reservations/PHONE/{verb}")
        assert (reply.status, reply.reason) == (400, "invalid")
        assert reply.body["detail"] == (
            "an id here is the SKU, a colon and the Idempotency-Key, as in PHONE:alice-1; got 'PHONE'"
        )


@pytest.mark.parametrize("verb", ["confirm", "release", "extend"])
async def test_a_line_of_an_order_is_not_changed_by_itself(verb: str) -> None:
    async with serving() as api:
        await hold(api)
        body = {"buyer": "bob", "lines": [{"sku": "PHONE"}]}
        assert (await api.public.post("/v1/orders", body, key="order")).status == 201
        codec = Codec(STOCK.events, STOCK.upcasters)
        (line,) = [
            event.command_id
            for commit in await api.engine.reader.read_stream(("stock", "PHONE"), 0, 10)
            for event in codec.decode(commit)
            if getattr(event, "order_id", "")
        ]
        reply = await api.public.post(f"/v1/reservations/PHONE:{line}/{verb}")
        assert (reply.status, reply.reason) == (409, "belongs_to_order")
        assert (await stock(api))[1] == 3


async def test_a_key_of_another_request_is_422_for_a_change_too() -> None:
    async with serving() as api:
        await hold(api)
        reply = await api.public.post(f"{AT}/confirm", key="1")
        assert (reply.status, reply.reason) == (422, "command_id_reused")
        assert await stock(api) == (3, 2, 0)
        reply = await api.public.post(f"{AT}/confirm", key="k" * 65)
        assert (reply.status, reply.reason) == (400, "invalid")


async def test_a_change_whose_outcome_is_unknown_is_202_and_its_link_tells() -> None:
    store = faulty_store(["ok", "hang"])
    async with serving(store=store, queue__deadline_ms=100) as api:
        await hold(api)
        paying = api.public.start("POST", f"{AT}/confirm", key="pay-1")
        await settle()
        api.clock.advance(0.1)
        reply = await paying.reply()
        assert (reply.status, reply.body["id"]) == (202, "PHONE:pay-1")
        assert reply.headers["location"] == reply.body["link"] == "/v1/commands/PHONE:pay-1"
        store.released.set()
        await settle()
        found = await api.public.get(reply.headers["location"])
        assert found.body == {
            "id": "PHONE:pay-1",
            "status": "executed",
            "reservation": None,
            "events": [
                {
                    "type": "confirmed.1",
                    "command_id": "pay-1",
                    "reservation_id": "1",
                    "quantity": 2,
                }
            ],
            "reason": None,
            "detail": None,
        }


async def test_a_command_is_told_with_its_events_and_the_reservation_as_it_is_now() -> None:
    async with serving() as api:
        await hold(api)
        await api.public.post(f"{AT}/confirm")
        reply = await api.public.get("/v1/commands/PHONE:1")
        assert reply.status == 200
        assert reply.body == {
            "id": "PHONE:1",
            "status": "executed",
            "reservation": HELD | {"state": "paid", "held_until_ms": None},
            "events": [
                {
                    "type": "reserved.1",
                    "command_id": "1",
                    "buyer": "alice",
                    "quantity": 2,
                    "held_until_us": 1_600_000_000,
                }
            ],
            "reason": None,
            "detail": None,
        }


async def test_a_refused_command_is_told_with_its_reason_and_one_never_sent_is_404() -> None:
    async with serving() as api:
        await hold(api)
        await api.public.reserve("PHONE", "bob", 9, key="bob-1")
        reply = await api.public.get("/v1/commands/PHONE:bob-1")
        assert (reply.status, reply.body) == (
            200,
            {
                "id": "PHONE:bob-1",
                "status": "refused",
                "reservation": None,
                "events": [],
                "reason": "sold_out",
                "detail": "not enough units are left",
            },
        )
        for path in ("/v1/commands/PHONE:never", "/v1/commands/NONE:1"):
            reply = await api.public.get(path)
            assert (reply.status, reply.reason) == (404, "unknown_command")
        reply = await api.public.get("/v1/reservations/PHONE:bob-1")
        assert (reply.status, reply.reason) == (404, "unknown_reservation")


@pytest.mark.parametrize("kind", ["commands", "reservations"])
@pytest.mark.parametrize(
    ("id_", "detail"),
    [
        ("PHONE", "an id here is the SKU, a colon and the Idempotency-Key"),
        (":1", "SKU must have 1 to 64 characters, got 0"),
        ("PHONE:", "command id must have 1 to 64 characters, got 0"),
        ("PHONE:" + "x" * 65, "command id must have 1 to 64 characters, got 65"),
        ("%FF:1", "the path must be percent-encoded UTF-8"),
        ("PHONE:%0A", "command id must be printable text"),
    ],
)
async def test_an_id_that_is_none_is_400(kind: str, id_: str, detail: str) -> None:
    async with serving() as api:
        reply = await api.public.get(f"/v1/{kind}/{id_}")
        assert (reply.status, reply.reason) == (400, "invalid")
        assert detail in reply.body["detail"]
