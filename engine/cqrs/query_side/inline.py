"""Projections in the commands' own transaction: whoever was answered finds the rows there.

They are the same projections as the ones that follow the events; only who writes their step
differs. Their rows live in the database of the events.
"""

from __future__ import annotations

from collections.abc import Sequence

from engine.cqrs.event_store import Lease, NewCommit, StoredCommit
from engine.cqrs.query_side.projector import Projector
from engine.cqrs.query_side.read_model import Progress, Step, Write
from engine.cqrs.query_side.subscription import Subscription
from engine.errors import ConfigError, ProjectionDiverged


class InlineProjections:
    """What one partition's writer adds to its transactions."""

    def __init__(self, subscription: Subscription, projectors: Sequence[Projector]) -> None:
        self._subscription = subscription
        self._projectors = projectors
        self._generations: dict[str, tuple[int, int]] = {}

    async def catch_up(self) -> None:
        """Bring them to the newest commit, before the first transaction and after one that failed.

        Raises StoreUnavailable, SchemaMismatch, ConfigError when a dead letter stands in the way.
        """
        for each in self._projectors:
            generation = await each.live_generation()
            progress = await each.catch_up(generation)
            if each.blocked:
                name = each.projection.name
                raise ConfigError(
                    f"projection {name} has dead letters and cannot be kept inline; settle them "
                    f"first: seckill dead-letters list {name}"
                )
            self._generations[each.projection.name] = (generation, progress.revision)

    def steps(self, lease: Lease, commits: Sequence[NewCommit], at_us: int) -> list[Step]:
        """What `append` has to do besides, for commits that are written at `at_us`.

        Raises ProjectionDiverged naming the stream that cannot be projected.
        """
        recorded = [
            self._subscription.decode(_stored(lease, number, each, at_us))
            for number, each in enumerate(commits, 1)
        ]
        steps: list[Step] = []
        for projector in self._projectors:
            projection = projector.projection
            generation, revision = self._generations[projection.name]
            writes: list[Write] = []
            for commit in recorded:
                if commit.aggregate_type in projection.aggregate_types:
                    try:
                        writes += projection.project(commit)
                    except Exception as error:
                        what = f"projection {projection.name}: {error!r}"
                        raise ProjectionDiverged(commit.stream, what) from error
            expected = Progress(lease.position, revision)
            reached = Progress(lease.position + len(commits), revision)
            place = (projection.name, generation, lease.partition)
            steps.append(Step(*place, expected, reached, projection.tables, writes))
        return steps


def _stored(lease: Lease, number: int, commit: NewCommit, at_us: int) -> StoredCommit:
    return StoredCommit(
        lease.partition,
        lease.position + number,
        commit.aggregate_type,
        commit.aggregate_id,
        commit.first_version,
        commit.last_version,
        commit.events,
        commit.checksum,
        at_us,
    )
