"""A shop whose answers a test writes: they are decided by a function of the request."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, TypeAlias

import msgspec


class Asked(msgspec.Struct, frozen=True):
    """A request; `times` counts those of the same key so far, this one included."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: Any
    times: int

    @property
    def key(self) -> str:
        return self.headers.get("idempotency-key", "")


class Answer(msgspec.Struct, frozen=True):
    status: int
    body: Any


Script: TypeAlias = Callable[[Asked], Answer | None]
"""None cuts the connection without an answer."""


def sold(asked: Asked, *, held: bool = False) -> Answer:
    """201, for good or held for a while."""
    until = 4_102_444_800_000 if held else None
    return Answer(201, {"id": f"SKU-1:{asked.key or 'token'}", "held_until_ms": until})


class ScriptedShop:
    """What was asked so far, in the order of arrival, questions about the shop left out."""

    def __init__(self, script: Script, about: Mapping[str, Any]) -> None:
        self._script, self._about = script, about
        self._lock = threading.Lock()
        self._times: Counter[str] = Counter()
        self.asked: list[Asked] = []
        self.changed = threading.Condition(self._lock)
        self.url = ""

    def to(self, end: str) -> list[Asked]:
        """Requests whose path ends like that."""
        with self._lock:
            return [each for each in self.asked if each.path.endswith(end)]

    def wait_for(self, requests: int) -> None:
        """Until so many requests have come. Raises AssertionError when they don't."""
        with self.changed:
            came = self.changed.wait_for(lambda: len(self.asked) >= requests, timeout=60)
        assert came, f"{len(self.asked)} requests came"

    def answer(self, method: str, path: str, headers: Mapping[str, str], raw: bytes) -> Any:
        if path == "/v1/about":
            return Answer(200, {"auth": "none", "admin_url": None, **self._about})
        body = msgspec.json.decode(raw) if raw else None
        with self.changed:
            who = headers.get("idempotency-key") or headers.get("authorization", "")
            name = f"{path} {who}"
            self._times[name] += 1
            asked = Asked(method, path, headers, body, self._times[name])
            self.asked.append(asked)
            self.changed.notify_all()
        return self._script(asked)


@contextmanager
def scripted_shop(script: Script, **about: Any) -> Iterator[ScriptedShop]:
    """A shop on a free port for the block; `about` changes what GET /v1/about tells."""
    shop = ScriptedShop(script, about)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        # Head and body in one packet: the second would wait for the first to be acknowledged.
        wbufsize = 1 << 16

        def handle_any(self) -> None:
            headers = {name.lower(): value for name, value in self.headers.items()}
            raw = self.rfile.read(int(headers.get("content-length", 0)))
            found = shop.answer(self.command, self.path, headers, raw)
            if found is None:
                self.close_connection = True
                return
            body = msgspec.json.encode(found.body)
            self.send_response(found.status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = handle_any  # noqa: N815

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            """Say nothing."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: Any, client_address: Any) -> None:
            """Users that are killed hang up in the middle."""

    server = Server(("127.0.0.1", 0), Handler)
    shop.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield shop
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
