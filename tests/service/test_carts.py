"""Orders over several SKUs: all of their lines or none."""

from __future__ import annotations

from typing import Any

import pytest

from engine.errors import StoreUnavailable
from engine.testing.virtual_clock import settle
from tests.service.api import Api, faulty_store, serving

CART: dict[str, Any] = {
    "buyer": "alice",
    "lines": [{"sku": "PHONE", "quantity": 2}, {"sku": "CASE", "quantity": 1}],
}
PLACED: dict[str, Any] = {
    "id": "order/1",
    "buyer": "alice",
    "step": "awaiting_payment",
    "lines": CART["lines"],
    "held_until_ms": 1_600_000,
    "waiting_for": "payment",
    "refused": "",
}
AT = "/v1/orders/order%2F1"


async def open_both(api: Api) -> None:
    await api.open("PHONE", 5, hold_seconds=600)
    await api.open("CASE", 1, hold_seconds=600)


async def stock(api: Api) -> tuple[int, int]:
    return await api.available("PHONE"), await api.available("CASE")


async def test_an_order_is_placed_whole_and_found_again_also_when_sent_twice() -> None:
    async with serving() as api:
        await open_both(api)
        reply = await api.public.post("/v1/orders", CART, key="order/1")
        assert (reply.status, reply.headers["location"]) == (201, AT)
        assert reply.body == PLACED
        again = await api.public.post("/v1/orders", CART, key="order/1")
        assert (again.status, again.body) == (201, reply.body)
        found = await api.public.get(AT)
        assert (found.status, found.body) == (200, reply.body)
        assert await stock(api) == (3, 0)


async def test_an_order_of_which_a_line_cannot_be_had_is_409_and_takes_nothing() -> None:
    async with serving() as api:
        await open_both(api)
        await api.public.reserve("CASE", "bob", key="bob")
        reply = await api.public.post("/v1/orders", CART, key="order/1")
        assert (reply.status, reply.reason) == (409, "order_refused")
        assert "CASE" in reply.body["detail"]
        assert "sold_out" in reply.body["detail"]
        found = await api.public.get(AT)
        assert (found.status, found.body["refused"]) == (200, reply.body["detail"])
        await settle()
        assert await stock(api) == (5, 0)
        for verb in ("pay", "cancel"):
            assert (await api.public.post(f"{AT}/{verb}")).status == 409


@pytest.mark.parametrize(("verb", "after"), [("pay", (3, 0)), ("cancel", (5, 1))])
async def test_an_order_is_paid_or_cancelled_once_also_when_sent_twice(
    verb: str, after: tuple[int, int]
) -> None:
    async with serving(read_models=True) as api:
        await open_both(api)
        await api.public.post("/v1/orders", CART, key="order/1")
        for _ in range(2):
            reply = await api.public.post(f"{AT}/{verb}")
            assert reply.status == 200
            assert reply.body["id"] == "order/1"
        # Checkout does its lines a moment later.
        await api.caught_up()
        assert await stock(api) == after
        other = await api.public.post(f"{AT}/{verb}", key="another")
        assert other.status == 409
        assert other.reason == {"pay": "already_paid", "cancel": "ended"}[verb]
        late = await api.public.post(f"{AT}/{'cancel' if verb == 'pay' else 'pay'}")
        assert (late.status, late.reason) == (
            409,
            {"pay": "already_paid", "cancel": "paid_too_late"}[verb],
        )
        if verb == "cancel":
            assert late.body["detail"] == ("its units may be sold to others: refund the buyer")


async def test_an_order_that_was_never_placed_is_404() -> None:
    async with serving() as api:
        for method, path in (("GET", AT), ("POST", f"{AT}/pay"), ("POST", f"{AT}/cancel")):
            reply = await api.public.send(method, path)
            assert (reply.status, reply.reason) == (404, "unknown_order"), path


async def test_the_key_of_another_order_is_422() -> None:
    async with serving() as api:
        await open_both(api)
        await api.public.post("/v1/orders", CART, key="order/1")
        reply = await api.public.post("/v1/orders", {**CART, "buyer": "bob"}, key="order/1")
        assert (reply.status, reply.reason) == (422, "command_id_reused")
        assert (await api.public.get(AT)).body["buyer"] == "alice"


def line(sku: str = "PHONE", quantity: object = 1) -> dict[str, object]:
    return {"sku": sku, "quantity": quantity}


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        ({"buyer": "alice"}, "missing required field `lines`"),
        ({"buyer": "alice", "lines": []}, "Expected `array` of length >= 1 - at `$.lines`"),
        ({"buyer": "alice", "lines": [line()] * 101}, "Expected `array` of length <= 100"),
        ({"buyer": "alice", "lines": [line(), line()]}, "each SKU may be in one line of an order"),
        ({"buyer": "alice", "lines": [line(quantity=0)]}, "Expected `int` >= 1"),
        ({"buyer": "alice", "lines": [line(sku="")]}, "Expected `str` of length >= 1"),
        ({"buyer": "alice\n", "lines": [line()]}, "buyer must be printable text"),
        ({"buyer": "alice", "lines": [line("A\n")]}, "must be printable text"),
        ({**CART, "more": 1}, "contains unknown field `more`"),
    ],
)
async def test_a_malformed_order_is_400_and_changes_nothing(body: object, detail: str) -> None:
    async with serving() as api:
        await open_both(api)
        reply = await api.public.post("/v1/orders", body, key="order/1")
        assert (reply.status, reply.reason) == (400, "invalid")
        assert detail in reply.body["detail"]
        assert (await api.public.get(AT)).status == 404
        assert await stock(api) == (5, 1)


async def test_an_order_without_a_key_or_with_a_wrong_time_or_too_large_is_refused() -> None:
    async with serving() as api:
        await open_both(api)
        reply = await api.public.post("/v1/orders", CART)
        assert (reply.status, reply.reason) == (400, "invalid")
        assert "Idempotency-Key" in reply.body["detail"]
        headers = {"x-request-timeout-ms": "0"}
        reply = await api.public.post("/v1/orders", CART, key="order/1", headers=headers)
        assert "X-Request-Timeout-Ms" in reply.body["detail"]
        reply = await api.public.post("/v1/orders", b" " * 65_537, key="order/1")
        assert (reply.status, reply.reason) == (413, "too_large")
        assert await stock(api) == (5, 1)


@pytest.mark.parametrize("path", ["/v1/orders/%0A", "/v1/orders/" + "x" * 65])
async def test_what_can_be_no_order_id_is_400(path: str) -> None:
    async with serving() as api:
        for method, each in (("GET", path), ("POST", f"{path}/pay"), ("POST", f"{path}/cancel")):
            reply = await api.public.send(method, each)
            assert (reply.status, reply.reason) == (400, "invalid")


async def test_an_order_that_takes_longer_than_its_caller_waits_is_202_and_goes_on() -> None:
    store = faulty_store(["ok", "ok", "hang"])
    async with serving(store=store) as api:
        await open_both(api)
        headers = {"x-request-timeout-ms": "250"}
        placing = api.public.start("POST", "/v1/orders", CART, key="order/1", headers=headers)
        await settle()
        api.clock.advance(0.25)
        reply = await placing.reply()
        assert (reply.status, reply.headers["location"]) == (202, AT)
        assert reply.body == {"id": "order/1", "link": AT, "status": "in_doubt"}
        store.released.set()
        await settle()
        assert (await api.public.post("/v1/orders", CART, key="order/1")).status == 201
        assert await stock(api) == (3, 0)


@pytest.mark.parametrize("what", ["place", "pay", "cancel"])
async def test_what_is_durable_and_cannot_be_read_now_is_202_and_never_nothing_happened(
    what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving() as api:
        await open_both(api)

        async def gone(_: str) -> None:
            raise StoreUnavailable("gone")

        path = "/v1/orders" if what == "place" else f"{AT}/{what}"
        if what != "place":
            await api.public.post("/v1/orders", CART, key="order/1")
        with monkeypatch.context() as patch:
            patch.setattr(api.engine.queries, "order", gone)
            body = CART if what == "place" else None
            reply = await api.public.post(path, body, key="order/1" if body else f"{what}-1")
        assert (reply.status, reply.headers["location"]) == (202, AT)
        step = {"place": "awaiting_payment", "pay": "confirming", "cancel": "releasing"}[what]
        assert (await api.public.get(AT)).body["step"] == step
