"""Several MySQL databases as one store: each partition lives in exactly one of them.

What concerns one partition is asked of its own database, so that one that is down fails only what
lives there. What concerns all of them is asked of all at once, and fails when one does not answer.
Partitions have the numbers that the settings give them, wherever they live.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Generic, TypeVar

import msgspec

from engine.clock import Clock
from engine.cqrs.event_store import (
    ALL_PARTS,
    Lease,
    NewCommit,
    PartitionPlace,
    SnapshotPart,
    Source,
    StoredCommit,
    StoredSnapshot,
    StoreInfo,
    StreamInfo,
    Table,
    Value,
)
from engine.cqrs.partitioning import partition_of
from engine.cqrs.query_side.read_model import Step
from engine.errors import Fenced, ProjectionDiverged, StoreUnavailable, StreamKey
from engine.stores.databases import Databases
from engine.stores.failpoint import Failpoint, no_failpoint
from engine.stores.mysql import MysqlStore
from engine.stores.mysql_read import MysqlReader, MysqlReads
from engine.stores.mysql_url import MysqlAddress
from engine.stores.places import Elsewhere
from engine.stores.row_guard import table_named

M = TypeVar("M", bound=MysqlReads)


class SpreadReads(Generic[M]):
    """The reading half, over databases that are opened as M."""

    def __init__(self, databases: Databases[M]) -> None:
        self._databases = databases
        self._tables = {table.name: table for table in databases.layout.tables}

    @property
    def partitions(self) -> int:
        return self._databases.layout.partitions

    @property
    def locations(self) -> dict[str, str]:
        """The URL of every database without its password, by name; those that never answered are empty."""
        return {name: self._databases.location_of(name) for name in self._databases.names}

    @property
    def info(self) -> StoreInfo:
        """Of all that have answered; the durability is that of the weakest."""
        infos = [each.info for each in self._databases.up]
        versions = dict.fromkeys(each.version for each in infos)
        # "relaxed" sorts before "strict".
        durability = min(each.durability for each in infos)
        return StoreInfo(
            *(infos[0].kind, ", ".join(versions), durability, self._databases.location),
            self._databases.spread,
        )

    async def read_partition(
        self, partition: int, after_position: int, limit: int
    ) -> list[StoredCommit]:
        return await self._databases.ask(
            partition, lambda each: each.read_partition(partition, after_position, limit)
        )

    async def read_position(self, partition: int) -> int:
        return await self._databases.ask(partition, lambda each: each.read_position(partition))

    async def read_stream(
        self, stream: StreamKey, after_version: int, limit: int
    ) -> list[StoredCommit]:
        return await self._databases.ask(
            self._partition(stream[1]), lambda each: each.read_stream(stream, after_version, limit)
        )

    async def read_streams(self) -> list[StreamInfo]:
        answers = await self._databases.ask_all(lambda each: each.read_streams())
        # A database keeps the commits of partitions that have left it.
        found = [
            each
            for name, streams in answers
            for each in streams
            if self._databases.home(each.partition).name == name
        ]
        return sorted(found, key=lambda each: (each.aggregate_type, each.aggregate_id))

    async def read_rows(self, table: str, partition: int | None = None) -> list[dict[str, Value]]:
        key = table_named(self._tables, table).key
        if partition is not None:
            return await self._databases.ask(
                partition, lambda each: each.read_rows(table, partition)
            )
        answers = await self._databases.ask_all(lambda each: each.read_rows(table))
        found = [
            row
            for name, rows in answers
            for row in rows
            if self._databases.home(self._partition(str(row[key]))).name == name
        ]
        return sorted(found, key=lambda row: row[key])

    async def read_row(self, table: str, key: str) -> dict[str, Value] | None:
        table_named(self._tables, table)
        return await self._databases.ask(
            self._partition(key), lambda each: each.read_row(table, key)
        )

    async def read_places(self) -> list[PartitionPlace]:
        answers = await self._databases.ask_those_up(lambda each: each.read_places())
        found = {name: {each.partition: each for each in places} for name, places in answers}
        all_places: list[PartitionPlace] = []
        for number in range(self.partitions):
            home = self._databases.home(number)
            if home.name in found:
                place = found[home.name][number]
            else:
                location = self._databases.location_of(home.name)
                place = PartitionPlace(number, home.name, location, -1, -1, "")
            all_places.append(msgspec.structs.replace(place, moving_to=home.moving_to))
        return all_places

    async def load_snapshot(self, stream: StreamKey) -> StoredSnapshot | None:
        return await self._databases.ask(
            self._partition(stream[1]), lambda each: each.load_snapshot(stream)
        )

    async def read_snapshot_parts(
        self, stream: StreamKey, from_number: int, limit: int
    ) -> list[SnapshotPart]:
        return await self._databases.ask(
            self._partition(stream[1]),
            lambda each: each.read_snapshot_parts(stream, from_number, limit),
        )

    async def close(self) -> None:
        await self._databases.close()

    def _partition(self, aggregate_id: str) -> int:
        return partition_of(aggregate_id, self.partitions)


class SpreadReader(SpreadReads[MysqlReader]):
    """An EventReader of several databases. Made by `open`."""

    @classmethod
    async def open(cls, addresses: Sequence[MysqlAddress]) -> SpreadReader:
        """Raises what `Databases.open` and `MysqlReader.open` raise."""

        async def connect(address: MysqlAddress) -> MysqlReader:
            return await MysqlReader.open(address, several=True)

        return cls(await Databases.open(addresses, connect))


class SpreadStore(SpreadReads[MysqlStore]):
    """An EventStore over several databases, which `initialise_several` made. Made by `open`."""

    def __init__(self, databases: Databases[MysqlStore]) -> None:
        super().__init__(databases)
        self._generations: dict[tuple[str, str], int] = {}

    @classmethod
    async def open(
        cls,
        addresses: Sequence[MysqlAddress],
        *,
        partitions: int,
        tables: tuple[Table, ...] = (),
        strict: bool = True,
        clock: Clock | None = None,
        failpoint: Failpoint = no_failpoint,
    ) -> SpreadStore:
        """Raises what `Databases.open` and `MysqlStore.open` raise.

        One that does not answer is left out until it does; its partitions are unavailable.
        """

        async def connect(address: MysqlAddress) -> MysqlStore:
            return await MysqlStore.open(
                address,
                partitions=partitions,
                tables=tables,
                strict=strict,
                clock=clock,
                failpoint=failpoint,
                several=True,
            )

        return cls(await Databases.open(addresses, connect))

    @property
    def is_remote(self) -> bool:
        return True

    @property
    def commit_bytes_max(self) -> int:
        """What all take that have answered."""
        return min(each.commit_bytes_max for each in self._databases.up)

    async def acquire(self, partition: int, held: Lease | None = None) -> Lease:
        return await self._databases.act(partition, lambda each: each.acquire(partition, held))

    async def append(
        self,
        lease: Lease,
        commits: Sequence[NewCommit],
        steps: Sequence[Step] = (),
        at_us: int | None = None,
        source: Source | None = None,
    ) -> None:
        partition = lease.partition
        self._check_rows(partition, commits)
        home = self._databases.home(partition).name
        store = await self._databases.get(home)
        try:
            local = [await self._localise(home, store, each) for each in steps]
            await store.append(lease, commits, local, at_us, source)
        except StoreUnavailable:
            # One of them may have been built anew.
            self._generations.clear()
            raise
        except Fenced:
            # A move fences its owner too, who may go on where it went: `acquire` tells.
            mark = await store.read_mark(partition)
            if mark == home:
                raise
            raise Elsewhere(partition, mark) from None

    async def save_snapshot(
        self,
        snapshot: StoredSnapshot,
        parts: Sequence[SnapshotPart] = (),
        replaced: tuple[int, int] = ALL_PARTS,
    ) -> None:
        # In a database that the partition has left nobody reads it.
        partition = self._partition(snapshot.aggregate_id)
        store = await self._databases.get(self._databases.home(partition).name)
        await store.save_snapshot(snapshot, parts, replaced)

    async def _localise(self, home: str, store: MysqlStore, step: Step) -> Step:
        """A step of the live generation as its database numbers it; SpreadViews has numbers of its
        own."""
        key = (home, step.projection)
        if key not in self._generations:
            self._generations[key] = await store.live_generation(step.projection)
        return msgspec.structs.replace(step, generation=self._generations[key])

    def _check_rows(self, partition: int, commits: Sequence[NewCommit]) -> None:
        """A row is found, and moved, by its key, as its aggregate is by its id."""
        for commit in commits:
            for change in commit.changes:
                home = self._partition(change.key)
                if home != partition:
                    raise ProjectionDiverged(
                        commit.stream,
                        f"row {change.key!r} of {change.table} belongs to partition {home}, and its "
                        f"commit to partition {partition}: they may be in two databases",
                    )
