"""One operation of the API: its handler, and what the OpenAPI document says of it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, Literal, TypeAlias, TypeVar
from urllib.parse import parse_qs

import msgspec
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import BaseRoute, Route

from engine.errors import InvalidCommand
from engine.service.access import Access, Caller
from engine.service.http import Headers, decode, read_body, required, segment, whole_number
from engine.service.replies import Reply

T = TypeVar("T")

BODY_BYTES_MAX: Final = 65_536
"""Bytes of a body that is no list: a hundred lines of an order need a quarter of it."""

EVENT_STREAM: Final = "text/event-stream"

STREAM_HEADERS: Final = {
    "cache-control": "no-store",
    # nginx would keep the events back until its buffer is full.
    "x-accel-buffering": "no",
}


class Call:
    """One request as a handler wants it."""

    def __init__(self, request: Request, access: Access) -> None:
        self.request = request
        self.headers = Headers(request.scope)
        self._access = access
        self._query: dict[str, list[str]] | None = None

    def path(self, name: str) -> str:
        """A part of the path, decoded. Raises InvalidCommand."""
        return segment(str(self.request.path_params[name]))

    def required_id(self) -> str:
        """The Idempotency-Key. Raises InvalidCommand when there is none."""
        return required(self.headers.command_id())

    async def body(self, decoder: msgspec.json.Decoder[T]) -> T:
        """Raises InvalidCommand, Denied when it is too large."""
        return decode(
            decoder, await read_body(self.request.receive, self.headers.length, BODY_BYTES_MAX)
        )

    def caller(self, *, buying: bool = False) -> Caller:
        """Raises Denied."""
        return self._access.caller(self.headers.authorization, buying=buying)

    def shop(self) -> None:
        """Raises Denied unless it is the shop's backend."""
        self._access.shop(self.headers.authorization)

    def admin(self) -> None:
        """Raises Denied unless it is the operator."""
        self._access.admin(self.headers.authorization)

    def text(self, name: str) -> str | None:
        """A parameter of the query. Raises InvalidCommand when it is there twice or not UTF-8."""
        if self._query is None:
            try:
                self._query = parse_qs(
                    self.request.scope["query_string"].decode("ascii"),
                    keep_blank_values=True,
                    errors="strict",
                    max_num_fields=20,
                )
            except ValueError:
                raise InvalidCommand("the query is malformed") from None
        values = self._query.get(name, [])
        if len(values) > 1:
            raise InvalidCommand(f"the parameter {name} may be there once only")
        return values[0] if values else None

    def number(self, name: str, default: int, least: int, most: int) -> int:
        """A whole number of the query. Raises InvalidCommand."""
        text = self.text(name)
        if text is None:
            return default
        found = whole_number(text)
        if not least <= found <= most:
            raise InvalidCommand(
                f"{name} must be a whole number from {least:,} to {most:,}, got {text[:40]!a}"
            )
        return found


Handler: TypeAlias = Callable[[Call], Awaitable[Reply | AsyncIterator[bytes]]]


class Parameter(msgspec.Struct, frozen=True):
    """A parameter of the query or a header. `kind` is the type its text stands for."""

    name: str
    where: Literal["query", "header"]
    kind: Any
    description: str
    required: bool = False


class Operation(msgspec.Struct, frozen=True):
    """A method of a path. `replies` maps statuses to the type of the body, None for a stream or text.

    `handler` is None for what is met before the router (app.py). `who` may call it. With `lines` the
    body is a list that may also come, and be answered, as lines.
    """

    method: str
    path: str
    summary: str
    replies: Mapping[int, Any]
    handler: Handler | None = None
    body: Any = None
    parameters: Sequence[Parameter] = ()
    who: Literal["everybody", "buyer", "shop", "admin"] = "buyer"
    content_type: str = "application/json"
    lines: bool = False


class Raw(Response):
    """A reply of ours as Starlette sends it."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(reply.body, reply.status)
        self.raw_headers = reply.raw_headers()


def routes(operations: Sequence[Operation], access: Access) -> list[BaseRoute]:
    """What the router needs of the operations it leads to."""
    return [
        Route(
            each.path, _endpoint(each, each.handler or _met_before, access), methods=[each.method]
        )
        for each in operations
    ]


async def _met_before(_: Call) -> Reply:
    """Stands for what is met before the router, so that other methods of its path are 405."""
    raise AssertionError("an order came to the router")


def _endpoint(
    operation: Operation, handler: Handler, access: Access
) -> Callable[[Request], Awaitable[Response]]:
    headers = {**STREAM_HEADERS, "content-type": f"{operation.content_type}; charset=utf-8"}
    # What is told that its request is broken must not have been done: it has to be there first.
    ignores_body = operation.method == "POST" and operation.body is None

    async def endpoint(request: Request) -> Response:
        if ignores_body:
            length = Headers(request.scope).length
            await read_body(request.receive, length, BODY_BYTES_MAX)
        found = await handler(Call(request, access))
        if isinstance(found, Reply):
            return Raw(found)
        if request.method == "HEAD":
            # Nobody reads the events, and there is no end to them.
            return Response(headers=headers)
        return StreamingResponse(found, headers=headers)

    return endpoint
