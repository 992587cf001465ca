"""The rows of the inline tables, as the last durable transaction left them. Memory only.

A page or a gate that shows the stock of every SKU must not ask the database for it four times a
second. The row changes of a commit are known here anyway, so they are made once more in memory, and
only after they are durable.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

from engine.cqrs.event_store import EventReader, NewCommit, RowChange, Table, Value
from engine.cqrs.partitioning import partition_of
from engine.errors import StoreUnavailable

logger = logging.getLogger(__name__)

RowKey = tuple[str, str]
"""(table, key)"""

Row = dict[str, Value]


class LiveRows:
    """Fed by the partitions of this process; by their owners, `put` by `put`, where they are elsewhere."""

    def __init__(self) -> None:
        self._tables: dict[str, dict[str, Row]] = {}
        self._key_columns: dict[str, str] = {}
        self._watchers: list[tuple[set[RowKey], Callable[[], None]]] = []

    async def load(
        self,
        reader: EventReader,
        tables: Iterable[Table],
        wanted: Callable[[RowKey], bool] = lambda _: True,
        partition: int | None = None,
    ) -> None:
        """Read what is there, of the `wanted` rows, of one partition or of all. Call it while nobody
        writes them.

        Raises StoreUnavailable.
        """
        for table in tables:
            rows = await reader.read_rows(table.name, partition)
            self._key_columns[table.name] = table.key
            known = self._tables.setdefault(table.name, {})
            found = {str(row[table.key]): row for row in rows}
            for key in [each for each in known if each not in found and wanted((table.name, each))]:
                del known[key]
            new = {key: row for key, row in found.items() if wanted((table.name, key))}
            changed = [(table.name, key) for key, row in new.items() if known.get(key) != row]
            known.update(new)
            self._tell(changed)

    async def load_what_answers(
        self, reader: EventReader, tables: Sequence[Table], wanted: Callable[[RowKey], bool]
    ) -> None:
        """`load`, without the partitions whose database is down: their rows stay as they are known.

        Raises StoreUnavailable when none can be read.
        """
        try:
            await self.load(reader, tables, wanted)
        except StoreUnavailable:
            alone = [
                self._load_partition(reader, tables, wanted, each)
                for each in range(reader.partitions)
            ]
            if not any([await each for each in alone]):
                raise

    async def _load_partition(
        self,
        reader: EventReader,
        tables: Sequence[Table],
        wanted: Callable[[RowKey], bool],
        partition: int,
    ) -> bool:
        def is_its_own(row: RowKey) -> bool:
            return wanted(row) and partition_of(row[1], reader.partitions) == partition

        try:
            await self.load(reader, tables, is_its_own, partition)
        except StoreUnavailable as error:
            logger.debug("the rows of partition %d may be old: %s", partition, error)
            return False
        return True

    def put(self, table: str, rows: Iterable[Row]) -> None:
        """Take rows as their owner shows them, in place of what is known."""
        key_column = self._key_columns[table]
        found = {str(row[key_column]): row for row in rows}
        self._tables[table].update(found)
        self._tell([(table, key) for key in found])

    def table(self, name: str) -> Mapping[str, Row]:
        """The rows of a table by key; do not change them."""
        return self._tables[name]

    def watch(self, news: Callable[[], None] | None = None) -> set[RowKey]:
        """A set that every changed row is put into from now on; the watcher empties it.

        `news` is called after each transaction that changed any.
        """
        changed: set[RowKey] = set()
        self._watchers.append((changed, news or _nobody_waits))
        return changed

    def unwatch(self, changed: set[RowKey]) -> None:
        self._watchers = [each for each in self._watchers if each[0] is not changed]

    def note_durable(self, commits: Sequence[NewCommit]) -> None:
        """Make the row changes of commits that are stored."""
        keys: list[RowKey] = []
        for commit in commits:
            for change in commit.changes:
                self._change(change)
                keys.append((change.table, change.key))
        self._tell(keys)

    def _tell(self, keys: Collection[RowKey]) -> None:
        if keys:
            for changed, news in self._watchers:
                changed.update(keys)
                try:
                    news()
                except Exception:
                    # Who watches must not stop who sells.
                    logger.exception("somebody who watches the stock failed")

    def _change(self, change: RowChange) -> None:
        rows = self._tables[change.table]
        row = {} if change.insert else dict(rows[change.key])
        for name, units in change.add.items():
            row[name] = int(row[name]) + units
        row.update(change.put)
        row[self._key_columns[change.table]] = change.key
        # A new one, so that whoever holds the old one does not see it change.
        rows[change.key] = row


def _nobody_waits() -> None:
    """The watcher looks by itself."""
