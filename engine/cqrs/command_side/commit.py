"""Make decided batches durable: one transaction, and what to do when it fails.

An error before COMMIT means nothing was written. An error at or after COMMIT means neither done
nor undone; then the only truth is in the store: take the partition over anew, which fences
whatever is left of the doubtful session, and look how far its position came.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any, Final

from engine.clock import Clock
from engine.cqrs.aggregate import InlineProjection
from engine.cqrs.codec import Codec, checksum
from engine.cqrs.command_side.decide import Decision
from engine.cqrs.command_side.statistics import Counters
from engine.cqrs.event_store import EventStore, Lease, NewCommit, Source, StoredCommit
from engine.cqrs.messages import Commit
from engine.cqrs.query_side.inline import InlineProjections
from engine.errors import (
    CommitOutcomeUnknown,
    Fenced,
    PartitionLost,
    ProjectionDiverged,
    StoreError,
    StoreUnavailable,
    StreamKey,
    WrongExpectedVersion,
)

logger = logging.getLogger(__name__)

ATTEMPTS_MAX: Final = 3
"""Times a transaction that was rolled back is tried: enough for a lock or a deadlock to pass."""

BACKOFF_SECONDS_MIN: Final = 0.05
BACKOFF_SECONDS_MAX: Final = 2.0
"""Waits double from one to the other: a restarting database is met within two seconds."""


class Committer:
    """Holds the lease of one partition and writes with it. Used by one task at a time."""

    def __init__(
        self,
        store: EventStore,
        lease: Lease,
        codecs: Mapping[str, Codec],
        projections: Mapping[str, InlineProjection],
        clock: Clock,
        counters: Counters,
        inline: InlineProjections | None = None,
    ) -> None:
        self._inline = inline
        self._store = store
        self._lease = lease
        self._codecs = codecs
        self._projections = projections
        self._clock = clock
        self._counters = counters
        self.waits_since: float | None = None
        """When the store was found away, on the clock; None while it answers."""

    @property
    def lease(self) -> Lease:
        return self._lease

    def prepare(self, decision: Decision) -> NewCommit | None:
        """Turn a decision into the commit to append, or None when it has no events.

        Raises whatever the inline projection raises: the aggregate must then be stopped.
        """
        if not decision.events:
            return None
        name, aggregate_id = decision.resident.stream
        commit = Commit(name, aggregate_id, decision.first_version, decision.events)
        projection = self._projections.get(name)
        changes = projection.changes(commit) if projection else ()
        events = self._codecs[name].encode(commit.events)
        return NewCommit(
            name,
            aggregate_id,
            commit.first_version,
            commit.last_version,
            events,
            checksum(events),
            changes,
        )

    async def write(
        self, commits: Sequence[NewCommit], source: Source | None = None
    ) -> Mapping[StreamKey, StoreError]:
        """Make `commits` durable, and return the streams that were left out, each with its error.

        `source` is stored with them, or by itself when there are none. It is stored also when all
        streams were left out, but not when that was for StoreUnavailable.

        A stream at fault (WrongExpectedVersion, ProjectionDiverged) is left out and the others are
        written. StoreUnavailable for all of them after ATTEMPTS_MAX, when none was written. Waits as long as it takes to
        clear up an unknown outcome. Raises Fenced or PartitionLost when another owner took over.
        """
        left_out: dict[StreamKey, StoreError] = {}
        pending = list(commits)
        attempts = 0
        while pending or source is not None:
            began = self._clock.monotonic()
            try:
                await self._append(pending, source)
            except WrongExpectedVersion as error:
                left_out |= dict.fromkeys(error.streams, error)
            except ProjectionDiverged as error:
                left_out[error.stream] = error
            except CommitOutcomeUnknown as error:
                logger.warning("partition %d: %s", self._lease.partition, error)
                if await self._became_durable(pending, source):
                    self._advance(0, source)
                    self._count(began)
                    break
                # It surely did not happen. A disk that is nearly full shows itself at COMMIT only.
                attempts += 1
                if attempts == ATTEMPTS_MAX:
                    unavailable = StoreUnavailable(f"nothing was written: {error}")
                    return left_out | {each.stream: unavailable for each in pending}
                await self._clock.sleep(BACKOFF_SECONDS_MIN * 2**attempts)
            except StoreUnavailable as error:
                attempts += 1
                if attempts == ATTEMPTS_MAX:
                    return left_out | {each.stream: error for each in pending}
                await self._clock.sleep(BACKOFF_SECONDS_MIN * 2**attempts)
                await self._take_over(self._lease.position)
                if self._inline is not None:
                    # It may have been rebuilt.
                    await self._patiently(self._inline.catch_up)
            else:
                self._advance(len(pending), source)
                self._count(began)
                break
            pending = [each for each in pending if each.stream not in left_out]
        return left_out

    async def _append(self, commits: Sequence[NewCommit], source: Source | None) -> None:
        # Named only where there is one: a store may do without.
        more: dict[str, Any] = {} if source is None else {"source": source}
        if self._inline is None or not commits:
            await self._store.append(self._lease, commits, **more)
        else:
            # The rows are made of the time that the commits will be read back with.
            at_us = self._clock.wall_us()
            steps = self._inline.steps(self._lease, commits, at_us)
            await self._store.append(self._lease, commits, steps, at_us, **more)

    async def _became_durable(self, commits: Sequence[NewCommit], source: Source | None) -> bool:
        """Learn what became of a transaction in doubt; the old session can do no more after it.

        Raises Fenced when it was not written and another owner took over.
        """
        before, partition = self._lease.position, self._lease.partition
        lost: Fenced | None = None
        try:
            await self._take_over(before, before + len(commits))
        except Fenced as error:
            lost = error  # Whoever has it now waited for our COMMIT, or for its end.
        self._counters.recoveries += 1
        if not commits:
            if lost is not None:
                raise lost
            return self._lease.source == source
        stored = await self._patiently(self._store.read_partition, partition, before, len(commits))
        if _same(stored, commits):
            return True
        if lost is not None:
            raise lost
        if stored:
            raise PartitionLost(f"another owner wrote to partition {partition} meanwhile")
        return False

    async def _take_over(self, *expected: int) -> None:
        """Take the partition back; it must stand at one of the `expected` positions.

        Raises Fenced when another owner took it, who is left alone.
        """
        held = self._lease
        self._lease = lease = await self._patiently(self._store.acquire, held.partition, held)
        if lease.position not in expected:
            raise PartitionLost(
                f"partition {lease.partition} is at position {lease.position}, "
                f"expected {' or '.join(map(str, expected))}: another owner wrote to it"
            )

    async def _patiently(self, call: Any, *args: object) -> Any:
        """Call until the store answers. The waiting buyers are answered at their deadlines."""
        wait = BACKOFF_SECONDS_MIN
        try:
            while True:
                try:
                    return await call(*args)
                except StoreUnavailable as error:
                    if self.waits_since is None:
                        self.waits_since = self._clock.monotonic()
                    logger.warning("partition %d waits: %s", self._lease.partition, error)
                    await self._clock.sleep(wait)
                    wait = min(wait * 2, BACKOFF_SECONDS_MAX)
        finally:
            self.waits_since = None

    def _advance(self, commits: int, source: Source | None) -> None:
        lease = self._lease
        self._lease = Lease(
            *(lease.partition, lease.epoch, lease.position + commits, lease.owner),
            lease.source if source is None else source,
        )

    def _count(self, began: float) -> None:
        self._counters.transactions += 1
        self._counters.commit_seconds += self._clock.monotonic() - began


def _same(stored: Sequence[StoredCommit], commits: Sequence[NewCommit]) -> bool:
    return [(each.stream, each.first_version, each.checksum) for each in stored] == [
        (each.stream, each.first_version, each.checksum) for each in commits
    ]
