"""A cluster in one process: engines and gateways as contexts of one event loop, servers that are real."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import count
from typing import Any, Final

from nats.aio.msg import Msg

from engine.auth_settings import DEFAULT_ADMIN_SECRET
from engine.clock import SystemClock
from engine.cluster.gateway import Gateway
from engine.config import Settings, load_settings
from engine.cqrs.partitioning import partition_of
from engine.engine import Engine
from engine.gate.gate import Gate
from engine.runtime import initialise_store, open_engine
from engine.service.service import Service
from engine.testing.nats_server import NatsServer
from tests.gate.waiting import until
from tests.service.api import URLS, Client

PARTITIONS: Final = 4
_NUMBERS: Final = count(1)

DEAD_AFTER_MS: Final = 1_500


class Site:
    """One node with its service; `leave` ends it in order."""

    def __init__(self, engine: Engine, service: Service, opened: AsyncExitStack) -> None:
        self.engine = engine
        self.service = service
        self.public = Client(service.public)
        self.admin = Client(service.admin, DEFAULT_ADMIN_SECRET)
        self._opened = opened

    @property
    def gateway(self) -> Gateway:
        found = self.engine._command_side
        assert isinstance(found, Gateway)
        return found

    async def leave(self) -> None:
        self.service.stop_taking()
        await self._opened.aclose()

    async def stock(self, sku: str) -> dict[str, Any]:
        """The SKU as this node shows it; empty when it knows none."""
        reply = await self.public.get(f"/v1/skus/{sku}")
        return dict(reply.body) if reply.status == 200 else {}

    async def shows(self, sku: str, **wanted: object) -> None:
        """Wait until it shows the SKU so."""

        async def is_shown() -> bool:
            found = await self.stock(sku)
            return bool(found) and all(found[name] == value for name, value in wanted.items())

        await until(is_shown)

    async def readiness(self) -> tuple[int, dict[str, Any]]:
        reply = await self.admin.get("/readyz")
        return reply.status, reply.body


class Town:
    """Nodes that share brokers and a database."""

    def __init__(self, settings: dict[str, Any], opened: AsyncExitStack) -> None:
        self._settings = settings
        self._opened = opened
        self.clock = SystemClock()

    def settings(self, **changes: object) -> Settings:
        """Those of all nodes, and `changes` by dotted key."""
        return load_settings(None, {**self._settings, **changes}, {})

    async def join(
        self, role: str, node: str = "", gate: Gate | None = None, **overrides: object
    ) -> Site:
        """One node more; overrides use `__` for the dot of a setting."""
        changes = {key.replace("__", "."): value for key, value in overrides.items()}
        settings = self.settings(**{"cluster.role": role, "cluster.node": node, **changes})
        opened = AsyncExitStack()
        self._opened.push_async_callback(opened.aclose)
        engine = await opened.enter_async_context(open_engine(settings))
        service = Service(engine, gate, self.clock, URLS)
        running = asyncio.create_task(service.run())
        opened.push_async_callback(_end, running)
        return Site(engine, service, opened)

    async def settled(self, site: Site, heartbeats: int = 20) -> None:
        """Wait until every node that `site` hears has shown itself so often, after all of now."""
        heard = Counter[str]()

        async def note(message: Msg) -> None:
            heard[message.subject.rpartition(".")[2]] += 1

        broker = site.gateway._broker
        listening = await broker.listen(broker.subject("nodes", "*"), note)

        async def is_settled() -> bool:
            return bool(heard) and min(heard.values()) >= heartbeats

        await until(is_settled)
        await listening.unsubscribe()

    @property
    def prefix(self) -> str:
        return str(self._settings["cluster.prefix"])


@asynccontextmanager
async def town(mariadb_url: str, nats: NatsServer, **overrides: object) -> AsyncIterator[Town]:
    """An empty cluster on a new database. Nodes that are left at the end close, the newest first."""
    changes = {key.replace("__", "."): value for key, value in overrides.items()}
    settings: dict[str, Any] = {
        "store.url": mariadb_url,
        "store.partitions": PARTITIONS,
        "cluster.servers": nats.urls,
        "cluster.monitor_urls": nats.monitor_urls,
        "cluster.prefix": f"town-{next(_NUMBERS)}",
        # The shared broker sets so much aside for each town.
        "cluster.stream_bytes_max": 10_000_000,
        "cluster.events_bytes_max": 10_000_000,
        "cluster.heartbeat_ms": 50,
        "cluster.dead_after_ms": DEAD_AFTER_MS,
        **changes,
    }
    await initialise_store(load_settings(None, settings, {}))
    async with AsyncExitStack() as opened:
        yield Town(settings, opened)


@asynccontextmanager
async def two_by_two(
    mariadb_url: str, nats: NatsServer, **overrides: object
) -> AsyncIterator[tuple[Town, list[Site], list[Site]]]:
    """Two engines and two gateways that serve every partition."""
    async with town(mariadb_url, nats, **overrides) as made:
        engines = [await made.join("engine", f"engine-{number}") for number in (1, 2)]
        gateways = [await made.join("gateway", f"gateway-{number}") for number in (1, 2)]
        for each in gateways:
            await served(each)
        yield made, engines, gateways


async def served(site: Site, partitions: int = PARTITIONS) -> None:
    """Wait until a node knows an owner of so many partitions."""

    async def is_served() -> bool:
        return len(site.engine.served()) == partitions

    await until(is_served)


async def eventually(look: Callable[[], Awaitable[Any]], wanted: object) -> None:
    """Wait until `look` gives what is wanted; what it gave last is shown when it does not."""
    found: list[Any] = [None]

    async def is_so() -> bool:
        found[0] = await look()
        return bool(found[0] == wanted)

    try:
        await until(is_so)
    except AssertionError:
        assert found[0] == wanted
        raise


def sku_in(partition: int, name: str = "sku", partitions: int = PARTITIONS) -> str:
    """The first of name-0, name-1... that is of a partition."""
    return next(
        f"{name}-{n}" for n in count() if partition_of(f"{name}-{n}", partitions) == partition
    )


SKUS: Final = [sku_in(number) for number in range(PARTITIONS)]
"""One in each partition."""


async def open_all(site: Site, stock: int = 5, hold_seconds: int = 600) -> None:
    """Open a sale of each of SKUS."""
    for sku in SKUS:
        body = {"stock": stock, "hold_seconds": hold_seconds}
        reply = await site.admin.post(f"/v1/admin/skus/{sku}/open", body)
        assert reply.status == 201, reply


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
