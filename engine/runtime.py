"""Put together what the settings name: store, command side, sale. The only place that does."""

from __future__ import annotations

import gc
import re
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeAlias, TypeVar

import msgspec

from engine.clock import Clock, SystemClock
from engine.config import Settings, check_settings, load_settings
from engine.cqrs.aggregate import Registry
from engine.cqrs.command_side.command_side import CommandSide
from engine.cqrs.command_side.statistics import Statistics
from engine.cqrs.event_store import EventReader, EventStore, StoreInfo
from engine.cqrs.messages import Answer, Command, Event, Outcome, Rejected
from engine.errors import ConfigError, SeckillError
from engine.inventory.commands import (
    CloseSale,
    OpenSale,
    PauseSale,
    Reserve,
    Restock,
    ResumeSale,
    Withdraw,
)
from engine.inventory.events import (
    Reserved,
    Restocked,
    SaleClosed,
    SaleOpened,
    SalePaused,
    SaleResumed,
    Withdrawn,
)
from engine.inventory.sale import sale_registry

ReserveOutcome: TypeAlias = Reserved | Rejected | SeckillError

E_ = TypeVar("E_", bound=Event)


class StockRow(msgspec.Struct, frozen=True):
    """A SKU as its table row says: durable, and never behind an answer you got."""

    sku: str
    phase: str
    available: int
    reserved: int
    limit_per_buyer: int
    version: int


class Engine:
    """A running flash-sale engine. Made by `open_engine`; use it from one event loop.

    Every method that executes a command raises what `CommandBus.execute` raises. `command_id`
    names the request: repeat it after OutcomeUnknown or a crash to get the first answer. Without
    one a fresh id is drawn; the event in the answer carries it.
    """

    def __init__(self, store: EventStore, command_side: CommandSide, settings: Settings) -> None:
        self._store = store
        self._command_side = command_side
        self.settings = settings
        self.execute = command_side.bus.execute

    @property
    def reader(self) -> EventReader:
        """Everything durable, for audits and queries."""
        return self._store

    @property
    def info(self) -> StoreInfo:
        """Which store this is and how durable it is."""
        return self._store.info

    async def execute_many(
        self, commands: Sequence[Command], *, timeout_ms: int | None = None
    ) -> list[Outcome]:
        """Execute a list of commands; one outcome each, errors standing in the list."""
        return await self._command_side.bus.execute_many(commands, timeout_ms=timeout_ms)

    async def reserve(
        self,
        sku: str,
        *,
        buyer: str,
        quantity: int = 1,
        command_id: str | None = None,
        timeout_ms: int | None = None,
    ) -> Reserved | Rejected:
        """Reserve `quantity` units for `buyer`: all of them or none.

        Rejected reasons: sold_out, over_limit, unknown_sku, paused, closed.
        """
        command = Reserve(_given_or_new(command_id), sku, buyer, quantity)
        return _only(Reserved, await self.execute(command, timeout_ms=timeout_ms))

    async def reserve_many(
        self, orders: Sequence[Reserve], *, timeout_ms: int | None = None
    ) -> list[ReserveOutcome]:
        """Reserve a list of orders and return one outcome each, in their order.

        Orders of one SKU are served in list order; each succeeds or fails alone. Raises
        InvalidCommand, Overloaded and EngineClosed for the whole list: then nothing happened.
        """
        outcomes = await self.execute_many(orders, timeout_ms=timeout_ms)
        return [each[0] if type(each) is tuple else each for each in outcomes]  # type: ignore[misc]

    async def open_sale(
        self, sku: str, *, stock: int, limit_per_buyer: int = 0, command_id: str | None = None
    ) -> SaleOpened | Rejected:
        """Put a new SKU on sale; `limit_per_buyer` 0 means no limit. Rejected: already_open."""
        command = OpenSale(_given_or_new(command_id), sku, stock, limit_per_buyer)
        return _only(SaleOpened, await self.execute(command))

    async def restock(
        self, sku: str, *, quantity: int, command_id: str | None = None
    ) -> Restocked | Rejected:
        """Add units. Rejected: unknown_sku, closed, stock_too_large."""
        command = Restock(_given_or_new(command_id), sku, quantity)
        return _only(Restocked, await self.execute(command))

    async def withdraw(
        self, sku: str, *, quantity: int, command_id: str | None = None
    ) -> Withdrawn | Rejected:
        """Take unsold units out. Rejected: unknown_sku, closed, not_enough_left."""
        command = Withdraw(_given_or_new(command_id), sku, quantity)
        return _only(Withdrawn, await self.execute(command))

    async def pause_sale(self, sku: str, *, command_id: str | None = None) -> SalePaused | Rejected:
        """Stop selling until resumed. Rejected: unknown_sku, closed, paused."""
        return _only(SalePaused, await self.execute(PauseSale(_given_or_new(command_id), sku)))

    async def resume_sale(
        self, sku: str, *, command_id: str | None = None
    ) -> SaleResumed | Rejected:
        """Go on selling. Rejected: unknown_sku, closed, not_paused."""
        command = ResumeSale(_given_or_new(command_id), sku)
        return _only(SaleResumed, await self.execute(command))

    async def close_sale(self, sku: str, *, command_id: str | None = None) -> SaleClosed | Rejected:
        """End the sale for good. Rejected: unknown_sku, closed."""
        return _only(SaleClosed, await self.execute(CloseSale(_given_or_new(command_id), sku)))

    async def stock(self, sku: str) -> StockRow | None:
        """Read a SKU's row, or None when no sale of it was ever opened."""
        row = await self._store.read_row("stock", sku)
        return None if row is None else msgspec.convert(row, StockRow)

    def statistics(self) -> Statistics:
        """A snapshot of the counters; the fields and units are documented on the record."""
        return self._command_side.statistics()


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


def new_command_id() -> str:
    """Draw a command id: 32 hexadecimal digits of a random UUID."""
    return uuid.uuid4().hex


def _given_or_new(command_id: str | None) -> str:
    # An empty id is refused as malformed; replaced by a new one it could never be repeated.
    return new_command_id() if command_id is None else command_id


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


def _only(kind: type[E_], answer: Answer) -> E_ | Rejected:
    if isinstance(answer, Rejected):
        return answer
    event = answer[0]
    assert isinstance(event, kind), f"expected {kind.__name__}, got {type(event).__name__}"
    return event
