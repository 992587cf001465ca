"""Take a partition over and put its writer together."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, NamedTuple, TypeAlias

from engine.clock import Clock
from engine.config import BatchSettings, Settings
from engine.cqrs.aggregate import Registry
from engine.cqrs.codec import Codec
from engine.cqrs.command_side.adaptive import AdaptivePacer
from engine.cqrs.command_side.batch import BatchLimits, FixedPacer, Pacer
from engine.cqrs.command_side.command_source import CommandSource
from engine.cqrs.command_side.commit import Committer
from engine.cqrs.command_side.decide import Refusals
from engine.cqrs.command_side.live_rows import LiveRows
from engine.cqrs.command_side.partition import Partition
from engine.cqrs.command_side.repository import Repository
from engine.cqrs.command_side.residents import Residents
from engine.cqrs.command_side.statistics import Counters
from engine.cqrs.event_store import EventStore, Lease, NewCommit
from engine.cqrs.query_side.inline import InlineProjections
from engine.cqrs.query_side.subscription import Feed

logger = logging.getLogger(__name__)

REFUSALS_WINDOW: Final = 65_536
"""Refusals a partition remembers at least: as many as its queue holds, so that a retry that was
queued behind a full queue still meets the answer of the first try."""

EVENT_BYTES_MAX: Final = 700
"""A large event as JSON: two ids of 64 characters of 4 bytes each, and its other fields."""

Inline: TypeAlias = Callable[[int], InlineProjections | None]


def no_inline(_: int) -> None:
    """No projection is kept in the commands' transactions."""


class Owned(NamedTuple):
    """A partition of ours: `partition.run` is still to be started."""

    committer: Committer
    partition: Partition
    residents: Residents


class PartitionMaker:
    """What the partitions of one process have in common.

    `feed` and `live_rows` are told of every transaction; `inline` gives the inline projections of a
    partition.
    """

    def __init__(
        self,
        store: EventStore,
        registry: Registry,
        settings: Settings,
        clock: Clock,
        counters: Counters,
        feed: Feed,
        live_rows: LiveRows,
        inline: Inline = no_inline,
    ) -> None:
        self._store = store
        self._projections = registry.projections
        self._settings = settings
        self._clock = clock
        self._counters = counters
        self._feed = feed
        self._live_rows = live_rows
        self._inline = inline
        self._codecs = {
            name: Codec(aggregate.events, aggregate.upcasters)
            for name, aggregate in registry.types.items()
        }
        self._repository = Repository(
            store, registry.types, self._codecs, settings.residents.snapshot_events_min
        )
        fitting = max(1, store.commit_bytes_max // EVENT_BYTES_MAX)
        if fitting < settings.batch.size_max:
            logger.warning(
                "batches are kept to %d commands: the store takes commits of %d bytes",
                fitting,
                store.commit_bytes_max,
            )
        self._size_max = min(settings.batch.size_max, fitting)

    async def acquire(
        self, number: int, source_from: Callable[[Lease], CommandSource] | None = None
    ) -> Owned:
        """Become the owner of a partition, whoever has it.

        `source_from` makes the source of its commands of the lease. Raises StoreUnavailable, and
        what `InlineProjections.catch_up` raises.
        """
        lease = await self._store.acquire(number)
        clock, residents_settings = self._clock, self._settings.residents
        own = self._inline(number)
        committer = Committer(
            *(self._store, lease, self._codecs, self._projections, clock, self._counters, own)
        )
        if own is not None:
            await own.catch_up()
        residents = Residents(
            residents_settings.aggregates_max, residents_settings.idle_seconds, clock
        )
        partition = Partition(
            committer,
            self._repository,
            residents,
            _make_pacer(self._settings.batch, self._size_max),
            Refusals(REFUSALS_WINDOW),
            clock,
            self._counters,
            partial(self._committed, number),
            None if source_from is None else source_from(lease),
            decides_ahead=self._store.is_remote,
        )
        return Owned(committer, partition, residents)

    async def reach(self, number: int) -> None:
        """Look whether the database of a partition answers; nobody is disturbed.

        Raises StoreUnavailable.
        """
        await self._store.read_position(number)

    def _committed(self, number: int, commits: Sequence[NewCommit]) -> None:
        self._live_rows.note_durable(commits)
        self._feed.announce(number)


def _make_pacer(batch: BatchSettings, size_max: int) -> Pacer:
    """What paces one partition; `size_max` is what the store takes."""
    if batch.mode == "adaptive":
        return AdaptivePacer(size_max, batch.latency_aim_ms / 1_000, batch.aggregates_max)
    return FixedPacer(BatchLimits(size_max, batch.delay_ms_max / 1_000, batch.aggregates_max))
