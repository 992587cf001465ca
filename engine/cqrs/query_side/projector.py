"""The loop of one projection in one partition: read -> project -> write with the checkpoint.

    commits after the checkpoint --project--> rows --one transaction--> read model + checkpoint

What cannot be projected becomes a dead letter, and with it whatever follows in its stream; the
other streams go on. `advance` writes only when nobody else moved the checkpoint meanwhile, so two
projectors of one projection waste work and do no harm.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Final

from engine.clock import Clock
from engine.cqrs.codec import name_commit
from engine.cqrs.event_store import StoredCommit
from engine.cqrs.query_side.projection import Projection
from engine.cqrs.query_side.read_model import DeadLetter, Progress, ReadStore, Step, Write
from engine.cqrs.query_side.subscription import Subscription
from engine.errors import StoreUnavailable, StreamKey

logger = logging.getLogger(__name__)

EVENTS_PER_STEP: Final = 10_000
"""Events in one transaction, unless one commit alone has more."""

RETRY_SECONDS: Final = 0.5


class Projector:
    """Feeds the live generation of a projection from one partition, until cancelled."""

    def __init__(
        self,
        projection: Projection,
        subscription: Subscription,
        views: ReadStore,
        partitions: int,
        clock: Clock,
    ) -> None:
        self.projection = projection
        self._subscription = subscription
        self._views = views
        self._partitions = partitions
        self._clock = clock
        self.blocked: set[StreamKey] = set()
        """Streams that wait behind a dead letter, as far as this projector knows."""

    async def run(self) -> None:
        """Follow the events for ever. A store that cannot be reached is asked again."""
        while True:
            try:
                await self._follow(await self.live_generation())
            except StoreUnavailable as error:
                logger.warning("projection %s waits: %s", self.projection.name, error)
                await self._clock.sleep(RETRY_SECONDS)

    async def live_generation(self) -> int:
        """The generation that answers questions, made when there is none. Raises SchemaMismatch."""
        return await self._views.prepare(
            self.projection.name, self.projection.tables, self._partitions
        )

    async def catch_up(self, generation: int) -> Progress:
        """Take in what is there by now and return how far that is.

        Raises StoreUnavailable, also when the generation is gone or somebody else feeds it.
        """
        while True:
            progress = await self._state(generation)
            page = await self._subscription.read(progress.position)
            if not page:
                return progress
            await self._take_in(generation, progress, page)

    async def _follow(self, generation: int) -> None:
        progress = await self._state(generation)
        while True:
            page = await self._subscription.wait(progress.position)
            progress = await self._take_in(generation, progress, page)

    async def _state(self, generation: int) -> Progress:
        """Read the checkpoint, and the streams that wait behind a dead letter."""
        name, partition = self.projection.name, self._subscription.partition
        progress = await self._views.progress(name, generation, partition)
        if progress is None:
            raise StoreUnavailable(f"generation {generation} of {name} is gone")
        letters = await self._views.dead_letters(name, generation, partition)
        self.blocked = {each.stream for each in letters}
        return progress

    async def _take_in(
        self,
        generation: int,
        progress: Progress,
        page: Sequence[StoredCommit],
    ) -> Progress:
        """Bring the read model to the end of the page, a few commits a transaction."""
        for chunk in _chunks(page):
            try:
                progress = await self._advance(generation, progress, chunk)
            except ValueError:
                # One of them holds what the tables cannot: find out which, one at a time.
                for commit in chunk:
                    progress = await self._advance_alone(generation, progress, commit)
        return progress

    async def _advance_alone(
        self, generation: int, progress: Progress, commit: StoredCommit
    ) -> Progress:
        try:
            return await self._advance(generation, progress, [commit])
        except ValueError as error:
            letter = _letter(commit, str(error))
            progress = await self._write(generation, progress, commit.position, [], [letter])
            self.blocked.add(commit.stream)
            return progress

    async def _advance(
        self,
        generation: int,
        progress: Progress,
        chunk: Sequence[StoredCommit],
    ) -> Progress:
        writes: list[Write] = []
        letters: list[DeadLetter] = []
        # Known as blocked only once that is written down.
        dead: set[StreamKey] = set()
        for commit in chunk:
            if commit.aggregate_type not in self.projection.aggregate_types:
                continue
            if commit.stream in self.blocked or commit.stream in dead:
                letters.append(_letter(commit, ""))
                continue
            try:
                writes += self.projection.project(self._subscription.decode(commit))
            except Exception as error:
                logger.exception("%s cannot take in %s", self.projection.name, name_commit(commit))
                letters.append(_letter(commit, repr(error)))
                dead.add(commit.stream)
        progress = await self._write(generation, progress, chunk[-1].position, writes, letters)
        self.blocked |= dead
        return progress

    async def _write(
        self,
        generation: int,
        progress: Progress,
        position: int,
        writes: Sequence[Write],
        letters: Sequence[DeadLetter],
    ) -> Progress:
        reached = Progress(position, progress.revision)
        name, partition = self.projection.name, self._subscription.partition
        step = Step(
            name, generation, partition, progress, reached, self.projection.tables, writes, letters
        )
        if not await self._views.advance(step):
            raise StoreUnavailable("the checkpoint was moved by somebody else")
        return reached


def _letter(commit: StoredCommit, reason: str) -> DeadLetter:
    return DeadLetter(
        commit.partition, commit.position, commit.aggregate_type, commit.aggregate_id, reason
    )


def _chunks(page: Sequence[StoredCommit]) -> list[list[StoredCommit]]:
    chunks: list[list[StoredCommit]] = []
    events = EVENTS_PER_STEP
    for commit in page:
        count = commit.last_version - commit.first_version + 1
        if events + count > EVENTS_PER_STEP:
            chunks.append([])
            events = 0
        chunks[-1].append(commit)
        events += count
    return chunks
