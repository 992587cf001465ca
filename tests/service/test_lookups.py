"""Questions about SKUs and buyers, page by page: nothing twice, nothing left out."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import pytest

from tests.service.api import Api, Client, serving

MINE = "/v1/buyers/alice/reservations"


async def pages(client: Client, path: str, rows: str, limit: int) -> list[list[dict[str, Any]]]:
    """Every page of a list, following `next`."""
    found: list[list[dict[str, Any]]] = []
    after = ""
    while True:
        reply = await client.get(f"{path}?limit={limit}{after}")
        assert reply.status == 200, reply
        found.append(reply.body[rows])
        if reply.body["next"] is None:
            return found
        after = f"&after={quote(reply.body['next'], safe='')}"


SKUS = ["A", "B b", "B+d", "B/c", "Z%2F", "é", "🎟"]


@pytest.mark.parametrize("limit", [1, 2, 3, 6, 7, 8])
async def test_every_sku_is_on_one_page_in_the_order_of_names(limit: int) -> None:
    async with serving() as api:
        for sku in reversed(SKUS):
            await api.open(sku, 5)
        found = await pages(api.public, "/v1/skus", "skus", limit)
        assert [row["sku"] for page in found for row in page] == SKUS
        assert {len(page) for page in found[:-1]} <= {limit}
        # A full last page says that it is the last one.
        assert 1 <= len(found[-1]) <= limit


async def test_a_sku_is_as_the_last_answer_left_it() -> None:
    async with serving() as api:
        await api.open("PHONE", 5, limit_per_buyer=3, hold_seconds=60)
        await api.public.reserve("PHONE", "alice", 2, key="1")
        await api.public.reserve("PHONE", "bob", 1, key="2")
        await api.public.post("/v1/reservations/PHONE:1/confirm")
        want = {
            "sku": "PHONE",
            "phase": "open",
            "available": 2,
            "reserved": 1,
            "paid": 2,
            "limit_per_buyer": 3,
            "hold_seconds": 60,
            "version": 4,
        }
        reply = await api.public.get("/v1/skus/PHONE")
        assert (reply.status, reply.body) == (200, want)
        assert (await api.public.get("/v1/skus")).body == {"skus": [want], "next": None}
        reply = await api.public.get("/v1/skus/NONE")
        assert (reply.status, reply.reason) == (404, "unknown_sku")
        reply = await api.public.get("/v1/skus/" + "x" * 65)
        assert (reply.status, reply.reason) == (400, "invalid")


@pytest.mark.parametrize(
    ("query", "detail"),
    [
        ("limit=0", "limit must be a whole number from 1 to 1,000, got '0'"),
        ("limit=1001", "limit must be a whole number from 1 to 1,000, got '1001'"),
        ("limit=", "limit must be a whole number from 1 to 1,000, got ''"),
        ("limit=-1", "limit must be a whole number from 1 to 1,000, got '-1'"),
        ("limit=1e3", "limit must be a whole number from 1 to 1,000, got '1e3'"),
        ("limit=" + "0" * 19 + "1" + "0" * 10, "limit must be a whole number"),
        ("limit=" + "9" * 5_000, "limit must be a whole number"),
        ("limit=1&limit=2", "the parameter limit may be there once only"),
        ("after=a&after=b", "the parameter after may be there once only"),
        ("after=%FF", "the query is malformed"),
        ("&".join(f"x{number}=" for number in range(21)), "the query is malformed"),
    ],
)
async def test_a_wrong_query_is_400_naming_what_is_allowed(query: str, detail: str) -> None:
    async with serving(read_models=True) as api:
        for path in ("/v1/skus", MINE):
            reply = await api.public.get(f"{path}?{query}")
            assert (reply.status, reply.reason) == (400, "invalid")
            assert detail in reply.body["detail"]
            assert len(reply.body["detail"]) < 200


async def reserve_some(api: Api) -> list[str]:
    """Reservations of alice, some of them made at exactly the same time; the newest first."""
    await api.open("PHONE", 99, hold_seconds=600)
    await api.open("HAT", 99)
    made = []
    for number in range(9):
        if number in (3, 8):
            api.clock.advance(1)
        sku = "HAT" if number % 2 else "PHONE"
        await api.public.reserve(sku, "alice", key=f"k{number}")
        await api.public.reserve(sku, "bob", key=f"b{number}")
        made.append(f"{sku}:k{number}")
    await api.caught_up()
    return made[::-1]


@pytest.mark.parametrize("limit", range(1, 11))
async def test_every_reservation_of_a_buyer_is_on_one_page_also_when_made_at_the_same_time(
    limit: int,
) -> None:
    async with serving(read_models=True) as api:
        made = await reserve_some(api)
        found = await pages(api.public, MINE, "reservations", limit)
        assert [row["id"] for page in found for row in page] == made
        assert {len(page) for page in found[:-1]} <= {limit}
        assert len(found[-1]) >= 1


async def test_a_reservation_in_a_list_says_everything_about_it() -> None:
    async with serving(read_models=True) as api:
        await reserve_some(api)
        await api.public.post("/v1/reservations/PHONE:k0/confirm")
        body = {"buyer": "alice", "lines": [{"sku": "PHONE", "quantity": 2}]}
        await api.public.post("/v1/orders", body, key="order-1")
        await api.caught_up()
        rows = {row["id"]: row for row in (await api.public.get(MINE)).body["reservations"]}
        common = {"buyer": "alice", "quantity": 1, "order_id": ""}
        assert rows["PHONE:k8"] == {
            **common,
            "id": "PHONE:k8",
            "sku": "PHONE",
            "state": "held",
            "held_until_ms": 1_602_000,
            "reserved_at_ms": 1_002_000,
        }
        assert rows["HAT:k1"] == {
            **common,
            "id": "HAT:k1",
            "sku": "HAT",
            "state": "final",
            "held_until_ms": None,
            "reserved_at_ms": 1_000_000,
        }
        assert (rows["PHONE:k0"]["state"], rows["PHONE:k0"]["held_until_ms"]) == ("paid", None)
        (line,) = [row for row in rows.values() if row["order_id"]]
        assert (line["order_id"], line["quantity"]) == ("order-1", 2)


async def test_a_buyer_nobody_knows_has_no_reservations() -> None:
    async with serving(read_models=True) as api:
        reply = await api.public.get("/v1/buyers/nobody/reservations")
        assert (reply.status, reply.body) == (200, {"reservations": [], "next": None})
        reply = await api.public.get("/v1/buyers/%20/reservations")
        assert (reply.status, reply.reason) == (400, "invalid")


@pytest.mark.parametrize(
    "after", ["", "x", "1", "1.", ".1", "1.-1", "1.5.5", "9" * 30 + ".1", "%D9%A5.1", "1%2E%B2"]
)
async def test_a_place_that_is_no_next_of_a_page_is_400(after: str) -> None:
    async with serving(read_models=True) as api:
        reply = await api.public.get(f"{MINE}?after={after}")
        assert (reply.status, reply.reason) == (400, "invalid")
        assert (
            "after must be `next` of the page before" in reply.body["detail"] or after[-3:] == "%B2"
        )


@pytest.mark.parametrize("after", ["0.0", "99999999999999999.0", "999999999999.999999999999999"])
async def test_a_place_beyond_everything_is_an_empty_page_or_the_first_one(after: str) -> None:
    async with serving(read_models=True) as api:
        await reserve_some(api)
        assert (await api.public.get(f"{MINE}?after={after}")).status == 200


async def test_where_the_read_model_is_off_it_is_said_what_to_set() -> None:
    async with serving() as api:
        reply = await api.public.get(MINE)
        assert (reply.status, reply.reason) == (501, "not_available")
        assert (
            'the read model orders is off; set query_side.orders to "async"'
            in (reply.body["detail"])
        )


async def test_about_says_what_is_running_and_no_secret() -> None:
    async with serving() as api:
        reply = await api.public.get("/v1/about")
        assert reply.status == 200
        assert reply.body["store"] == {
            "kind": api.engine.info.kind,
            "version": api.engine.info.version,
            "durability": api.engine.info.durability,
        }
        assert (reply.body["auth"], reply.body["public_url"], reply.body["admin_url"]) == (
            "none",
            "http://127.0.0.1:8080",
            "http://127.0.0.1:8081",
        )
        assert sorted(reply.body) == ["admin_url", "auth", "public_url", "store", "version"]
    async with serving(service__public_dashboard=False) as api:
        assert (await api.public.get("/v1/about")).body["admin_url"] is None
        assert (await api.public.get("/")).status == 404
        assert (await api.admin.get("/")).status == 200
