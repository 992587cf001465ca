"""The operator's API: sales are opened, run, exported and audited, with the admin secret only."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from engine.testing.virtual_clock import settle
from tests.service.api import Api, Client, faulty_store, serving

SKU = "/v1/admin/skus/PHONE"

GUARDED = [
    ("GET", "/v1/admin/session", None),
    ("POST", f"{SKU}/open", {"stock": 1}),
    *(("POST", f"{SKU}/{verb}", {"quantity": 1}) for verb in ("restock", "withdraw")),
    *(("POST", f"{SKU}/{verb}", None) for verb in ("pause", "resume", "close")),
    ("GET", f"{SKU}/export.csv", None),
    ("POST", "/v1/admin/audit", None),
    ("POST", "/v1/admin/tokens", {"buyer": "alice", "sku": "PHONE"}),
]

VIEW: dict[str, Any] = {
    "sku": "PHONE",
    "phase": "open",
    "available": 5,
    "reserved": 0,
    "paid": 0,
    "limit_per_buyer": 2,
    "hold_seconds": 600,
    "version": 1,
}

OPEN = {"stock": 5, "limit_per_buyer": 2, "hold_seconds": 600}


async def test_every_operation_of_the_operator_that_asks_for_the_secret_is_tested_here() -> None:
    async with serving() as api:
        guarded = {
            (each.method, each.path.replace("{sku}", "PHONE"))
            for each in api.service.operations
            if each.who == "admin"
        }
        assert guarded == {(method, path) for method, path, _ in GUARDED}


@pytest.mark.parametrize(("method", "path", "body"), GUARDED)
async def test_without_the_secret_the_operator_is_refused_and_nothing_happens(
    method: str, path: str, body: object
) -> None:
    async with serving() as api:
        await api.open("PHONE", 5)
        before = api.engine.live.row("PHONE")
        wrong = ["", "Bearer", "Bearer ", "Bearer wrong", "seckill-local", "Basic seckill-local"]
        for header in [None, *wrong, "Bearer seckill-local2", "Bearer Seckill-local"]:
            headers = {} if header is None else {"authorization": header}
            client = Client(api.service.admin)
            reply = await client.send(method, path, body, key="1", headers=headers)
            assert (reply.status, reply.reason) == (401, "unauthorized")
            assert reply.headers["www-authenticate"] == "Bearer"
            assert "seckill-local" not in reply.content.decode()
        assert api.engine.live.row("PHONE") == before


@pytest.mark.parametrize(("method", "path", "body"), GUARDED)
async def test_the_listener_of_the_buyers_knows_nothing_of_the_operators(
    method: str, path: str, body: object
) -> None:
    async with serving() as api:
        client = api.public.with_bearer("seckill-local")
        reply = await client.send(method, path, body, key="1")
        assert (reply.status, reply.reason) == (404, "not_found")


async def test_the_right_secret_has_a_session_however_bearer_is_spelled() -> None:
    async with serving(auth__admin_secret="an-admin-secret-of-our-own") as api:
        for scheme in ("Bearer", "bearer", "BEARER"):
            headers = {"authorization": f"{scheme} an-admin-secret-of-our-own"}
            reply = await Client(api.service.admin).get("/v1/admin/session", headers=headers)
            assert (reply.status, reply.body) == (200, {"admin": True})
        assert (await api.admin.get("/v1/admin/session")).status == 401


async def test_a_sale_is_opened_once_and_then_told_that_it_is_open() -> None:
    async with serving() as api:
        reply = await api.admin.post(f"{SKU}/open", OPEN, key="open-1")
        assert (reply.status, reply.body) == (201, VIEW)
        again = await api.admin.post(f"{SKU}/open", OPEN, key="open-1")
        assert (again.status, again.body) == (201, VIEW)
        other = await api.admin.post(f"{SKU}/open", OPEN)
        assert (other.status, other.reason) == (409, "already_open")
        changed = await api.admin.post(f"{SKU}/open", {"stock": 6}, key="open-1")
        assert (changed.status, changed.reason) == (422, "command_id_reused")
        assert (await api.admin.get("/v1/skus/PHONE")).body == VIEW


async def test_a_sale_is_run_and_each_change_is_answered_with_the_sku_as_it_is_then() -> None:
    async with serving() as api:
        await api.admin.post(f"{SKU}/open", OPEN)
        steps: list[tuple[str, object, dict[str, Any]]] = [
            ("restock", {"quantity": 3}, {"available": 8}),
            ("withdraw", {"quantity": 2}, {"available": 6}),
            ("pause", None, {"phase": "paused"}),
            ("resume", None, {"phase": "open"}),
            ("close", None, {"phase": "closed"}),
        ]
        want = dict(VIEW)
        for number, (verb, body, change) in enumerate(steps):
            want |= change | {"version": number + 2}
            for _ in range(2):
                reply = await api.admin.post(f"{SKU}/{verb}", body, key=f"step-{number}")
                assert (reply.status, reply.body) == (200, want), verb
            if number == 0:
                public = await api.public.get("/v1/skus/PHONE")
                assert public.body == want


REFUSED = [
    (["pause"], "pause", None, "paused"),
    ([], "resume", None, "not_paused"),
    (["close"], "close", None, "closed"),
    (["close"], "restock", {"quantity": 1}, "closed"),
    ([], "withdraw", {"quantity": 6}, "not_enough_left"),
    ([], "restock", {"quantity": 1_000_000_000}, "stock_too_large"),
]


@pytest.mark.parametrize(("before", "verb", "body", "reason"), REFUSED)
async def test_a_change_that_the_sale_does_not_allow_is_409(
    before: list[str], verb: str, body: object, reason: str
) -> None:
    async with serving() as api:
        await api.admin.post(f"{SKU}/open", OPEN)
        for each in before:
            await api.admin.post(f"{SKU}/{each}")
        row = api.engine.live.row("PHONE")
        reply = await api.admin.post(f"{SKU}/{verb}", body, key="1")
        assert (reply.status, reply.reason) == (409, reason)
        assert api.engine.live.row("PHONE") == row


@pytest.mark.parametrize("verb", ["restock", "withdraw", "pause", "resume", "close"])
async def test_a_change_of_a_sku_that_nobody_sells_is_404(verb: str) -> None:
    async with serving() as api:
        reply = await api.admin.post(f"/v1/admin/skus/NONE/{verb}", {"quantity": 1}, key="1")
        assert (reply.status, reply.reason) == (404, "unknown_sku")


BAD = [
    ("open", {}, "missing required field `stock`"),
    ("open", {"stock": -1}, "Expected `int` >= 0 - at `$.stock`"),
    ("open", {"stock": 1_000_000_001}, "Expected `int` <= 1000000000 - at `$.stock`"),
    ("open", {"stock": 1, "limit_per_buyer": -1}, "Expected `int` >= 0 - at `$.limit_per_buyer`"),
    ("open", {"stock": 1, "hold_seconds": 2_592_001}, "Expected `int` <= 2592000"),
    ("open", {"stock": 1, "limit": 5}, "contains unknown field `limit`"),
    ("restock", {"quantity": 0}, "Expected `int` >= 1 - at `$.quantity`"),
    ("withdraw", {"quantity": 1.5}, "Expected `int`, got `float` - at `$.quantity`"),
    ("restock", {}, "missing required field `quantity`"),
]


@pytest.mark.parametrize(("verb", "body", "detail"), BAD)
async def test_a_malformed_change_is_400_naming_what_is_wrong(
    verb: str, body: object, detail: str
) -> None:
    async with serving() as api:
        if verb != "open":
            await api.admin.post(f"{SKU}/open", OPEN)
        row = api.engine.live.row("PHONE")
        reply = await api.admin.post(f"{SKU}/{verb}", body, key="1")
        assert (reply.status, reply.reason) == (400, "invalid")
        assert detail in reply.body["detail"]
        assert api.engine.live.row("PHONE") == row


async def test_units_are_added_and_taken_with_a_key_only() -> None:
    async with serving() as api:
        await api.admin.post(f"{SKU}/open", OPEN)
        for verb in ("restock", "withdraw"):
            reply = await api.admin.post(f"{SKU}/{verb}", {"quantity": 1})
            assert (reply.status, reply.reason) == (400, "invalid")
            assert "Idempotency-Key" in reply.body["detail"]
            reply = await api.admin.post(f"{SKU}/{verb}", b" " * 65_537, key="1")
            assert (reply.status, reply.reason) == (413, "too_large")
        assert await api.available("PHONE") == 5


async def test_a_change_whose_outcome_is_unknown_is_202() -> None:
    store = faulty_store(["hang"])
    async with serving(store=store, queue__deadline_ms=100) as api:
        await api.open("PHONE", 5)
        pausing = api.admin.start("POST", f"{SKU}/pause", key="pause-1")
        await settle()
        api.clock.advance(0.1)
        reply = await pausing.reply()
        assert (reply.status, reply.headers["location"]) == (202, "/v1/commands/PHONE:pause-1")
        store.released.set()
        await settle()
        found = await api.public.get(reply.headers["location"])
        assert found.body["events"] == [{"type": "sale-paused.1", "command_id": "pause-1"}]


async def test_an_audit_proves_the_sale_and_one_at_a_time_does() -> None:
    async with serving(read_models=True) as api:
        await api.open("PHONE", 5)
        await api.public.reserve("PHONE", "alice", key="1")
        first = api.admin.start("POST", "/v1/admin/audit")
        second = await api.admin.post("/v1/admin/audit")
        assert (second.status, second.reason) == (503, "audit_running")
        assert "retry-after" in second.headers
        reply = await first.reply()
        assert (reply.status, reply.body["ok"]) == (200, True)
        assert (await api.admin.post("/v1/admin/audit")).status == 200


async def test_a_token_is_made_for_one_buyer_and_sku() -> None:
    async with serving(auth__token_key="k" * 32) as api:
        body = {"buyer": "alice", "sku": "PHONE", "seconds": 60}
        reply = await api.admin.post("/v1/admin/tokens", body)
        assert (reply.status, list(reply.body)) == (201, ["token"])
        assert (await api.admin.post("/v1/admin/tokens", body)).body != reply.body
        for bad, detail in (
            ({"buyer": "alice"}, "missing required field `sku`"),
            ({**body, "seconds": 0}, "Expected `int` >= 1"),
            ({**body, "seconds": 604_801}, "Expected `int` <= 604800"),
            ({**body, "buyer": ""}, "Expected `str` of length >= 1"),
        ):
            reply = await api.admin.post("/v1/admin/tokens", bad)
            assert (reply.status, reply.reason) == (400, "invalid")
            assert detail in reply.body["detail"]


async def test_without_a_key_no_token_is_made_and_it_is_said_what_to_set() -> None:
    async with serving() as api:
        reply = await api.admin.post("/v1/admin/tokens", {"buyer": "alice", "sku": "PHONE"})
        assert (reply.status, reply.reason) == (501, "not_available")
        assert reply.body["detail"] == (
            'purchase tokens need auth.token_key; set it, and auth.mode to "token"'
        )


SHARED: list[tuple[str, Callable[[Api], Any]]] = [
    ("/v1/skus", lambda api: {"skus": [], "next": None}),
    ("/v1/about", lambda api: None),
    ("/healthz", lambda api: {"status": "ok"}),
]


@pytest.mark.parametrize(("path", "body"), SHARED)
async def test_the_operators_listener_also_shows_what_pages_need_without_a_secret(
    path: str, body: Callable[[Api], Any]
) -> None:
    async with serving() as api:
        own = await Client(api.service.admin).get(path)
        assert own.status == 200
        assert own.body == (await api.public.get(path)).body
        assert body(api) in (None, own.body)
