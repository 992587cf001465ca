"""Put together what the settings name: store, command side, sale. The only place that does."""

from __future__ import annotations

import gc
import re
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from engine.assembly import Parts, assemble_alone, assemble_node, modes
from engine.clock import Clock, SystemClock
from engine.config import (
    COMMAND_SIDE_ONLY,
    GateSettings,
    QuerySideSettings,
    Settings,
    check_settings,
    load_settings,
)
from engine.cqrs.aggregate import Registry
from engine.cqrs.event_store import EventReader, EventStore, StoreInfo
from engine.cqrs.query_side.projection import Projection
from engine.cqrs.query_side.query_side import QuerySide
from engine.cqrs.query_side.read_model import ReadModelSnapshot, ReadStore
from engine.cqrs.query_side.subscription import Feed
from engine.engine import Engine
from engine.errors import ConfigError, SchemaMismatch
from engine.gate.gate import Gate
from engine.inventory.audit import AuditReport, audit
from engine.inventory.checkout import CHECKOUT
from engine.inventory.history import History
from engine.inventory.orders_table import ORDERS
from engine.inventory.sale import sale_registry
from engine.inventory.sales_table import SALES
from engine.inventory.stock import STOCK
from engine.queries import Queries
from engine.store_settings import check_urls

if TYPE_CHECKING:
    from engine.stores.mysql_url import MysqlAddress

StoreUrl: TypeAlias = str | Sequence[str]
"""One URL, or those of several databases."""


@asynccontextmanager
async def open_engine(
    settings: Settings | str | Path | None = None,
    *,
    registry: Registry | None = None,
    clock: Clock | None = None,
) -> AsyncIterator[Engine]:
    """Open the store that `settings` (or the TOML file of that path) names, and sell from it.

    Leaving the block finishes what is queued and closes the store. Raises ConfigError,
    StoreLocked when another process owns the store, SchemaMismatch, StoreUnavailable.
    """
    settings = (
        check_settings(settings) if isinstance(settings, Settings) else load_settings(settings)
    )
    registry = registry or sale_registry()
    clock = clock or SystemClock()
    async with AsyncExitStack() as opened:
        is_gateway = bool(settings.cluster.servers) and settings.cluster.role == "gateway"
        store = None if is_gateway else await _open_store(settings, registry, clock)
        reader = await open_reader(settings.store.places) if store is None else store
        opened.push_async_callback(reader.close)
        if reader.partitions != settings.store.partitions:
            raise SchemaMismatch(
                f"the store has {reader.partitions} partitions and the settings say "
                f"{settings.store.partitions}: store.partitions must be the same for every node"
            )
        # Only a sale has these read models; other aggregates bring their own.
        kept = settings.query_side if STOCK.name in registry.types else COMMAND_SIDE_ONLY
        places = await _open_places(kept, settings.store.places, opened)
        for projection, views in places.items():
            # Here, not in a projector that nobody looks at: tables of another version must be rebuilt.
            await views.prepare(projection.name, projection.tables, reader.partitions)
        feed = Feed()
        query_side = QuerySide(reader, registry, places, feed, clock)
        if kept.managers:
            query_side.add_manager(CHECKOUT, places[ORDERS])
        await query_side.check_not_ahead()
        parts = Parts(settings, kept, registry, places, feed, query_side, clock, opened)
        if store is None or settings.cluster.servers:
            yield await assemble_node(parts, reader, store)
        else:
            yield await assemble_alone(parts, store)


@asynccontextmanager
async def open_gate(
    settings: Settings | str | Path | None = None, clock: Clock | None = None
) -> AsyncIterator[Gate | None]:
    """Open the gate that `settings` (or the TOML file of that path) name; None when they name none.

    A Redis that does not answer is no error: everything passes until it does. Feed the gate with a
    `GateFeed`, and stop that first. Raises ConfigError.
    """
    settings = (
        check_settings(settings) if isinstance(settings, Settings) else load_settings(settings)
    )
    gate = await _open_gate(settings.gate, clock or SystemClock())
    try:
        yield gate
    finally:
        if gate is not None:
            await gate.close()


async def open_reader(store_url: StoreUrl) -> EventReader:
    """Open a store for reading only; an engine may be writing to it meanwhile.

    Raises ConfigError for a missing store, a foreign one or a `memory:` URL, SchemaMismatch and
    StoreUnavailable.
    """
    url, *others = urls_of(store_url)
    if others:
        from engine.stores.spread import SpreadReader

        return await SpreadReader.open(_addresses([url, *others]))
    kind, path = _parse_url(url, readable=True)
    if kind == "mysql":
        from engine.stores.mysql import MysqlReader
        from engine.stores.mysql_url import parse_mysql_url

        return await MysqlReader.open(parse_mysql_url(url))
    from engine.stores.sqlite import SqliteReader

    return await SqliteReader.open(path)


@asynccontextmanager
async def open_read_models(store_url: StoreUrl) -> AsyncIterator[tuple[ReadModelSnapshot, ...]]:
    """Look at the read models of a store as they are now; it may have none, or several places of them.

    An engine may be feeding them meanwhile. Nothing is made or changed. Raises ConfigError for a
    `memory:` URL or a wrong user, StoreUnavailable.
    """
    urls = urls_of(store_url)
    kind, path = _parse_url(urls[0], readable=True)
    found: list[ReadModelSnapshot | None] = []
    async with AsyncExitStack() as opened:
        if kind == "mysql":
            from engine.stores.mysql_snapshot import MysqlSnapshot

            for address in _addresses(urls):
                snapshot: ReadModelSnapshot | None = await MysqlSnapshot.open(address)
                if snapshot is not None:
                    opened.push_async_callback(snapshot.close)
                found.append(snapshot)
        else:
            from engine.stores.sqlite_snapshot import SqliteSnapshot
            from engine.stores.sqlite_views import views_path

            for place, in_store in ((path, True), (views_path(path), False)):
                snapshot = await SqliteSnapshot.open(place, in_store=in_store)
                if snapshot is not None:
                    opened.push_async_callback(snapshot.close)
                found.append(snapshot)
        yield tuple(each for each in found if each is not None)


async def audit_store(store_url: StoreUrl, history: History | None = None) -> AuditReport:
    """Audit a store and its read models, with the client's `history`; an engine may be writing to it.

    Raises what `open_reader` and `open_read_models` raise.
    """
    reader = await open_reader(store_url)
    try:
        async with open_read_models(store_url) as read_models:
            return await audit(reader, history, read_models)
    finally:
        await reader.close()


@asynccontextmanager
async def open_queries(settings: Settings) -> AsyncIterator[Queries]:
    """Open a store's read models without selling; an engine may be feeding them meanwhile.

    Raises what `open_reader` raises.
    """
    async with AsyncExitStack() as opened:
        reader = await open_reader(settings.store.places)
        opened.push_async_callback(reader.close)
        places = await _open_places(settings.query_side, settings.store.places, opened)
        query_side = QuerySide(reader, sale_registry(), places, Feed(), SystemClock())
        if settings.query_side.managers:
            query_side.add_manager(CHECKOUT, places[ORDERS])
        yield Queries(reader, query_side, {each.name: views for each, views in places.items()})


async def initialise_store(settings: Settings, registry: Registry | None = None) -> StoreInfo:
    """Make the store that `settings` name ready, or find that it is; a store in use is left alone.

    Raises ConfigError, SchemaMismatch, StoreLocked and StoreUnavailable.
    """
    registry = registry or sale_registry()
    kind, _ = _parse_url(settings.store.places[0], readable=True)
    if kind == "mysql":
        from engine.stores.layout import Layout
        from engine.stores.mysql_places import initialise_several
        from engine.stores.mysql_schema import initialise

        layout = Layout(settings.store.partitions, registry.tables)
        strict = settings.store.durability == "strict"
        address, *others = _addresses(settings.store.places)
        if others:
            await initialise_several([address, *others], layout, strict=strict)
        else:
            await initialise(address, layout, strict=strict)
        async with AsyncExitStack() as opened:
            places = await _open_places(settings.query_side, settings.store.places, opened)
            for projection, views in places.items():
                tables = projection.tables
                await views.prepare(projection.name, tables, settings.store.partitions)
    store = await _open_store(settings, registry, SystemClock())
    await store.close()
    return store.info


async def move_partition(
    store_url: StoreUrl, partition: int, to: str, report: Callable[[str, int, int], None]
) -> str:
    """Move a partition to another of the store's databases, and say in a sentence what was done.

    `report(step, done, total)` is called as it goes on. Raises ConfigError for one that is not there,
    SchemaMismatch, StoreUnavailable.
    """
    urls = urls_of(store_url)
    if len(urls) == 1:
        raise ConfigError("a store of one database has nowhere to move a partition to")
    from engine.stores.move import move_partition as move

    return await move(_addresses(urls), partition, to, report)


def urls_of(store_url: StoreUrl) -> tuple[str, ...]:
    """A store's URLs. Raises ConfigError when there is none, or one of several is no MySQL URL."""
    urls = (store_url,) if isinstance(store_url, str) else tuple(store_url)
    if not urls:
        raise ConfigError("no store URL was given")
    return urls if len(urls) == 1 else check_urls(urls, "a store's URLs")


def tune_garbage_collector() -> None:
    """Make Python's cyclic garbage collector look less often; for a program that only sells.

    Every waiting buyer is a handful of young objects, none of them in a cycle, and the default
    threshold of 700 looks at them over and over: measured with 2,000 buyers waiting, a fifth of the
    throughput. It concerns the whole process, so a program calls it (the command line does), the
    library never.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


async def _open_places(
    settings: QuerySideSettings, urls: Sequence[str], opened: AsyncExitStack
) -> dict[Projection, ReadStore]:
    """Open the stores of the read models that are kept; each is made there when it is new."""
    by_name = modes(settings)
    stores: dict[bool, ReadStore] = {}
    places: dict[Projection, ReadStore] = {}
    for projection in (ORDERS, SALES):
        mode = by_name[projection.name]
        if mode == "off":
            continue
        inline = mode == "inline"
        if inline not in stores:
            stores[inline] = await _open_views(urls, inline=inline)
            opened.push_async_callback(stores[inline].close)
        places[projection] = stores[inline]
    return places


async def _open_views(urls: Sequence[str], *, inline: bool) -> ReadStore:
    url, *others = urls
    if others:
        from engine.stores.spread_views import SpreadViews

        return await SpreadViews.open(_addresses(urls))
    kind, path = _parse_url(url)
    if kind == "mysql":
        from engine.stores.mysql_url import parse_mysql_url
        from engine.stores.mysql_views import MysqlViews

        return await MysqlViews.open(parse_mysql_url(url))
    from engine.stores.sqlite_views import SqliteViews, views_path

    if kind == "memory":
        return await SqliteViews.open(":memory:")
    return await SqliteViews.open(path if inline else views_path(path), in_store=inline)


async def _open_store(settings: Settings, registry: Registry, clock: Clock) -> EventStore:
    # Drivers are imported only when a store of their kind is opened.
    store = settings.store
    url, *others = store.places
    if others:
        from engine.stores.spread import SpreadStore

        return await SpreadStore.open(
            _addresses(store.places),
            partitions=store.partitions,
            tables=registry.tables,
            strict=store.durability == "strict",
            clock=clock,
        )
    kind, path = _parse_url(url)
    if kind == "memory":
        from engine.stores.memory import MemoryStore

        return MemoryStore(store.partitions, registry.tables, clock)
    if kind == "mysql":
        from engine.stores.mysql import MysqlStore
        from engine.stores.mysql_url import parse_mysql_url

        return await MysqlStore.open(
            parse_mysql_url(url),
            partitions=store.partitions,
            tables=registry.tables,
            strict=store.durability == "strict",
            clock=clock,
        )
    from engine.stores.sqlite import SqliteStore

    return await SqliteStore.open(
        path, partitions=store.partitions, tables=registry.tables, clock=clock
    )


async def _open_gate(settings: GateSettings, clock: Clock) -> Gate | None:
    # As with stores, a driver is imported only when it is used.
    if not settings.url:
        return None
    if settings.url == "memory:":
        from engine.gate.memory import MemoryGate

        return MemoryGate(settings, clock)
    from engine.gate.redis_address import parse_redis_url
    from engine.gate.redis_gate import RedisGate

    address = parse_redis_url(settings.url)
    if settings.client == "asyncio-redis":
        from engine.gate.asyncio_redis_connection import AsyncioRedisConnection

        connect = AsyncioRedisConnection.connector(address)
    else:
        from engine.gate.redis_connection import RedisPyConnection

        connect = partial(RedisPyConnection.open, address)
    return await RedisGate.open(connect, str(address), settings, clock)


def _addresses(urls: Sequence[str]) -> list[MysqlAddress]:
    from engine.stores.mysql_url import parse_mysql_url

    return [parse_mysql_url(each) for each in urls]


def _parse_url(url: str, *, readable: bool = False) -> tuple[str, str]:
    """Split a store URL into its kind and the rest. Raises ConfigError, without any password."""
    if readable and url == "memory:":
        raise ConfigError("a memory: store ends with its process; nobody else can read it")
    kind, colon, path = url.partition(":")
    if kind == "sqlite" and path.startswith((":", "file:")):
        raise ConfigError(f"{url} names no file; write sqlite:PATH, or memory: to keep nothing")
    if url == "memory:" or (colon and kind in ("sqlite", "mysql") and path):
        return kind, path
    allowed = "sqlite:PATH or mysql://user:password@host:port/database"
    if not readable:
        allowed = "memory:, " + allowed
    hint = f"; did you mean sqlite:{url}?" if url and not colon else ""
    shown = re.sub(r"//[^@/]*@", "//...@", url)
    raise ConfigError(f"the store URL must be {allowed}; got {shown!r}{hint}")
