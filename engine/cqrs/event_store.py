"""The event store port: what the core asks of a database, and how it may fail."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias

import msgspec

from engine.errors import StreamKey

if TYPE_CHECKING:
    from engine.cqrs.query_side.read_model import Step

Value: TypeAlias = int | str


class Table(msgspec.Struct, frozen=True):
    """A table that an inline projection keeps: one key column, whole numbers and short texts."""

    name: str
    key: str
    numbers: tuple[str, ...]
    texts: tuple[str, ...] = ()


class RowChange(msgspec.Struct, frozen=True):
    """ONE guarded change of ONE row, made in the transaction of the commit it belongs to.

    `add` is added to number columns, `put` replaces values. With `insert` the row must not exist
    yet and is made from `put`; else it must exist, hold every value of `expect`, and every column
    of `add` must stay at zero or above. A guard that does not hold is `ProjectionDiverged`.
    """

    table: str
    key: str
    insert: bool = False
    add: Mapping[str, int] = {}
    put: Mapping[str, Value] = {}
    expect: Mapping[str, Value] = {}


class NewCommit(msgspec.Struct, frozen=True):
    """A commit ready to be appended: its events as JSON, their crc32c, its row changes."""

    aggregate_type: str
    aggregate_id: str
    first_version: int
    last_version: int
    events: bytes
    checksum: int
    changes: tuple[RowChange, ...] = ()

    @property
    def stream(self) -> StreamKey:
        return (self.aggregate_type, self.aggregate_id)


class StoredCommit(msgspec.Struct, frozen=True):
    """A commit as read back. `position` counts the commits of its partition from 1, gapless."""

    partition: int
    position: int
    aggregate_type: str
    aggregate_id: str
    first_version: int
    last_version: int
    events: bytes
    checksum: int
    committed_at_us: int

    @property
    def stream(self) -> StreamKey:
        return (self.aggregate_type, self.aggregate_id)


class Source(msgspec.Struct, frozen=True, array_like=True):
    """How far the commands of a partition that came over a broker are worked off.

    `stream` names the one life of the stream that they come from, empty when they come from nowhere.
    Each up to sequence `done` is decided, and so are the `ahead` ones: ranges, first to last, in
    order, none of which touches another or `done`.
    """

    stream: str = ""
    done: int = 0
    ahead: tuple[tuple[int, int], ...] = ()


NO_SOURCE: Final = Source()


def encode_source(source: Source) -> str:
    return msgspec.json.encode(source).decode()


def decode_source(text: str) -> Source:
    """Raises msgspec.DecodeError."""
    return msgspec.json.decode(text, type=Source) if text else NO_SOURCE


class Lease(msgspec.Struct, frozen=True):
    """The right to write one partition: valid while the stored epoch is this one.

    `owner` names who took it; it stays the same when the same one takes it back. `source` is what
    was stored with the newest transaction that named one.
    """

    partition: int
    epoch: int
    position: int
    owner: str = ""
    source: Source = NO_SOURCE


def owner_of(held: Lease | None) -> str:
    """The name under which a partition is acquired: that of `held`, or a new one."""
    return held.owner if held is not None else uuid.uuid4().hex


class StoredSnapshot(msgspec.Struct, frozen=True):
    """The head of a snapshot of an aggregate at `version`, as bytes with their crc32c.

    What it consists of is in parts of the stream, which the head names.
    """

    aggregate_type: str
    aggregate_id: str
    version: int
    code_version: int
    state: bytes
    checksum: int


class SnapshotPart(msgspec.Struct, frozen=True):
    """A piece of a snapshot. Parts of one stream are numbered; a number is written once."""

    number: int
    data: bytes


ALL_PARTS: Final = (0, 2**62)
"""Every number a part may have: from the first, up to and without the second."""


class StreamInfo(msgspec.Struct, frozen=True):
    """How far one stream has come."""

    aggregate_type: str
    aggregate_id: str
    partition: int
    version: int
    commits: int


class PartitionPlace(msgspec.Struct, frozen=True):
    """Where a partition lives, who acquired it last, and the position of its newest commit.

    `database` is its name among several, empty where there is one; `moving_to` another one while it is
    being moved there. Epoch and position are -1 while its database does not answer.
    """

    partition: int
    database: str
    location: str
    epoch: int
    position: int
    owner: str
    moving_to: str = ""


class StoreInfo(msgspec.Struct, frozen=True):
    """What the store is and what it promises; shown at start and beside every figure.

    `identity` was drawn when the store was made: no other one has it.
    """

    kind: str
    version: str
    durability: str
    location: str
    identity: str = ""


class EventReader(Protocol):
    """The reading half. Everything it returns is durable.

    Every method raises StoreUnavailable when the store cannot be read now.
    """

    @property
    def partitions(self) -> int:
        """The number of partitions, fixed when the store was initialised."""

    @property
    def info(self) -> StoreInfo: ...

    async def read_partition(
        self, partition: int, after_position: int, limit: int
    ) -> list[StoredCommit]:
        """Up to `limit` commits after `after_position`, in position order, without gaps."""

    async def read_position(self, partition: int) -> int:
        """The position of the newest commit of a partition, 0 when it has none."""

    async def read_stream(
        self, stream: StreamKey, after_version: int, limit: int
    ) -> list[StoredCommit]:
        """Up to `limit` commits of one stream whose first version is above `after_version`."""

    async def read_streams(self) -> list[StreamInfo]:
        """Every stream, ordered by type and id."""

    async def read_rows(self, table: str, partition: int | None = None) -> list[dict[str, Value]]:
        """Every row of an inline projection's table, or those of one partition, ordered by key."""

    async def read_row(self, table: str, key: str) -> dict[str, Value] | None:
        """One row of an inline projection's table."""

    async def read_places(self) -> list[PartitionPlace]:
        """Every partition, in order of their numbers."""

    async def load_snapshot(self, stream: StreamKey) -> StoredSnapshot | None:
        """The head of the newest snapshot of a stream, unchecked, or None."""

    async def read_snapshot_parts(
        self, stream: StreamKey, from_number: int, limit: int
    ) -> list[SnapshotPart]:
        """Up to `limit` parts of a stream numbered `from_number` or higher, in their order."""

    async def close(self) -> None:
        """Give everything back. Idempotent."""


class EventStore(EventReader, Protocol):
    """The whole port: reading, and writing with a fence."""

    @property
    def commit_bytes_max(self) -> int:
        """How many bytes the events of one commit may have; batches are kept below it."""

    @property
    def is_remote(self) -> bool:
        """Whether another process does the work of a transaction, so that this one is free meanwhile."""

    async def acquire(self, partition: int, held: Lease | None = None) -> Lease:
        """Become the only writer of `partition`: raise its epoch and return the lease.

        It opens a new connection where the old one may be broken, waits for an older writer's
        open transaction, and fences that writer for good. Its `position` is the truth about what
        was committed: this is the start, the take-over and the answer to an unknown outcome.

        With `held`, a lease that this caller had, it is only taken back: Fenced when somebody else
        has acquired the partition since, who then goes on undisturbed. Raises StoreUnavailable.
        """

    async def append(
        self,
        lease: Lease,
        commits: Sequence[NewCommit],
        steps: Sequence[Step] = (),
        at_us: int | None = None,
        source: Source | None = None,
    ) -> None:
        """Append all `commits` and apply their row changes in ONE transaction, or nothing at all.

        `source` is stored in it as well; there may be no commits then.

        `steps` of inline projections are done in it too; one that finds its checkpoint elsewhere is
        StoreUnavailable. `at_us` is noted as the time of the commits, else the time of the call.

        They get the positions `lease.position + 1 ...` in order. At most one commit a stream.
        When it returns, the transaction is durable.

        Raises Fenced, WrongExpectedVersion (naming every stream at fault), ProjectionDiverged,
        StoreUnavailable: nothing was written; CommitOutcomeUnknown: only `acquire` can tell.
        """

    async def save_snapshot(
        self,
        snapshot: StoredSnapshot,
        parts: Sequence[SnapshotPart] = (),
        replaced: tuple[int, int] = ALL_PARTS,
    ) -> None:
        """Keep a snapshot in place of an older one, in one transaction; a newer one stays.

        Parts of the stream whose numbers are in `replaced` (from, up to and without) are removed
        and `parts` are added, each of at most `commit_bytes_max // 4` bytes. Raises
        StoreUnavailable.
        """
