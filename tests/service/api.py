"""The service in process: requests in, replies out, nothing on a socket."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, MutableMapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Final, NamedTuple
from urllib.parse import quote

from engine.auth_settings import DEFAULT_ADMIN_SECRET
from engine.clock import Clock
from engine.config import load_settings
from engine.cqrs.command_side.command_side import CommandSide
from engine.cqrs.event_store import EventStore
from engine.cqrs.query_side.subscription import GATHER_SECONDS
from engine.engine import Engine
from engine.gate.gate import Gate
from engine.inventory.refusals import COUNTED_COMMANDS, COUNTED_REASONS
from engine.inventory.sale import sale_registry
from engine.runtime import open_engine
from engine.service.app import Application
from engine.service.service import Service, Urls
from engine.stores.memory import MemoryStore
from engine.testing.bare_engine import bare_engine
from engine.testing.faulty_store import Fault, FaultyStore
from engine.testing.virtual_clock import VirtualClock

URLS: Final = Urls("http://127.0.0.1:8080", "http://127.0.0.1:8081")
PROBLEM: Final = "application/problem+json"

KEY: Final = "the-key-that-signs-purchase-tokens-1"
OLD_KEY: Final = "the-key-that-signed-purchase-tokens-0"
SHOP: Final = "the-secret-of-the-shop"
TOKEN_MODE: Final = {
    "auth__mode": "token",
    "auth__token_key": KEY,
    "auth__token_key_previous": OLD_KEY,
    "auth__shop_secret": SHOP,
}

Message = MutableMapping[str, Any]


class Reply(NamedTuple):
    """A whole reply."""

    status: int
    headers: dict[str, str]
    content: bytes

    @property
    def body(self) -> Any:
        return json.loads(self.content)

    @property
    def reason(self) -> str:
        """The name of the problem, which must be one."""
        assert self.headers["content-type"] == PROBLEM, (self.status, self.content)
        body = self.body
        assert body["status"] == self.status
        assert body["type"] == f"urn:seckill:problem:{body['reason']}"
        assert body["title"]
        assert body["detail"]
        return str(body["reason"])


class Exchange:
    """One request under way; `leave` is the client going away."""

    def __init__(
        self, app: Application, scope: Message, chunks: Sequence[bytes], breaks_off: bool
    ) -> None:
        self._chunks = list(chunks)
        self._breaks_off = breaks_off
        self._left = asyncio.Event()
        self._sent: asyncio.Queue[Message] = asyncio.Queue()
        self.reads = 0
        self.task = asyncio.create_task(app(scope, self._receive, self._send))

    def leave(self) -> None:
        self._left.set()

    async def next(self) -> Message | None:
        """The next message of the reply, None when the handler ended without one."""
        getting = asyncio.ensure_future(self._sent.get())
        await asyncio.wait((getting, self.task), return_when=asyncio.FIRST_COMPLETED)
        if not getting.done() and self._sent.empty():
            getting.cancel()
            self.task.result()
            return None
        return await getting

    async def reply(self) -> Reply:
        start = await self.next()
        assert start is not None, "no reply was sent"
        assert start["type"] == "http.response.start"
        parts: list[bytes] = []
        while (message := await self.next()) is not None:
            assert message["type"] == "http.response.body"
            parts.append(message.get("body", b""))
        headers = {name.decode(): value.decode() for name, value in start["headers"]}
        return Reply(start["status"], headers, b"".join(parts))

    async def _receive(self) -> Message:
        self.reads += 1
        if self._chunks:
            body = self._chunks.pop(0)
            return {
                "type": "http.request",
                "body": body,
                "more_body": bool(self._chunks) or self._breaks_off,
            }
        await self._left.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        self._sent.put_nowait(message)
        # A socket takes a moment; a stream that never gives way would starve its readers.
        await asyncio.sleep(0)


class Client:
    """Speaks to one listener's application, with `bearer` when it is given."""

    def __init__(self, app: Application, bearer: str | None = None) -> None:
        self.app = app
        self._bearer = bearer

    def with_bearer(self, bearer: str) -> Client:
        return Client(self.app, bearer)

    def start(
        self,
        method: str,
        path: str | bytes,
        body: object = None,
        *,
        key: str | bytes | None = None,
        headers: Mapping[str, str] | None = None,
        chunks: Sequence[bytes] | None = None,
        breaks_off: bool = False,
    ) -> Exchange:
        """Begin a request. `body` is sent as JSON, bytes as they are; `chunks` without a length.

        With `breaks_off` more seems to come, and does not.
        """
        raw = path.encode("ascii") if isinstance(path, str) else path
        raw_path, _, query = raw.partition(b"?")
        sent: dict[str, str | bytes] = {"host": "localhost", **(headers or {})}
        if key is not None:
            sent["idempotency-key"] = key
        if self._bearer is not None:
            sent.setdefault("authorization", f"Bearer {self._bearer}")
        if chunks is None:
            content = body if isinstance(body, bytes) else json.dumps(body).encode()
            chunks = [b"" if body is None else content]
            if body is not None:
                sent.setdefault("content-length", str(len(content)))
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": raw_path.decode("latin-1"),
            "raw_path": raw_path,
            "query_string": query,
            "root_path": "",
            "headers": [
                (name.encode(), value if isinstance(value, bytes) else value.encode())
                for name, value in sent.items()
            ],
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 2),
        }
        return Exchange(self.app, scope, chunks, breaks_off)

    async def send(self, method: str, path: str | bytes, body: object = None, **more: Any) -> Reply:
        return await self.start(method, path, body, **more).reply()

    async def get(self, path: str | bytes, **more: Any) -> Reply:
        return await self.send("GET", path, **more)

    async def post(self, path: str | bytes, body: object = None, **more: Any) -> Reply:
        return await self.send("POST", path, body, **more)

    def reserving(self, sku: str, buyer: str, quantity: int = 1, **more: Any) -> Exchange:
        body = {"buyer": buyer, "quantity": quantity}
        return self.start("POST", f"/v1/skus/{quote(sku, safe='')}/reservations", body, **more)

    async def reserve(self, sku: str, buyer: str, quantity: int = 1, **more: Any) -> Reply:
        return await self.reserving(sku, buyer, quantity, **more).reply()

    async def events(self, path: str, **more: Any) -> AsyncIterator[tuple[str, Any]]:
        """The events of a stream as they come: (name, data); a comment is ("", its text)."""
        exchange = self.start("GET", path, **more)
        try:
            start = await exchange.next()
            assert start is not None
            assert start["status"] == 200, start
            assert dict(start["headers"])[b"content-type"] == b"text/event-stream; charset=utf-8"
            while (message := await exchange.next()) is not None:
                # One message holds one event: a page sees it at once.
                if text := message.get("body", b"").decode():
                    yield parse_event(text)
        finally:
            exchange.leave()
            await asyncio.wait((exchange.task,))


def parse_event(text: str) -> tuple[str, Any]:
    assert text.endswith("\n\n")
    if text.startswith(": "):
        return "", text[2:-2]
    fields = dict(line.split(": ", 1) for line in text.removesuffix("\n\n").split("\n"))
    data = json.loads(fields["data"])
    if "id" in fields:
        assert int(fields["id"]) == data["id"]
    return fields["event"], data


class Api:
    """A service with an engine. Time stands still unless a test moves `clock`."""

    def __init__(self, engine: Engine, service: Service, clock: VirtualClock) -> None:
        self.engine = engine
        self.service = service
        self.clock = clock
        self.public = Client(service.public)
        self.admin = Client(service.admin, DEFAULT_ADMIN_SECRET)

    async def open(
        self, sku: str, stock: int, *, limit_per_buyer: int = 0, hold_seconds: int = 0
    ) -> None:
        body = {"stock": stock, "limit_per_buyer": limit_per_buyer, "hold_seconds": hold_seconds}
        reply = await self.admin.post(f"/v1/admin/skus/{quote(sku, safe='')}/open", body)
        assert reply.status == 201, reply

    async def available(self, sku: str) -> int:
        reply = await self.public.get(f"/v1/skus/{quote(sku, safe='')}")
        return int(reply.body["available"])

    async def caught_up(self) -> None:
        """Wait for the read models; the clock moves as little as they need."""
        while any(each.commits for each in await self.engine.queries.lag()):
            self.clock.advance(GATHER_SECONDS)
            await asyncio.sleep(0)


@asynccontextmanager
async def serving(
    *,
    store: EventStore | None = None,
    gate: Gate | None = None,
    read_models: bool = False,
    **overrides: object,
) -> AsyncIterator[Api]:
    """A service whose store is in memory; overrides use `__` for the dot of a setting."""
    changes = {key.replace("__", "."): value for key, value in overrides.items()}
    settings = load_settings(None, {"store.url": "memory:", **changes}, {})
    clock = VirtualClock()
    async with AsyncExitStack() as opened:
        if read_models:
            engine = await opened.enter_async_context(open_engine(settings, clock=clock))
        else:
            store = store or memory_store(clock)
            side = await CommandSide.open(store, sale_registry(), settings, clock)
            opened.push_async_callback(side.close)
            side.count_refusals(COUNTED_COMMANDS, COUNTED_REASONS)
            engine = bare_engine(store, side, settings, clock)
        yield Api(engine, Service(engine, gate, clock, URLS), clock)


def memory_store(clock: Clock | None = None, partitions: int = 1) -> MemoryStore:
    return MemoryStore(partitions, sale_registry().tables, clock or VirtualClock())


def faulty_store(script: Sequence[Fault] = ()) -> FaultyStore:
    """It takes the opening of one SKU, then follows its script."""
    return FaultyStore(memory_store(), ["ok", *script])
