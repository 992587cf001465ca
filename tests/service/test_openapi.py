"""The document describes every path of both listeners, and nothing that is not there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import jsonschema_rs
from starlette.routing import Route

from engine.service.app import Application
from tests.service.api import Api, serving

PAGES = {"/", "/shop/{sku}", "/static/{name}", "/v1/openapi.json"}
"""What is for browsers, and the document itself."""

FAST = {("POST", "/v1/skus/{sku}/reservations"), ("POST", "/v1/reservations:batch")}
"""Met before the router."""

Document = dict[str, Any]


async def document(api: Api) -> Document:
    reply = await api.public.get("/v1/openapi.json")
    assert (reply.status, reply.headers["content-type"]) == (200, "application/json")
    assert reply.content == (await api.admin.get("/v1/openapi.json")).content
    return dict(reply.body)


def operations(found: Document) -> Iterator[tuple[str, str, Document]]:
    for path, methods in found["paths"].items():
        for method, operation in methods.items():
            yield method.upper(), path, operation


def led_to(app: Application) -> set[tuple[str, str]]:
    return {
        (method, route.path.replace(":path}", "}"))
        for route in app._rest.routes
        if isinstance(route, Route)
        for method in (route.methods or set()) - {"HEAD"}
    }


async def test_every_route_of_both_listeners_is_in_the_document_and_vice_versa() -> None:
    async with serving() as api:
        routes = led_to(api.service.public) | led_to(api.service.admin)
        described = {(method, path) for method, path, _ in operations(await document(api))}
        assert {each for each in routes if each[1] not in PAGES} | FAST == described
        for method, path in FAST:
            reply = await api.public.send(method, path.replace("{sku}", "PHONE"), {})
            assert reply.status == 400, path


def references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if "$ref" in node:
            yield node["$ref"]
        for each in node.values():
            yield from references(each)
    elif isinstance(node, list):
        for each in node:
            yield from references(each)


async def test_the_document_is_openapi_3_1() -> None:
    async with serving() as api:
        found = await document(api)
    assert re.fullmatch(r"3\.1\.\d+", found["openapi"])
    assert {"title", "version"} <= set(found["info"])
    assert set(found) <= {"openapi", "info", "servers", "paths", "components", "security", "tags"}
    for pointer in references(found):
        target: Any = found
        for part in pointer.removeprefix("#/").split("/"):
            target = target[part]
    for schema in found["components"]["schemas"].values():
        assert jsonschema_rs.meta.is_valid({**schema, "components": found["components"]})
    ids = [operation["operationId"] for _, _, operation in operations(found)]
    assert len(set(ids)) == len(ids)
    schemes = set(found["components"]["securitySchemes"])
    for _, path, operation in operations(found):
        assert set(operation) <= {
            *("summary", "operationId", "parameters", "responses", "security", "requestBody"),
        }
        assert operation["summary"]
        assert {name for each in operation.get("security", []) for name in each} <= schemes
        check_parameters(path, operation["parameters"])
        check_responses(operation["responses"])
        for content in operation.get("requestBody", {}).get("content", {}).values():
            assert set(content) == {"schema"}


def check_parameters(path: str, parameters: list[Document]) -> None:
    places = [(each["in"], each["name"]) for each in parameters]
    assert len(set(places)) == len(places)
    in_path = {name for place, name in places if place == "path"}
    assert in_path == set(re.findall(r"{(\w+)}", path))
    for each in parameters:
        assert set(each) == {"name", "in", "required", "description", "schema"}
        assert each["required"] or each["in"] != "path"
        assert jsonschema_rs.meta.is_valid(each["schema"])


def check_responses(responses: Document) -> None:
    assert responses
    for status, response in responses.items():
        assert re.fullmatch(r"[1-5]\d\d", status)
        assert response["description"]
        ((media, content),) = list(response["content"].items())[:1]
        problem = int(status) >= 400 and "Readiness" not in str(content)
        assert (media == "application/problem+json") == problem


async def test_streams_and_files_are_described_with_their_content_type() -> None:
    async with serving() as api:
        found = {(method, path): each for method, path, each in operations(await document(api))}
    for path, media in (
        ("/v1/stream", "text/event-stream"),
        ("/v1/commands/{id}/stream", "text/event-stream"),
        ("/v1/admin/skus/{sku}/export.csv", "text/csv"),
        ("/metrics", "text/plain"),
    ):
        assert list(found["GET", path]["responses"]["200"]["content"]) == [media]


async def test_a_list_is_described_in_both_of_its_forms() -> None:
    async with serving() as api:
        found = (await document(api))["paths"]["/v1/reservations:batch"]["post"]
    forms = ["application/json", "application/x-ndjson"]
    assert list(found["requestBody"]["content"]) == forms
    assert list(found["responses"]["200"]["content"]) == forms


async def test_who_may_call_what_is_described() -> None:
    async with serving() as api:
        found = {path: each for _, path, each in operations(await document(api))}
    assert found["/v1/admin/skus/{sku}/open"]["security"] == [{"admin": []}]
    # Nothing is asked for where anybody may buy.
    assert found["/v1/reservations:batch"]["security"] == [{"shop": []}, {}]
    assert found["/v1/skus/{sku}/reservations"]["security"] == [{"buyer": []}, {}]
    assert "security" not in found["/v1/stream"]
