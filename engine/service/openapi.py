"""GET /v1/openapi.json: made from the table of operations that the routes are made from."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from http import HTTPStatus
from importlib.metadata import version
from types import UnionType
from typing import Any, Final, get_args

import msgspec

from engine.service.calls import Call, Operation
from engine.service.replies import Reply, encode_json
from engine.service.wire import LIST_ORDERS_MAX, Problem

OPENAPI: Final = "3.1.0"
REF: Final = "#/components/schemas/{name}"

PATH_PARAMETER: Final = re.compile(r"{(\w+)}")
PATH_TEXTS: Final = {
    "sku": "A SKU, percent-encoded.",
    "id": "A reservation or command: SKU, colon, Idempotency-Key, as in PHONE:alice-1.",
}
PATH_TEXTS_AT: Final = {
    "/v1/orders/{id}": "The Idempotency-Key that the order was placed with.",
    "/v1/buyers/{id}": "A buyer.",
}

DESCRIPTION: Final = f"""\
Sells scarce stock to a crowd. An order is answered only after it is durable.

* `Idempotency-Key` is the command id: sent again with the same request it gets its first answer.
* 409 is a definite no. 503 means that nothing happened; try again after `retry_after_ms`.
* 202 means that it is not known yet: ask `Location`, or send the request again with the same key.
* `reason` of a problem is one of a fixed list: sold_out, over_limit, paused, closed, unknown_sku for an order;
  already_paid, already_released, already_extended, hold_expired (refund the buyer), no_holds, belongs_to_order,
  unknown_reservation for a reservation; not_reserved, ended, paid_too_late (refund the buyer), order_refused,
  unknown_order for an order over several SKUs; already_open, not_paused, not_enough_left, stock_too_large for the
  operator; invalid, unauthorized, command_id_reused, too_fast, too_large for a request; overloaded,
  deadline_exceeded, closing, store_unavailable, partition_lost, conflict, halted for the service.
* /v1/admin and /metrics are on the operator's listener, everything else is on the buyers'.
* Streams are server-sent events. /v1/stream: one `snapshot` {{id, at_ms, about, skus, history}}, then a `point`
  {{id, at_ms, decided, accepted, refused, latency_ms, ..., skus}} four times a second at most; with `sku` points are
  {{id, at_ms, skus}}. /v1/commands/{{id}}/stream: `queue` {{position, ahead}}, then one `result` {{status, body}}.
* Times are milliseconds since 1970 and end in `_ms`; `events` are as stored, whose times are microseconds (`_us`).
* A connection is told 400, 408, 431 or 503 as plain text when there is no whole request to answer.
* A list holds up to {LIST_ORDERS_MAX:,} orders, as a JSON array or as lines (application/x-ndjson).
"""

HEADERS_OF: Final = {
    201: ("Location",),
    202: ("Location", "Retry-After"),
    429: ("Retry-After",),
    503: ("Retry-After",),
}

ALWAYS: Final = {421: Problem, 500: Problem}
"""What every operation may answer: to who asks for another host, and what it should not."""


def openapi_operation(operations: Sequence[Operation]) -> Operation:
    """The operation that serves the document of `operations`, which it is itself not part of."""
    reply = Reply(200, encode_json(make_document(operations)))

    async def serve(_: Call) -> Reply:
        return reply

    return Operation(
        "GET", "/v1/openapi.json", "This document", {200: None}, serve, who="everybody"
    )


def make_document(operations: Sequence[Operation]) -> dict[str, Any]:
    """The OpenAPI document as builtin types."""
    types = list(dict.fromkeys(_types(operations)))
    schemas, components = msgspec.json.schema_components(types, ref_template=REF)
    schema_of = dict(zip(types, schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for each in operations:
        paths.setdefault(each.path, {})[each.method.lower()] = _operation(each, schema_of)
    return {
        "openapi": OPENAPI,
        "info": {
            "title": "seckill",
            "version": version("seckill-engine"),
            "description": DESCRIPTION,
        },
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {
                "buyer": _bearer("a purchase token, or the shop's secret (auth.mode = token)"),
                "shop": _bearer("the shop's secret (auth.mode = token)"),
                "admin": _bearer("the admin secret, on the operator's listener"),
            },
        },
    }


def _types(operations: Iterable[Operation]) -> Iterable[Any]:
    yield Problem
    for each in operations:
        yield from (kind for kind in each.replies.values() if kind is not None)
        yield from (parameter.kind for parameter in each.parameters)
        yield from _alternatives(each.body)


def _alternatives(body: Any) -> tuple[Any, ...]:
    if body is None:
        return ()
    return get_args(body) if isinstance(body, UnionType) else (body,)


def _operation(operation: Operation, schema_of: dict[Any, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {
        "summary": operation.summary,
        "operationId": _operation_id(operation),
        "parameters": [
            *_path_parameters(operation.path),
            *(
                {
                    "name": each.name,
                    "in": each.where,
                    "required": each.required,
                    "description": each.description,
                    "schema": schema_of[each.kind],
                }
                for each in operation.parameters
            ),
        ],
        "responses": {
            str(status): _response(operation, status, kind, schema_of)
            for status, kind in sorted({**ALWAYS, **operation.replies}.items())
        },
    }
    if operation.who != "everybody":
        # {}: not asked for when auth.mode is "none".
        found["security"] = [{operation.who: []}] + ([] if operation.who == "admin" else [{}])
    bodies = [schema_of[each] for each in _alternatives(operation.body)]
    if bodies:
        schema = bodies[0] if len(bodies) == 1 else {"anyOf": bodies}
        found["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": schema}} | _as_lines(operation),
        }
    return found


def _response(
    operation: Operation, status: int, kind: Any, schema_of: dict[Any, Any]
) -> dict[str, Any]:
    response: dict[str, Any] = {"description": HTTPStatus(status).phrase}
    if names := HEADERS_OF.get(status):
        response["headers"] = {name: {"schema": {"type": "string"}} for name in names}
    if kind is not None:
        media = "application/problem+json" if kind is Problem else "application/json"
        response["content"] = {media: {"schema": schema_of[kind]}}
        if kind is not Problem:
            response["content"] |= _as_lines(operation)
    else:
        response["content"] = {operation.content_type: {"schema": {"type": "string"}}}
    return response


def _as_lines(operation: Operation) -> dict[str, Any]:
    if not operation.lines:
        return {}
    text = "The items of the list, each as JSON on a line of its own."
    return {"application/x-ndjson": {"schema": {"type": "string", "description": text}}}


def _path_parameters(path: str) -> list[dict[str, Any]]:
    found = []
    for name in PATH_PARAMETER.findall(path):
        text = next(
            (text for begin, text in PATH_TEXTS_AT.items() if path.startswith(begin)),
            PATH_TEXTS[name],
        )
        schema = {"type": "string", "minLength": 1, "maxLength": 256}
        found.append(
            {"name": name, "in": "path", "required": True, "description": text, "schema": schema}
        )
    return found


def _operation_id(operation: Operation) -> str:
    words = re.sub(r"[^a-z]+", " ", operation.path.removeprefix("/v1").lower()).split()
    return "_".join([operation.method.lower(), *words])


def _bearer(text: str) -> dict[str, str]:
    return {"type": "http", "scheme": "bearer", "description": text}
