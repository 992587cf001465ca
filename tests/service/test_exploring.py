"""Requests made up from the document find no failure and no answer that it does not describe."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any, cast

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis.core.transport import Response
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import (
    allow_header_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from engine.auth_settings import DEFAULT_ADMIN_SECRET
from engine.service.tokens import Purchase, sign
from tests.service.api import KEY, SHOP, TOKEN_MODE, Api, Client, Reply, serving

CHECKS: Any = [
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    allow_header_conformance,
]
EXAMPLES = 7

BASE = "http://test"
KNOWN = {"sku": ["PHONE", "HAT"], "id": ["PHONE:1", "PHONE:2", "order-1", "alice"]}
"""What is there: made-up names alone would find nothing behind 404."""


class Explored:
    """A service on a loop of its own, which runs while a request is under way."""

    def __init__(self, mode: str) -> None:
        self._runner = asyncio.Runner()
        more: Any = TOKEN_MODE if mode == "token" else {}
        self._serving = serving(read_models=True, **more)
        self.api = self._runner.run(self._serving.__aenter__())
        self._bearers: list[str | None] = [None, "wrong", SHOP]
        self._bearers.append(sign(KEY, Purchase("alice", "PHONE", 9_999, "token-1")))
        self._runner.run(self._fill(self.api))
        reply = self._runner.run(self.api.public.get("/v1/openapi.json"))
        self.schema = schemathesis.openapi.from_dict(reply.body)

    async def _fill(self, api: Api) -> None:
        shop = api.public.with_bearer(SHOP)
        await api.open("PHONE", 1_000, hold_seconds=600)
        await api.open("HAT", 1_000)
        for key in "12":
            assert (await shop.reserve("PHONE", "alice", key=key)).status == 201
        body = {"buyer": "alice", "lines": [{"sku": "PHONE"}]}
        assert (await shop.post("/v1/orders", body, key="order-1")).status == 201
        await api.caught_up()

    def close(self) -> None:
        self._runner.run(self._serving.__aexit__(None, None, None))
        self._runner.close()

    def send(self, case: Any, who: int) -> list[Response]:
        """Send a made-up request to every listener that has its path."""
        sent = requests.Request(**_plain(case.as_transport_kwargs(base_url=BASE))).prepare()
        assert sent.url is not None
        assert sent.body is None or isinstance(sent.body, bytes | str)
        path = sent.url.removeprefix(BASE).encode()
        body = sent.body.encode() if isinstance(sent.body, str) else sent.body
        replies = []
        for app in (self.api.service.public, self.api.service.admin):
            own = self.api.service.admin is app
            bearers = [None, "wrong", DEFAULT_ADMIN_SECRET] if own else self._bearers
            headers = {name.lower(): str(value) for name, value in sent.headers.items()}
            headers.pop("authorization", None)
            client = Client(app, bearers[who % len(bearers)])
            reply = self._runner.run(_whole(client, case.method, path, body, headers))
            if reply.status == 404 and reply.body.get("reason") == "not_found":
                continue
            replies.append(
                Response(
                    status_code=reply.status,
                    headers={name: [value] for name, value in reply.headers.items()},
                    content=reply.content,
                    request=sent,
                    elapsed=0.0,
                    verify=True,
                )
            )
        return replies


def _plain(arguments: dict[str, Any]) -> dict[str, Any]:
    known = {"method", "url", "headers", "params", "data", "json", "cookies", "files"}
    return {name: value for name, value in arguments.items() if name in known}


async def _whole(
    client: Client, method: str, path: bytes, body: bytes | None, headers: dict[str, str]
) -> Reply:
    """A reply; of a stream without an end only its beginning."""
    exchange = client.start(method, path, body, headers=headers)
    start = await exchange.next()
    assert start is not None
    headers = {name.decode(): value.decode() for name, value in start["headers"]}
    parts: list[bytes] = []
    if headers["content-type"].startswith("text/event-stream"):
        exchange.leave()
        await asyncio.wait((exchange.task,))
    else:
        while (message := await exchange.next()) is not None:
            parts.append(message.get("body", b""))
    return Reply(start["status"], headers, b"".join(parts))


@pytest.fixture(scope="module", params=["none", "token"])
def explored(request: pytest.FixtureRequest) -> Iterator[Explored]:
    found = Explored(request.param)
    yield found
    found.close()


@pytest.mark.parametrize("generation", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
def test_no_made_up_request_fails_or_gets_an_answer_that_is_not_described(
    explored: Explored, generation: GenerationMode
) -> None:
    answered: set[tuple[str, int]] = set()
    for found in explored.schema.get_all_operations():
        operation: Any = cast(Any, found).ok()
        described = operation.definition.raw
        takes_nothing = not described["parameters"] and "requestBody" not in described
        if generation is GenerationMode.NEGATIVE and takes_nothing:
            continue

        @settings(
            max_examples=EXAMPLES,
            deadline=None,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(
            case=operation.as_strategy(generation_mode=generation),
            known=st.integers(0, 7),
            who=st.integers(0, 11),
        )
        def explore(case: Any, known: int, who: int) -> None:
            for name in case.path_parameters or {}:
                if known < len(KNOWN[name]):
                    case.path_parameters[name] = KNOWN[name][known]
            for response in explored.send(case, who):
                answered.add((f"{case.method} {case.path}", response.status_code))
                case.validate_response(response, checks=CHECKS)
                assert response.status_code < 500 or response.status_code in (501, 503)

        explore()
    paths = {path for path, _ in answered}
    assert len(paths) > 20
    if generation is GenerationMode.POSITIVE:
        good = {path for path, status in answered if status < 300}
        assert len(good) > 8, good
