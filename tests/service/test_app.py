"""What every path shares: no such path, not that method, closing, and what nobody thought of."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest
from starlette.routing import Route

from engine.errors import StoreUnavailable
from engine.service.app import Application, Truncated
from engine.service.calls import Call, Operation, routes
from engine.service.replies import Reply
from engine.service.tally import Tally
from tests.service.api import Client, serving


@pytest.mark.parametrize(
    "path",
    [
        *("/nothing", "/v1", "/v1/", "/v1/skus/", "/v1/skus/a/b/c", "//v1/skus", "/V1/skus"),
        *("/v1/skus/%2E%2E/..", "/static/../index.html", "/static/", "/static/%2e%2e/tokens.py"),
        *("/shop", "/v1/reservations", "/v1/reservations:batch/", "/v1/admin/session/"),
    ],
)
async def test_a_path_that_is_none_is_404_on_both_listeners(path: str) -> None:
    async with serving() as api:
        for client in (api.public, api.admin):
            for method in ("GET",) if path.startswith("/static") else ("GET", "POST", "DELETE"):
                reply = await client.send(method, path)
                assert (reply.status, reply.reason) == (404, "not_found"), (path, method)


async def test_every_path_of_both_listeners_refuses_the_methods_it_has_not() -> None:
    async with serving() as api:
        for client in (api.public, api.admin):
            methods = _methods(client.app, api.service.operations)
            assert len(methods) > 8
            for path, allowed in methods.items():
                for method in {"GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"} - allowed:
                    reply = await client.send(method, path)
                    assert (reply.status, reply.reason) == (405, "method_not_allowed"), path
                    given = set(reply.headers["allow"].split(", ")) - {"HEAD"}
                    assert given == allowed, path


def _methods(app: Application, operations: list[Operation]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for route in app._rest.routes:
        assert isinstance(route, Route)
        path = route.path.replace("{name:path}", "base.css")
        for name in ("sku", "id"):
            path = path.replace(f"{{{name}}}", "a:1")
        found.setdefault(path, set()).update((route.methods or set()) - {"HEAD"})
    return found


async def test_a_path_of_bytes_that_are_no_text_is_400() -> None:
    async with serving() as api:
        reply = await api.public.get(b"/v1/skus/\xff\xfe")
        assert (reply.status, reply.reason) == (400, "invalid")
        assert reply.body["detail"] == "the path must be percent-encoded UTF-8"


async def test_once_closing_everybody_is_told_so_but_those_who_watch() -> None:
    async with serving() as api:
        await api.open("PHONE", 5)
        api.service.drain()
        # Who comes while load balancers are being told is still served.
        assert (await api.public.reserve("PHONE", "alice", key="1")).status == 201
        api.service.stop_taking()
        sent = [
            await api.public.reserve("PHONE", "alice", key="2"),
            await api.public.post("/v1/reservations:batch", []),
            await api.public.get("/v1/skus"),
            await api.public.get("/nothing"),
            await api.admin.post("/v1/admin/skus/PHONE/pause"),
        ]
        for reply in sent:
            assert (reply.status, reply.reason) == (503, "closing")
            assert reply.body["detail"] == "The service is closing; nothing happened"
            assert "retry-after" in reply.headers
        for client in (api.public, api.admin):
            assert (await client.get("/healthz")).status == 200
            assert (await client.get("/readyz")).body["reason"] == "it is closing"
        assert (await api.admin.get("/metrics")).status == 200
        row = api.engine.live.row("PHONE")
        assert row is not None
        assert (row.phase, row.available) == ("open", 4)


def application(handler: Any) -> tuple[Client, Tally]:
    tally = Tally(None)
    operation = Operation("GET", "/", "", {}, handler, who="everybody")
    access: Any = None
    return Client(Application(routes([operation], access), tally)), tally


async def test_what_nobody_thought_of_is_500_says_nothing_and_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def broken(_: Call) -> Reply:
        raise ZeroDivisionError("something-inside")

    client, tally = application(broken)
    with caplog.at_level(logging.ERROR):
        reply = await client.get("/")
    assert (reply.status, reply.reason) == (500, "internal")
    assert "something-inside" not in reply.content.decode()
    assert "something-inside" in caplog.text
    assert tally.replies == {500: 1}


@pytest.mark.parametrize("error", [StoreUnavailable("gone"), ZeroDivisionError()])
async def test_a_reply_that_breaks_off_is_not_ended_as_if_it_were_whole(error: Exception) -> None:
    async def lines() -> AsyncIterator[bytes]:
        yield b"begun"
        raise error

    async def streaming(_: Call) -> AsyncIterator[bytes]:
        return lines()

    client, tally = application(streaming)
    exchange = client.start("GET", "/")
    messages = [await exchange.next(), await exchange.next()]
    assert [each["type"] for each in messages if each] == [
        "http.response.start",
        "http.response.body",
    ]
    with pytest.raises(Truncated):
        await exchange.next()
    assert tally.replies == {200: 1}


async def test_pages_come_with_a_policy_and_their_kind() -> None:
    async with serving() as api:
        for path, kind in (
            ("/", "text/html; charset=utf-8"),
            ("/shop/PHONE", "text/html; charset=utf-8"),
            ("/static/base.css", "text/css; charset=utf-8"),
            ("/static/favicon.svg", "image/svg+xml"),
        ):
            reply = await api.public.get(path)
            assert (reply.status, reply.headers["content-type"]) == (200, kind)
            assert "default-src 'none'" in reply.headers["content-security-policy"]
            assert reply.headers["x-content-type-options"] == "nosniff"
            assert int(reply.headers["content-length"]) == len(reply.content)
        assert (await api.admin.get("/shop/PHONE")).status == 404
