"""The static pages: the dashboard at /, a buyer's page at /shop/{sku}. No build step, nothing from afar."""

from __future__ import annotations

import mimetypes
from collections.abc import Mapping
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Final

from engine.service.calls import Call, Operation
from engine.service.replies import Headers, Reply, problem

FOLDER: Final = "dashboard"

CSP: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""Nothing but our own files runs, and nobody may put the page into theirs."""

SAFE: Final[Headers] = [
    (b"content-security-policy", CSP.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-cache"),
]


class Pages:
    """Every file is read once, at the start."""

    def __init__(self) -> None:
        self._files = _read(files("engine.service").joinpath(FOLDER))

    def dashboard(self) -> Operation:
        return Operation("GET", "/", "The dashboard", {200: None}, self._index, who="everybody")

    def shop(self) -> Operation:
        return Operation(
            *("GET", "/shop/{sku}", "A buyer's page", {200: None}, self._shop), who="everybody"
        )

    def static(self) -> Operation:
        return Operation(
            *("GET", "/static/{name:path}", "Scripts and styles", {200: None}, self._static),
            who="everybody",
        )

    async def _index(self, _: Call) -> Reply:
        return self._files["index.html"]

    async def _shop(self, _: Call) -> Reply:
        return self._files["shop.html"]

    async def _static(self, call: Call) -> Reply:
        found = self._files.get("static/" + call.path("name"))
        return found or problem(404, "not_found", "There is nothing at this path")


def _read(folder: Traversable, prefix: str = "") -> Mapping[str, Reply]:
    found: dict[str, Reply] = {}
    for each in folder.iterdir():
        name = prefix + each.name
        if each.is_dir():
            found |= _read(each, name + "/")
            continue
        kind = mimetypes.guess_type(each.name)[0] or "application/octet-stream"
        charset = "; charset=utf-8" if kind.startswith("text/") else ""
        found[name] = Reply(200, each.read_bytes(), SAFE, (kind + charset).encode())
    return found
