"""What the opened parts become: an engine that owns every partition, or a node of a cluster."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from functools import partial
from typing import Final, NamedTuple

from engine.clock import Clock
from engine.cluster_settings import ClusterSettings
from engine.config import Mode, QuerySideSettings, Settings
from engine.cqrs.aggregate import Registry
from engine.cqrs.command_side.command_bus import CommandBus
from engine.cqrs.command_side.command_side import CommandSide
from engine.cqrs.command_side.partition_maker import Inline
from engine.cqrs.command_side.port import CommandSidePort
from engine.cqrs.command_side.refusal_counts import STREAMS_MAX, RefusalCounts
from engine.cqrs.event_store import EventReader, EventStore
from engine.cqrs.partitioning import partition_of
from engine.cqrs.query_side.projection import Projection
from engine.cqrs.query_side.query_side import QuerySide
from engine.cqrs.query_side.read_model import ReadStore, by_database
from engine.cqrs.query_side.subscription import Feed
from engine.engine import Engine
from engine.errors import ConfigError
from engine.inventory.checkout import CHECKOUT
from engine.inventory.hold_expiry import HOLDS_AT_ONCE, HoldExpiry
from engine.inventory.orders_table import ORDERS
from engine.inventory.refusals import (
    COMMANDS_AT_ONCE,
    COUNTED_COMMANDS,
    COUNTED_REASONS,
    RefusalRecorder,
)
from engine.inventory.sales_table import SALES
from engine.queries import Queries

SERVED_LOOK_SECONDS: Final = 0.05


class Parts(NamedTuple):
    """What was opened, and the stack that closes it; `kept` is which read models there are."""

    settings: Settings
    kept: QuerySideSettings
    registry: Registry
    places: Mapping[Projection, ReadStore]
    feed: Feed
    query_side: QuerySide
    clock: Clock
    opened: AsyncExitStack


def modes(settings: QuerySideSettings) -> dict[str, Mode]:
    """How each read model is kept, by name."""
    return {ORDERS.name: settings.orders, SALES.name: settings.sales}


async def assemble_alone(parts: Parts, store: EventStore) -> Engine:
    """Own every partition. Raises StoreUnavailable."""
    settings, registry, clock = parts.settings, parts.registry, parts.clock
    query_side, opened = parts.query_side, parts.opened
    command_side = await CommandSide.open(
        store, registry, settings, clock, parts.feed, _inline(parts)
    )
    opened.push_async_callback(command_side.close)
    counts = command_side.count_refusals(COUNTED_COMMANDS, COUNTED_REASONS)
    _record_refusals(parts, counts, command_side.bus)
    opened.push_async_callback(query_side.close)
    for projection in _followed(parts):
        query_side.start_projection(projection)
    if parts.kept.managers:
        query_side.start_manager(CHECKOUT, command_side.bus.execute, parts.places[ORDERS])
        _give_back_holds(parts, command_side.bus, store.partitions)
    return Engine(store, command_side, _queries(parts, store), settings, clock)


async def assemble_node(parts: Parts, reader: EventReader, store: EventStore | None) -> Engine:
    """Join the cluster; a gateway has no store to write to. Raises ConfigError, BrokerUnavailable,
    StoreUnavailable."""
    # A program that is no node needs no broker's client.
    try:
        from engine.cluster.join import events_out, join_gateway, own_partitions
    except ImportError as error:
        raise ConfigError(
            f"cluster.servers needs the client of NATS: pip install 'seckill-engine[cluster]' ({error})"
        ) from error

    settings, registry, clock = parts.settings, parts.registry, parts.clock
    query_side, opened = parts.query_side, parts.opened
    node, gateway = await join_gateway(settings, registry, reader, clock, opened)
    if store is not None:
        views = parts.places.get(ORDERS)

        out = await events_out(node, settings.cluster, clock) if settings.cluster.events else None

        def follow(partition: int) -> None:
            if out is not None:
                published = out(query_side.subscribe(partition))
                query_side.start(published, f"events-{partition}", partition)
            for projection in _followed(parts):
                query_side.start_projection(projection, [partition])
            if parts.kept.managers and views is not None:
                query_side.start_manager(CHECKOUT, gateway.bus.execute, views, [partition])

        counts = RefusalCounts(COUNTED_COMMANDS, COUNTED_REASONS, STREAMS_MAX)
        await own_partitions(
            *(node, settings, registry, store, parts.feed, _inline(parts), counts, follow),
            *(query_side.leave, clock),
        )
        owners = node.owners
        assert owners is not None

        def is_mine(sku: str) -> bool:
            return partition_of(sku, reader.partitions) in owners.owned

        _record_refusals(parts, counts, gateway.bus, is_mine)
        if parts.kept.managers:
            _give_back_holds(parts, gateway.bus, reader.partitions, is_mine)
    opened.push_async_callback(query_side.close)
    await node.start()
    await _until_served(gateway, settings.cluster, clock)
    return Engine(reader, gateway, _queries(parts, reader), settings, clock, node.failed)


async def _until_served(side: CommandSidePort, settings: ClusterSettings, clock: Clock) -> None:
    """Give the owners a moment to show themselves, so that the first order is not refused.

    Not for ever: what has no owner is refused, and the others sell.
    """
    give_up = clock.monotonic() + settings.dead_after_ms / 1_000
    while side.stopped() and clock.monotonic() < give_up:
        await clock.sleep(SERVED_LOOK_SECONDS)


def _followed(parts: Parts) -> list[Projection]:
    """The read models that follow the events a moment later."""
    return [each for each in parts.places if modes(parts.kept)[each.name] == "async"]


def _inline(parts: Parts) -> Inline:
    kept = [each for each in parts.places if modes(parts.kept)[each.name] == "inline"]
    return partial(parts.query_side.inline, projections=kept)


def _queries(parts: Parts, reader: EventReader) -> Queries:
    by_name = {each.name: views for each, views in parts.places.items()}
    return Queries(reader, parts.query_side, by_name)


def _record_refusals(
    parts: Parts,
    counts: RefusalCounts,
    bus: CommandBus,
    is_mine: Callable[[str], bool] = lambda _: False,
) -> None:
    kept = parts.kept
    if kept.sales == "off" or not kept.refusals_every_seconds:
        return
    at_once = min(COMMANDS_AT_ONCE, parts.settings.queue.depth_max)
    recorder = RefusalRecorder(
        *(counts, bus.execute_many, kept.refusals_every_seconds, parts.clock, at_once),
        is_mine,
    )
    # Once it runs no more, and while commands are still taken.
    parts.opened.push_async_callback(recorder.close)
    parts.query_side.start(recorder.run(), "refusals")


def _give_back_holds(
    parts: Parts,
    bus: CommandBus,
    partitions: int,
    is_mine: Callable[[str], bool] = lambda _: True,
) -> None:
    at_once = min(HOLDS_AT_ONCE, parts.settings.queue.depth_max)
    # What is due in one database does not wait for another that is down.
    for number, views in enumerate(by_database(parts.places[ORDERS])):
        expiry = HoldExpiry(
            *(views, bus.execute_many, parts.clock, at_once, is_mine, partitions),
        )
        parts.query_side.start(expiry.run(), f"hold-expiry-{number}")
