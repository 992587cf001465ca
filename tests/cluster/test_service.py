"""Whatever a buyer or an operator does at one gateway, the other one knows."""

from __future__ import annotations

from collections import Counter

from engine.testing.nats_server import NatsServer
from tests.cluster.town import PARTITIONS, SKUS, eventually, open_all, two_by_two

EVERYWHERE = range(PARTITIONS)


async def test_an_order_of_one_gateway_is_found_confirmed_and_released_at_the_other(
    mariadb_url: str, nats: NatsServer
) -> None:
    async with two_by_two(mariadb_url, nats) as (_, _, (here, there)):
        await open_all(here)
        for sku in SKUS:
            orders = [await here.public.reserve(sku, "alice", key=f"{sku}-{n}") for n in range(3)]
            assert [each.status for each in orders] == [201, 201, 201]
            ids = [f"{sku}:{sku}-{n}" for n in range(3)]
            found = await there.public.get(f"/v1/reservations/{ids[0]}")
            assert (found.status, found.body) == (200, orders[0].body)
            asked = await there.public.get(f"/v1/commands/{ids[0]}")
            assert (asked.status, asked.body["status"]) == (200, "executed")
            # The same order again, at the other gateway: the first answer.
            again = await there.public.reserve(sku, "alice", key=f"{sku}-0")
            assert (again.status, again.body) == (201, orders[0].body)
            paid = await there.public.post(f"/v1/reservations/{ids[0]}/confirm")
            assert (paid.status, paid.body["state"]) == (200, "paid")
            given = await there.public.post(f"/v1/reservations/{ids[1]}/release")
            assert (given.status, given.body["state"]) == (200, "released")
            states = [
                (await here.public.get(f"/v1/reservations/{each}")).body["state"] for each in ids
            ]
            assert states == ["paid", "released", "held"]
            for each in (here, there):
                await each.shows(sku, available=3, reserved=1, paid=1)

        async def listed() -> set[tuple[str, str]]:
            reply = await there.public.get("/v1/buyers/alice/reservations")
            return {(each["id"], each["state"]) for each in reply.body["reservations"]}

        await eventually(
            listed,
            {
                (f"{sku}:{sku}-{n}", state)
                for sku in SKUS
                for n, state in enumerate(("paid", "released", "held"))
            },
        )


async def test_carts_are_placed_at_one_gateway_and_paid_or_cancelled_at_the_other(
    mariadb_url: str, nats: NatsServer
) -> None:
    async with two_by_two(mariadb_url, nats) as (_, _, (here, there)):
        await open_all(here)
        lines = [{"sku": sku, "quantity": 2} for sku in SKUS]
        for order in ("cart-1", "cart-2"):
            placed = await here.public.post(
                "/v1/orders", {"buyer": "alice", "lines": lines}, key=order
            )
            assert (placed.status, placed.body["step"]) == (201, "awaiting_payment")
            found = await there.public.get(f"/v1/orders/{order}")
            assert (found.status, found.body) == (200, placed.body)
        # Of every line one unit is left: none is taken.
        full = await there.public.post("/v1/orders", {"buyer": "bob", "lines": lines}, key="cart-3")
        assert (full.status, full.reason) == (409, "order_refused")
        assert (await there.public.post("/v1/orders/cart-1/pay")).status == 200
        assert (await there.public.post("/v1/orders/cart-2/cancel")).status == 200
        for site in (here, there):
            for sku in SKUS:
                await site.shows(sku, available=3, reserved=0, paid=2)
        too_late = await here.public.post("/v1/orders/cart-2/pay")
        assert (too_late.status, too_late.reason) == (409, "paid_too_late")


async def test_holds_that_nobody_pays_come_back_by_themselves(
    mariadb_url: str, nats: NatsServer
) -> None:
    async with two_by_two(mariadb_url, nats) as (_, _, (here, there)):
        await open_all(here, stock=2, hold_seconds=1)
        for sku in SKUS:
            assert (await here.public.reserve(sku, "alice", 2, key="a")).status == 201
        for sku in SKUS:

            async def is_released(sku: str = sku) -> bool:
                reply = await there.public.get(f"/v1/reservations/{sku}:a")
                return bool(reply.body["state"] == "released")

            # Not by the stock: it looks alike before the hold is seen.
            await eventually(is_released, True)
            await there.shows(sku, available=2, reserved=0)


async def test_what_the_operator_does_at_one_gateway_is_so_at_the_other(
    mariadb_url: str, nats: NatsServer
) -> None:
    async with two_by_two(mariadb_url, nats) as (_, _, (here, there)):
        sku = SKUS[1]
        path = f"/v1/admin/skus/{sku}"
        opened = await here.admin.post(f"{path}/open", {"stock": 5})
        # Whoever opened it sees it at once.
        assert (opened.status, await here.stock(sku)) == (201, opened.body)
        export = await there.admin.get(f"{path}/export.csv")
        assert (export.status, export.content.count(b"\n")) == (200, 2)
        assert (await there.admin.post(f"{path}/open", {"stock": 5})).reason == "already_open"
        for verb, body, changed in (
            ("restock", {"quantity": 3}, {"available": 8}),
            ("withdraw", {"quantity": 1}, {"available": 7}),
            ("pause", None, {"phase": "paused"}),
            ("resume", None, {"phase": "open"}),
            ("close", None, {"phase": "closed"}),
        ):
            key = verb if body is not None else None
            reply = await there.admin.post(f"{path}/{verb}", body, key=key)
            assert reply.status == 200, reply
            assert await there.stock(sku) == reply.body
            await here.shows(sku, **changed)
            if verb == "pause":
                refused = await here.public.reserve(sku, "alice", key="paused")
                assert (refused.status, refused.reason) == (409, "paused")
        assert (await here.public.reserve(sku, "alice", key="closed")).reason == "closed"
        audit = await here.admin.post("/v1/admin/audit")
        assert (audit.status, audit.body["ok"]) == (200, True)
        pages = [await each.public.get("/v1/skus?limit=10") for each in (here, there)]
        assert [row["sku"] for row in pages[0].body["skus"]] == [sku]
        assert pages[0].body == pages[1].body
        assert (await there.admin.get("/v1/admin/skus/no-such/export.csv")).status == 404


async def test_a_list_of_orders_for_all_partitions_is_answered_line_by_line(
    mariadb_url: str, nats: NatsServer
) -> None:
    async with two_by_two(mariadb_url, nats) as (_, _, (here, there)):
        await open_all(here, stock=10)
        orders = [
            {"id": f"{n}", "sku": SKUS[n % PARTITIONS], "buyer": f"buyer-{n}"} for n in range(60)
        ]
        first = await here.public.post("/v1/reservations:batch", orders)
        again = await there.public.post("/v1/reservations:batch", orders)
        assert first.body == again.body
        assert Counter(each["status"] for each in first.body) == {201: 40, 409: 20}
