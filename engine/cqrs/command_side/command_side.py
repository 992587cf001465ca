"""The command side of one process, put together: every partition with its loop, and the door."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Mapping
from typing import Final

from engine.clock import Clock
from engine.config import Settings
from engine.cqrs.aggregate import Registry
from engine.cqrs.command_side.command_bus import CommandBus
from engine.cqrs.command_side.live_rows import LiveRows
from engine.cqrs.command_side.partition import Partition
from engine.cqrs.command_side.partition_maker import Inline, Owned, PartitionMaker, no_inline
from engine.cqrs.command_side.port import BrokerState, Publishing, ServedPartition
from engine.cqrs.command_side.refusal_counts import STREAMS_MAX, RefusalCounts
from engine.cqrs.command_side.statistics import Counters, Statistics
from engine.cqrs.event_store import EventStore
from engine.cqrs.messages import Ask, Command
from engine.cqrs.partitioning import partition_of
from engine.cqrs.query_side.subscription import Feed
from engine.errors import SeckillError, StreamKey

logger = logging.getLogger(__name__)

DRAIN_SECONDS_MAX: Final = 30.0
"""How long closing waits for queued batches before it gives up; then the crash path applies."""


class CommandSide:
    """Owns every partition of `store`, from `open` to `close`. The store stays the caller's."""

    def __init__(
        self,
        bus: CommandBus,
        owned: list[Owned],
        counters: Counters,
        live_rows: LiveRows,
    ) -> None:
        self.bus = bus
        self.live_rows = live_rows
        self._owned = owned
        self._partitions = [each.partition for each in owned]
        self._counters = counters
        self._loops = [
            asyncio.create_task(each.run(), name=f"partition-{number}")
            for number, each in enumerate(self._partitions)
        ]

    @classmethod
    async def open(
        cls,
        store: EventStore,
        registry: Registry,
        settings: Settings,
        clock: Clock,
        feed: Feed | None = None,
        inline: Inline = no_inline,
    ) -> CommandSide:
        """Take every partition over and start its loop.

        `feed` is told of every transaction; `inline` gives the inline projections of a partition.
        Raises StoreUnavailable, and what `InlineProjections.catch_up` raises.
        """
        counters, live_rows = Counters(), LiveRows()
        maker = PartitionMaker(
            store, registry, settings, clock, counters, feed or Feed(), live_rows, inline
        )
        owned = [await maker.acquire(number) for number in range(store.partitions)]
        for stream in sorted({each.committer.lease.source.stream for each in owned} - {""}):
            logger.warning(
                "this store was last fed by the cluster of the stream %s: an engine alone takes its "
                "partitions away from nodes that run, which take them back; stop them first, or give "
                "this one their cluster settings",
                stream,
            )
        partitions = [each.partition for each in owned]
        # Every partition is ours now, and nobody can send a command before there is a door.
        await live_rows.load(store, registry.tables)
        queue = settings.queue
        bus = CommandBus(registry, partitions, queue.depth_max, queue.deadline_ms, clock, counters)
        return cls(bus, owned, counters, live_rows)

    def stopped(self) -> list[SeckillError]:
        """The reasons of the partitions that take no more commands."""
        return [each.stopped for each in self._partitions if each.stopped is not None]

    def served(self) -> list[ServedPartition]:
        """The partitions that take commands now, in their order."""
        return [
            ServedPartition(
                *(lease.partition, "", lease.epoch, lease.position, each.partition.queue_depth)
            )
            for each in self._owned
            for lease in (each.committer.lease,)
            if each.partition.stopped is None
        ]

    def broker(self) -> BrokerState | None:
        """None: commands come from this process."""
        return None

    def publishing(self) -> list[Publishing]:
        """Nothing: without a broker there is no stream of events."""
        return []

    def statistics(self) -> Statistics:
        mailboxes = [mailbox for each in self._owned for mailbox in each.residents]
        return self._counters.snapshot(
            queue_depth=sum(each.queue_depth for each in self._partitions),
            residents=sum(each.resident is not None for each in mailboxes),
            halted=sum(each.halted is not None for each in mailboxes),
            batch_limits={number: each.limits for number, each in enumerate(self._partitions)},
        )

    def count_refusals(
        self, commands: Collection[type[Command]], reasons: Collection[str]
    ) -> RefusalCounts:
        """Count the refusals of these commands for these reasons from now on, for one who drains."""
        counts = self._counters.refusals = RefusalCounts(commands, reasons, STREAMS_MAX)
        return counts

    sees_all_waiting: Final = True

    async def waiting(
        self,
        stream: StreamKey,
        wanted: Collection[str],  # noqa: ARG002
    ) -> Mapping[str, tuple[int, Command]]:
        """Every command of an aggregate that waits, by id: 0 while it is being written, else its place
        from 1."""
        return {
            command.id: (place, command)
            for place, command in self._home(stream).waiting(stream)
            # A question has the id of the command that it asks for.
            if type(command) is not Ask
        }

    def refused(self, stream: StreamKey) -> Mapping[str, int]:
        """What an aggregate refused since `count_refusals`, by reason."""
        counts = self._counters.refusals
        return {} if counts is None else counts.totals(stream)

    def may_know(self, stream: StreamKey, command_id: str) -> bool:
        """False only if the command was surely never queued here, or was refused long ago."""
        return self._home(stream).may_know(stream, command_id)

    def _home(self, stream: StreamKey) -> Partition:
        return self._partitions[partition_of(stream[1], len(self._partitions))]

    async def close(self) -> None:
        """Refuse new commands, finish the queued ones, answer everybody. Idempotent."""
        self.bus.close()
        for partition in self._partitions:
            partition.drain()
        try:
            await asyncio.wait(self._loops, timeout=DRAIN_SECONDS_MAX)
        finally:
            # Also when the caller gives up: nobody may write to a store that is closed next.
            for loop in self._loops:
                loop.cancel()
        await asyncio.gather(*self._loops, return_exceptions=True)
