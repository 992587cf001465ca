"""Token mode: a buyer buys and looks in their own name only, the shop in anybody's."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from engine.service.tokens import Purchase, sign
from tests.service.api import KEY, OLD_KEY, SHOP, Api, Client, serving

PATH = "/v1/skus/PHONE/reservations"
ADMIN = "the-secret-of-the-operator"
EXP = 1_900
"""The clock of these tests begins at 1,000 seconds."""


def token(
    buyer: str = "alice", sku: str = "PHONE", exp: int = EXP, nonce: str = "n1", key: str = KEY
) -> str:
    return sign(key, Purchase(buyer, sku, exp, nonce))


@asynccontextmanager
async def shop(*, read_models: bool = False) -> AsyncIterator[Api]:
    """A shop in token mode that sells PHONE and HAT."""
    async with serving(
        read_models=read_models,
        auth__mode="token",
        auth__token_key=KEY,
        auth__token_key_previous=OLD_KEY,
        auth__shop_secret=SHOP,
        auth__admin_secret=ADMIN,
    ) as api:
        api.admin = api.admin.with_bearer(ADMIN)
        await api.open("PHONE", 9, hold_seconds=600)
        await api.open("HAT", 9)
        yield api


def buyer(api: Api, **claims: Any) -> Client:
    return api.public.with_bearer(token(**claims))


async def test_a_token_buys_once_in_the_name_and_under_the_key_it_holds() -> None:
    async with shop() as api:
        alice = buyer(api)
        first = await alice.post(PATH, {"quantity": 2})
        assert (first.status, first.body) == (
            201,
            {
                "id": "PHONE:n1",
                "sku": "PHONE",
                "buyer": "alice",
                "quantity": 2,
                "state": "held",
                "held_until_ms": 1_600_000,
            },
        )
        # Shown again it is a repeat, also with its key, and with another order it is refused.
        assert (await alice.post(PATH, {"quantity": 2})).body == first.body
        assert (await alice.post(PATH, {"quantity": 2}, key="n1")).body == first.body
        other = await alice.post(PATH, {"quantity": 1})
        assert (other.status, other.reason) == (422, "command_id_reused")
        assert await api.available("PHONE") == 7


async def test_a_buyer_names_neither_a_buyer_nor_another_key() -> None:
    async with shop() as api:
        reply = await buyer(api).post(PATH, {"buyer": "bob", "quantity": 1})
        assert (reply.status, reply.reason) == (400, "invalid")
        assert "contains unknown field `buyer`" in reply.body["detail"]
        reply = await buyer(api).post(PATH, {"quantity": 1}, key="n2")
        assert (reply.status, reply.reason) == (400, "invalid")
        assert "the Idempotency-Key is the token's nonce" in reply.body["detail"]
        assert await api.available("PHONE") == 9


async def test_a_token_is_for_its_own_sku_unless_it_is_for_all() -> None:
    async with shop() as api:
        reply = await buyer(api, sku="HAT").post(PATH, {})
        assert (reply.status, reply.reason) == (403, "other_sku")
        assert await api.available("PHONE") == 9
        assert (await buyer(api, sku="*").post(PATH, {})).status == 201


NEITHER = "it is neither a purchase token (v1...) nor the secret of the shop's backend"

BAD_TOKENS = {
    "expired": (token(exp=1_000), "the purchase token has expired"),
    "other key": (token(key="x" * 32), "the purchase token is not signed by this shop"),
    "cut": (token()[:-1], "the purchase token is not signed by this shop"),
    "no mac": (token().rpartition(".")[0], "the purchase token is malformed"),
    "other version": ("v2" + token()[2:], NEITHER),
    "nothing": ("v1.", "the purchase token is malformed"),
    "letters": ("v1.é.é", "the purchase token is not signed by this shop"),
    "shop": (SHOP + "x", NEITHER),
    "no secret": ("", NEITHER),
    "admin": (ADMIN, NEITHER),
    "default": ("seckill-local", NEITHER),
}

CALLS: list[tuple[str, str, Any]] = [
    ("POST", PATH, {"quantity": 1}),
    ("POST", "/v1/reservations:batch", []),
    *(("POST", f"/v1/reservations/PHONE:n1/{verb}", None) for verb in ("confirm", "release")),
    ("POST", "/v1/reservations/PHONE:n1/extend", None),
    ("POST", "/v1/orders", {"buyer": "a", "lines": [{"sku": "PHONE"}]}),
    ("GET", "/v1/orders/1", None),
    ("POST", "/v1/orders/1/pay", None),
    ("POST", "/v1/orders/1/cancel", None),
    ("GET", "/v1/reservations/PHONE:n1", None),
    ("GET", "/v1/commands/PHONE:n1", None),
    ("GET", "/v1/commands/PHONE:n1/stream", None),
    ("GET", "/v1/buyers/alice/reservations", None),
]


async def test_every_call_that_is_not_for_everybody_is_tested_here() -> None:
    async with shop() as api:
        guarded = {
            (each.method, each.path)
            for each in api.service.operations
            if each.who in ("buyer", "shop")
        }
        assert len(guarded) == len(CALLS)


LOOKING = {"expired"}
"""A token whose time is over buys no more; its buyer may look, release and extend."""


@pytest.mark.parametrize("kind", BAD_TOKENS)
@pytest.mark.parametrize(("method", "path", "body"), CALLS)
async def test_who_shows_nothing_that_is_good_is_401(
    method: str, path: str, body: Any, kind: str
) -> None:
    bearer, detail = BAD_TOKENS[kind]
    # These look: an expired token is enough to see what is one's own.
    lenient = (method == "GET" and "orders" not in path) or path.endswith(("release", "extend"))
    async with shop() as api:
        if kind in LOOKING and lenient:
            if not path.endswith("stream"):
                # Not 401; without a read model the list of a buyer is 501.
                assert (await api.public.with_bearer(bearer).send(method, path, body)).status != 401
            return
        reply = await api.public.with_bearer(bearer).send(method, path, body, key="n1")
        assert (reply.status, reply.reason) == (401, "unauthorized")
        assert reply.body["detail"] == detail
        assert reply.headers["www-authenticate"] == "Bearer"
        for secret in (KEY, OLD_KEY, SHOP, ADMIN, *bearer.split(".")[1:]):
            assert not secret or secret not in reply.content.decode()
        assert await api.available("PHONE") == 9


@pytest.mark.parametrize(("method", "path", "body"), CALLS)
async def test_who_shows_nothing_is_401_and_told_what_to_send(
    method: str, path: str, body: Any
) -> None:
    async with shop() as api:
        for headers in ({}, {"authorization": "Basic abc"}, {"authorization": SHOP}):
            reply = await api.public.send(method, path, body, key="n1", headers=headers)
            assert (reply.status, reply.reason) == (401, "unauthorized")
            assert reply.body["detail"] == "send the header Authorization: Bearer ..."


async def test_while_keys_are_changed_tokens_of_the_previous_one_still_buy() -> None:
    async with shop() as api:
        assert (await buyer(api, key=OLD_KEY).post(PATH, {})).status == 201


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [each for each in CALLS if "orders" in each[1] or each[1].endswith(("confirm", "batch"))],
)
async def test_what_only_the_shop_may_do_a_buyer_may_not(method: str, path: str, body: Any) -> None:
    async with shop() as api:
        await buyer(api).post(PATH, {})
        reply = await buyer(api).send(method, path, body, key="k")
        assert (reply.status, reply.reason) == (403, "shop_only")
        assert (await buyer(api).get("/v1/reservations/PHONE:n1")).body["state"] == "held"


async def test_the_operators_listener_takes_no_token_and_not_the_secret_of_the_shop() -> None:
    async with shop() as api:
        for bearer in (token(), SHOP, "seckill-local"):
            client = api.admin.with_bearer(bearer)
            for method, path in (("GET", "session"), ("POST", "skus/PHONE/pause")):
                reply = await client.send(method, f"/v1/admin/{path}")
                assert (reply.status, reply.reason) == (401, "unauthorized")
                assert reply.body["detail"] == "the admin secret is wrong"


async def test_what_belongs_to_another_buyer_is_as_if_it_were_not_there() -> None:
    async with shop(read_models=True) as api:
        await buyer(api).post(PATH, {})
        await api.caught_up()
        bob = buyer(api, buyer="bob", nonce="b1")
        want = {"reservations": "unknown_reservation", "commands": "unknown_command"}
        for kind, reason in want.items():
            hidden = await bob.get(f"/v1/{kind}/PHONE:n1")
            missing = await bob.get(f"/v1/{kind}/PHONE:none")
            assert (hidden.status, hidden.reason) == (404, reason)
            assert (hidden.body, hidden.headers) == (missing.body, missing.headers)
        for verb in ("release", "extend"):
            reply = await bob.post(f"/v1/reservations/PHONE:n1/{verb}")
            assert (reply.status, reply.reason) == (404, "unknown_reservation")
        listed = await bob.get("/v1/buyers/alice/reservations")
        assert (listed.status, listed.body) == (200, {"reservations": [], "next": None})
        own = await buyer(api).get("/v1/buyers/alice/reservations")
        assert [row["id"] for row in own.body["reservations"]] == ["PHONE:n1"]
        assert (await buyer(api).get("/v1/reservations/PHONE:n1")).body["state"] == "held"


async def test_why_the_order_of_another_buyer_was_refused_is_not_told() -> None:
    async with shop() as api:
        refused = await buyer(api).post(PATH, {"quantity": 99})
        assert refused.reason == "sold_out"
        hidden = await buyer(api, buyer="bob", nonce="b1").get("/v1/commands/PHONE:n1")
        assert (hidden.status, hidden.reason) == (404, "unknown_command")
        own = await buyer(api).get("/v1/commands/PHONE:n1")
        assert (own.status, own.body["reason"]) == (200, "sold_out")


async def test_a_buyer_sees_what_they_did_to_their_own_reservation_and_nobody_else_does() -> None:
    async with shop() as api:
        alice, bob = buyer(api), buyer(api, buyer="bob", nonce="b1")
        await alice.post(PATH, {})
        await alice.post("/v1/reservations/PHONE:n1/extend", key="longer")
        reply = await alice.get("/v1/commands/PHONE:longer")
        assert (reply.status, reply.body["events"][0]["type"]) == (200, "hold-extended.1")
        assert (await bob.get("/v1/commands/PHONE:longer")).status == 404
        released = await alice.post("/v1/reservations/PHONE:n1/release")
        assert (released.status, released.body["state"]) == (200, "released")
        await api.admin.post("/v1/admin/skus/PHONE/pause", key="pause")
        assert (await alice.get("/v1/commands/PHONE:pause")).status == 404


async def test_the_shop_names_any_buyer_and_says_what_was_paid() -> None:
    async with shop() as api:
        backend = api.public.with_bearer(SHOP)
        reply = await backend.reserve("PHONE", "carol", key="c1")
        assert (reply.status, reply.body["buyer"]) == (201, "carol")
        await buyer(api).post(PATH, {})
        paid = await backend.post("/v1/reservations/PHONE:n1/confirm")
        assert (paid.status, paid.body["state"]) == (200, "paid")
        listed = await backend.post(
            "/v1/reservations:batch", [{"id": "1", "sku": "PHONE", "buyer": "dan"}]
        )
        assert [each["status"] for each in listed.body] == [201]
        assert (await backend.post(PATH, {"quantity": 1}, key="c2")).status == 400
        assert (await backend.get("/v1/commands/PHONE:n1")).status == 200


async def test_a_token_that_the_operator_makes_buys_until_its_time_is_over() -> None:
    async with shop() as api:
        made = await api.admin.post(
            "/v1/admin/tokens", {"buyer": "alice", "sku": "PHONE", "seconds": 60}
        )
        alice = api.public.with_bearer(made.body["token"])
        api.clock.advance(59)
        bought = await alice.post(PATH, {})
        assert (bought.status, bought.body["buyer"]) == (201, "alice")
        api.clock.advance(1)
        late = await alice.post(PATH, {})
        assert (late.status, late.body["detail"]) == (401, "the purchase token has expired")
        assert (await alice.get(bought.headers["location"])).body == bought.body


async def test_what_is_for_everybody_needs_nothing() -> None:
    async with shop() as api:
        for path in ("/v1/skus", "/v1/skus/PHONE", "/v1/about", "/healthz", "/", "/shop/PHONE"):
            reply = await api.public.get(path)
            assert reply.status == 200
            text = reply.content.decode()
            assert not any(secret in text for secret in (KEY, OLD_KEY, SHOP, ADMIN))


async def test_without_a_shops_secret_nobody_is_the_shop() -> None:
    async with serving(auth__mode="token", auth__token_key=KEY) as api:
        for bearer in ("", " ", "x"):
            reply = await api.public.with_bearer(bearer).reserve("PHONE", "alice", key="1")
            assert (reply.status, reply.reason) == (401, "unauthorized")


async def test_without_tokens_anybody_may_buy_in_any_name() -> None:
    async with serving() as api:
        await api.open("PHONE", 5)
        for client in (api.public, api.public.with_bearer("whatever")):
            assert (await client.reserve("PHONE", "alice", key="1")).status == 201
