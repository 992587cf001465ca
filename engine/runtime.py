"""Put together what the settings name: store, command side, sale. The only place that does."""

from __future__ import annotations

import gc
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from engine.clock import Clock, SystemClock
from engine.config import Settings, check_settings, load_settings
from engine.cqrs.aggregate import Registry
from engine.cqrs.command_side.command_side import CommandSide
from engine.cqrs.event_store import EventReader, EventStore, StoreInfo
from engine.engine import Engine
from engine.errors import ConfigError
from engine.inventory.sale import sale_registry


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
    store = await _open_store(settings, registry, clock)
    try:
        command_side = await CommandSide.open(store, registry, settings, clock)
        try:
            yield Engine(store, command_side, settings)
        finally:
            await command_side.close()
    finally:
        await store.close()


async def open_reader(store_url: str) -> EventReader:
    """Open a store for reading only; an engine may be writing to it meanwhile.

    Raises ConfigError for a missing store, a foreign one or a `memory:` URL, SchemaMismatch and
    StoreUnavailable.
    """
    kind, path = _parse_url(store_url, readable=True)
    if kind == "mysql":
        from engine.stores.mysql import MysqlReader
        from engine.stores.mysql_url import parse_mysql_url

        return await MysqlReader.open(parse_mysql_url(store_url))
    from engine.stores.sqlite import SqliteReader

    return await SqliteReader.open(path)


async def initialise_store(settings: Settings, registry: Registry | None = None) -> StoreInfo:
    """Make the store that `settings` name ready, or find that it is; a store in use is left alone.

    Raises ConfigError, SchemaMismatch, StoreLocked and StoreUnavailable.
    """
    registry = registry or sale_registry()
    kind, _ = _parse_url(settings.store.url, readable=True)
    if kind == "mysql":
        from engine.stores.layout import Layout
        from engine.stores.mysql_schema import initialise
        from engine.stores.mysql_url import parse_mysql_url

        layout = Layout(settings.store.partitions, registry.tables)
        await initialise(parse_mysql_url(settings.store.url), layout)
    store = await _open_store(settings, registry, SystemClock())
    await store.close()
    return store.info


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


async def _open_store(settings: Settings, registry: Registry, clock: Clock) -> EventStore:
    # Drivers are imported only when a store of their kind is opened.
    store = settings.store
    kind, path = _parse_url(store.url)
    if kind == "memory":
        from engine.stores.memory import MemoryStore

        return MemoryStore(store.partitions, registry.tables, clock)
    if kind == "mysql":
        from engine.stores.mysql import MysqlStore
        from engine.stores.mysql_url import parse_mysql_url

        return await MysqlStore.open(
            parse_mysql_url(store.url),
            partitions=store.partitions,
            tables=registry.tables,
            strict=store.durability == "strict",
            clock=clock,
        )
    from engine.stores.sqlite import SqliteStore

    return await SqliteStore.open(
        path, partitions=store.partitions, tables=registry.tables, clock=clock
    )


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
