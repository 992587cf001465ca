"""Put a node together and join the cluster."""

from __future__ import annotations

import logging
import os
import platform
import re
import uuid
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack
from typing import Any, Final

from engine.clock import Clock
from engine.cluster.broker import Broker
from engine.cluster.client_errors import CLIENT_ERRORS
from engine.cluster.events_out import EventsOut
from engine.cluster.events_stream import EventsStream
from engine.cluster.gateway import Gateway
from engine.cluster.intake import Limits
from engine.cluster.membership import Members
from engine.cluster.node import Node
from engine.cluster.owners import Owners
from engine.cluster.places import PlacesOut
from engine.cluster.rows import RowsIn, RowsOut
from engine.cluster.wire import Wire
from engine.cluster_settings import ClusterSettings
from engine.config import Settings
from engine.cqrs.aggregate import Registry
from engine.cqrs.command_side.live_rows import LiveRows
from engine.cqrs.command_side.partition_maker import Inline, PartitionMaker
from engine.cqrs.command_side.port import Publishing
from engine.cqrs.command_side.refusal_counts import RefusalCounts
from engine.cqrs.command_side.statistics import Counters, Statistics
from engine.cqrs.event_store import EventReader, EventStore
from engine.cqrs.partitioning import partition_of
from engine.cqrs.query_side.subscription import Feed, Subscription
from engine.errors import BrokerUnavailable, ConfigError

logger = logging.getLogger(__name__)

START_TRIES_MAX: Final = 10
AGAIN_SECONDS: Final = 1.0
"""A node that starts with its brokers waits for them, for some 40 seconds with the time of each try."""


def node_name(wanted: str) -> str:
    """The name of this node: `wanted`, or one made of the host's."""
    host = re.sub(r"[^A-Za-z0-9_-]", "-", platform.node())[:40] or "node"
    return wanted or f"{host}-{os.getpid()}-{uuid.uuid4().hex[:6]}"


async def join_gateway(
    settings: Settings,
    registry: Registry,
    reader: EventReader,
    clock: Clock,
    opened: AsyncExitStack,
) -> tuple[Node, Gateway]:
    """Connect, hear the others, and have a gateway; the node is still to be started.

    Raises ConfigError, BrokerUnavailable, StoreUnavailable.
    """
    cluster = settings.cluster
    name = node_name(cluster.node)
    broker = await Broker.connect(cluster, name)
    opened.push_async_callback(broker.close)
    members = Members(cluster.dead_after_ms / 1_000, clock)
    live_rows = LiveRows()
    gateway = Gateway(
        broker,
        Wire(registry, reader.info.identity),
        registry,
        settings,
        reader.partitions,
        members,
        live_rows,
        clock,
    )
    rows = RowsIn(live_rows, gateway.refusals, reader, registry.tables, broker, clock)
    node = Node(name, cluster, broker, members, clock)
    node.gateway, node.store = gateway, reader.info.identity
    opened.push_async_callback(node.close)
    # Brokers that have just started may not have found one another, and then not everybody is heard.
    await _patiently(broker.reach, clock)
    # The streams are everybody's: who may not join changes nothing of them.
    await node.hear()
    await _patiently(broker.ensure_commands, clock)
    await gateway.start()
    await rows.start()
    node.run(rows.run(), "rows")
    return node, gateway


async def _patiently(call: Callable[[], Awaitable[None]], clock: Clock) -> None:
    """Brokers that have just started may still be choosing who leads. Raises what `call` raises."""
    for _ in range(START_TRIES_MAX):
        try:
            return await call()
        except BrokerUnavailable as error:
            logger.info("the brokers are not ready: %s", error)
            await clock.sleep(AGAIN_SECONDS)
    return await call()


async def events_out(
    node: Node, settings: ClusterSettings, clock: Clock
) -> Callable[[Subscription], Coroutine[Any, Any, None]]:
    """Make the stream of events; returns what publishes the events of one partition until cancelled.

    Raises ConfigError, BrokerUnavailable.
    """
    stream = EventsStream(
        *(settings.prefix, settings.replicas),
        *(settings.events_seconds_max, settings.events_bytes_max),
    )
    client = node.broker.client

    async def ensure() -> None:
        try:
            await stream.ensure(client.jetstream())
        except ConfigError:
            # It is a ValueError, like some of the client's.
            raise
        except CLIENT_ERRORS as error:
            raise BrokerUnavailable(
                f"the stream of events cannot be made: {str(error) or repr(error)}"
            ) from error

    await _patiently(ensure, clock)
    publishers: dict[int, EventsOut] = {}

    def publish(subscription: Subscription) -> Coroutine[Any, Any, None]:
        publisher = EventsOut(client, stream, subscription, clock)
        publishers[subscription.partition] = publisher
        return publisher.run()

    def publishing() -> list[Publishing]:
        owned = node.owners.owned if node.owners is not None else {}
        return [
            publishers[number].state(owner.holding().position)
            for number, owner in sorted(owned.items())
            if number in publishers
        ]

    if node.gateway is not None:
        node.gateway.own_publishing = publishing
    return publish


async def own_partitions(
    node: Node,
    settings: Settings,
    registry: Registry,
    store: EventStore,
    feed: Feed,
    inline: Inline,
    refusals: RefusalCounts,
    follow: Callable[[int], None],
    leave: Callable[[int], Awaitable[None]],
    clock: Clock,
) -> None:
    """Have the node own the partitions that it is best for, and count what they refuse.

    `follow` is called for each that it takes, `leave` awaited before it is given back.
    Raises BrokerUnavailable.
    """
    counters, live_rows, partitions = Counters(), LiveRows(), store.partitions
    counters.refusals = refusals
    wire = Wire(registry, store.info.identity)
    maker = PartitionMaker(store, registry, settings, clock, counters, feed, live_rows, inline)

    async def prepare(number: int) -> None:
        await live_rows.load(
            store, registry.tables, lambda row: partition_of(row[1], partitions) == number, number
        )

    limits = Limits(settings.queue.depth_max, settings.cluster.message_commands_max)
    owners = node.owners = Owners(
        *(node.name, partitions, node.members, maker, node.broker, wire, registry),
        *(limits, prepare, follow, leave, node.replies.send, node.changed),
        *(clock, settings.cluster.dead_after_ms / 1_000, store.read_places),
    )
    node.run(owners.watch(), "places")

    def statistics() -> Statistics:
        mailboxes = [mailbox for owner in owners.owned.values() for mailbox in owner.residents]
        return counters.snapshot(
            queue_depth=sum(each.partition.queue_depth for each in owners.owned.values()),
            residents=sum(each.resident is not None for each in mailboxes),
            halted=sum(each.halted is not None for each in mailboxes),
            batch_limits={number: each.partition.limits for number, each in owners.owned.items()},
        )

    node.statistics = statistics
    if node.gateway is not None and settings.cluster.role == "engine":
        node.gateway.own_statistics = statistics
    shown = RowsOut(node.boot, live_rows, refusals, node.broker, partitions, clock)
    await shown.start()
    node.run(shown.run(), "rows-out")
    await PlacesOut(owners.owned, node.broker, wire, clock).start()
