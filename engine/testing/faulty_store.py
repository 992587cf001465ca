"""A store that fails on purpose, the way real ones do."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Literal, TypeAlias

from engine.cqrs.event_store import (
    ALL_PARTS,
    EventStore,
    Lease,
    NewCommit,
    PartitionPlace,
    SnapshotPart,
    Source,
    StoredCommit,
    StoredSnapshot,
    StoreInfo,
    StreamInfo,
    Value,
)
from engine.cqrs.query_side.read_model import Step
from engine.errors import CommitOutcomeUnknown, StoreUnavailable, StreamKey

Fault: TypeAlias = Literal["ok", "fail_before", "commit_then_raise", "lost_commit", "hang"]
"""ok                 what the store does by itself
fail_before        StoreUnavailable; nothing was written
commit_then_raise  CommitOutcomeUnknown; it was written
lost_commit        CommitOutcomeUnknown; it was not written
hang               waits for `released`, then ok"""

FAULTS: tuple[Fault, ...] = ("fail_before", "commit_then_raise", "lost_commit")


class FaultyStore:
    """Wraps a store; each `append` takes the next fault of its script, and `ok` after its end.

    `taken` counts what was taken, so that a test can insist that its fault really happened. While it
    `is_away` nothing can be acquired, appended or asked for its position.
    """

    def __init__(self, inner: EventStore, script: Iterable[Fault] = ()) -> None:
        self._inner = inner
        self._script = iter(script)
        self._in_doubt = False
        self.released = asyncio.Event()
        self.taken: Counter[Fault] = Counter()
        self.acquire_failures = 0
        self.is_away = False

    @classmethod
    def seeded(cls, inner: EventStore, seed: int, share: float) -> FaultyStore:
        """Fail a random `share` (0 to 1) of the appends, the same ones for the same seed."""
        rng = random.Random(seed)  # noqa: S311

        def script() -> Iterable[Fault]:
            while True:
                yield rng.choice(FAULTS) if rng.random() < share else "ok"

        return cls(inner, script())

    @property
    def partitions(self) -> int:
        return self._inner.partitions

    @property
    def info(self) -> StoreInfo:
        return self._inner.info

    @property
    def is_remote(self) -> bool:
        return self._inner.is_remote

    @property
    def commit_bytes_max(self) -> int:
        return self._inner.commit_bytes_max

    async def acquire(self, partition: int, held: Lease | None = None) -> Lease:
        self._reach()
        if self.acquire_failures:
            self.acquire_failures -= 1
            raise StoreUnavailable("injected: the store cannot be reached")
        lease = await self._inner.acquire(partition, held)
        self._in_doubt = False
        return lease

    async def append(
        self,
        lease: Lease,
        commits: Sequence[NewCommit],
        steps: Sequence[Step] = (),
        at_us: int | None = None,
        source: Source | None = None,
    ) -> None:
        self._reach()
        if self._in_doubt:
            raise StoreUnavailable("injected: the connection is broken, acquire first")
        fault: Fault = next(self._script, "ok")
        self.taken[fault] += 1
        if fault == "fail_before":
            raise StoreUnavailable("injected: rolled back")
        if fault == "hang":
            await self.released.wait()
        if fault != "lost_commit":
            await self._inner.append(lease, commits, steps, at_us, source)
        if fault in ("commit_then_raise", "lost_commit"):
            self._in_doubt = True
            raise CommitOutcomeUnknown("injected: no reply to COMMIT")

    async def save_snapshot(
        self,
        snapshot: StoredSnapshot,
        parts: Sequence[SnapshotPart] = (),
        replaced: tuple[int, int] = ALL_PARTS,
    ) -> None:
        await self._inner.save_snapshot(snapshot, parts, replaced)

    async def read_snapshot_parts(
        self, stream: StreamKey, from_number: int, limit: int
    ) -> list[SnapshotPart]:
        return await self._inner.read_snapshot_parts(stream, from_number, limit)

    async def read_position(self, partition: int) -> int:
        self._reach()
        return await self._inner.read_position(partition)

    async def read_partition(
        self, partition: int, after_position: int, limit: int
    ) -> list[StoredCommit]:
        return await self._inner.read_partition(partition, after_position, limit)

    async def read_stream(
        self, stream: StreamKey, after_version: int, limit: int
    ) -> list[StoredCommit]:
        return await self._inner.read_stream(stream, after_version, limit)

    async def read_streams(self) -> list[StreamInfo]:
        return await self._inner.read_streams()

    async def read_rows(self, table: str, partition: int | None = None) -> list[dict[str, Value]]:
        return await self._inner.read_rows(table, partition)

    async def read_row(self, table: str, key: str) -> dict[str, Value] | None:
        return await self._inner.read_row(table, key)

    async def read_places(self) -> list[PartitionPlace]:
        return await self._inner.read_places()

    async def load_snapshot(self, stream: StreamKey) -> StoredSnapshot | None:
        return await self._inner.load_snapshot(stream)

    async def close(self) -> None:
        await self._inner.close()

    def _reach(self) -> None:
        if self.is_away:
            raise StoreUnavailable("injected: nobody reaches the store from here")
