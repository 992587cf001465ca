"""Commits in order, from any position, to the newest, and on as they come."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Final

from engine.clock import Clock
from engine.cqrs.codec import Codec, name_commit
from engine.cqrs.event_store import EventReader, StoredCommit
from engine.cqrs.query_side.projection import RecordedCommit
from engine.errors import CorruptEvent

PAGE_COMMITS: Final = 256
GATHER_SECONDS: Final = 0.02
"""Between two pages that hold all there is. A busy writer commits hundreds of times a second, and a
read model that followed each commit by itself would take more of the machine than the writer."""

POLL_SECONDS: Final = 1.0
"""How often a subscription looks by itself, for commits of another process."""


class Feed:
    """Tells the subscriptions of this process that a partition has new commits."""

    def __init__(self) -> None:
        self._next: dict[int, asyncio.Future[None]] = {}

    def announce(self, partition: int) -> None:
        if (waited_for := self._next.pop(partition, None)) is not None:
            waited_for.set_result(None)

    def next(self, partition: int) -> asyncio.Future[None]:
        """A future, the same for all who wait, that is done at the next announcement."""
        if partition not in self._next:
            self._next[partition] = asyncio.get_running_loop().create_future()
        return self._next[partition]


class Subscription:
    """Reads one partition. Whoever uses it keeps the position."""

    def __init__(
        self,
        reader: EventReader,
        codecs: Mapping[str, Codec],
        partition: int,
        feed: Feed,
        clock: Clock,
    ) -> None:
        self._reader = reader
        self._codecs = codecs
        self.partition = partition
        self._feed = feed
        self._clock = clock
        self._not_before = 0.0

    async def read(self, after: int, limit: int = PAGE_COMMITS) -> list[StoredCommit]:
        """Up to `limit` commits after a position; none when it is the newest.

        Raises CorruptEvent for a gap, StoreUnavailable.
        """
        page = await self._reader.read_partition(self.partition, after, limit)
        for position, commit in enumerate(page, after + 1):
            if commit.position != position:
                raise CorruptEvent(
                    f"position {position} of partition {self.partition} is missing: "
                    f"what follows is the {name_commit(commit)}"
                )
        return page

    async def wait(self, after: int, limit: int = PAGE_COMMITS) -> list[StoredCommit]:
        """Like `read`, but wait until there is one."""
        while not (page := await self.wait_once(after, limit)):
            pass
        return page

    async def wait_once(self, after: int, limit: int = PAGE_COMMITS) -> list[StoredCommit]:
        """Like `wait`, but return nothing when there still is none at the next poll."""
        if (early := self._not_before - self._clock.monotonic()) > 0:
            await self._clock.sleep(early)
        page = await self._wait_once(after, limit)
        if len(page) < limit:
            self._not_before = self._clock.monotonic() + GATHER_SECONDS
        return page

    async def _wait_once(self, after: int, limit: int) -> list[StoredCommit]:
        # Asked for before reading, so that a commit between the two is not slept through.
        news = self._feed.next(self.partition)
        if page := await self.read(after, limit):
            return page
        await self._sleep(news)
        return await self.read(after, limit)

    def decode(self, commit: StoredCommit) -> RecordedCommit:
        """Raises CorruptEvent, KeyError for an aggregate type that is not known."""
        return RecordedCommit(
            commit.partition,
            commit.position,
            commit.aggregate_type,
            commit.aggregate_id,
            commit.first_version,
            commit.committed_at_us,
            self._codecs[commit.aggregate_type].decode(commit),
        )

    async def _sleep(self, news: asyncio.Future[None]) -> None:
        due: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def ring() -> None:
            if not due.done():
                due.set_result(None)

        timer = self._clock.call_later(POLL_SECONDS, ring)
        try:
            await asyncio.wait((news, due), return_when=asyncio.FIRST_COMPLETED)
        finally:
            timer.cancel()
