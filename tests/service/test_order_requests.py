"""What an order over HTTP may look like: its SKU, its key, its method."""

from __future__ import annotations

from typing import Any

from tests.service.api import serving

PATH = "/v1/skus/PHONE/reservations"


async def test_a_sku_with_a_colon_is_refused_because_its_ids_would_be_those_of_another() -> None:
    async with serving() as api:
        reply = await api.public.reserve("a:b", "alice", key="1")
        assert (reply.status, reply.reason) == (400, "invalid")
        assert "a SKU over HTTP has no colon" in reply.body["detail"]
        opened = await api.admin.post("/v1/admin/skus/a%3Ab/open", {"stock": 1})
        assert (opened.status, opened.reason) == (400, "invalid")


async def test_two_keys_of_one_request_are_refused() -> None:
    async with serving() as api:
        await api.open("PHONE", 1)
        both = [(b"idempotency-key", b"1"), (b"idempotency-key", b"2")]
        body = b'{"buyer":"alice"}'
        scope = {
            "type": "http",
            "method": "POST",
            "raw_path": PATH.encode(),
            "path": PATH,
            "query_string": b"",
            "headers": both,
        }
        sent: list[Any] = []

        async def receive() -> dict[str, object]:
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: Any) -> None:
            sent.append(message)

        await api.service.public(scope, receive, send)
        assert sent[0]["status"] == 400
        assert b"send one Idempotency-Key" in sent[1]["body"]
        assert await api.available("PHONE") == 1


async def test_another_method_on_the_path_of_an_order_is_405() -> None:
    async with serving() as api:
        for path in (PATH, "/v1/reservations:batch"):
            reply = await api.public.get(path)
            assert (reply.status, reply.reason) == (405, "method_not_allowed")
            assert reply.headers["allow"] == "POST"
