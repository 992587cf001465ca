"""The read model port: tables for questions, and how far in the events each of them is.

A projection's rows and its checkpoint change in one transaction, so that every event counts once,
whatever crashes between any two steps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple, Protocol, TypeAlias

import msgspec

from engine.cqrs.event_store import Value
from engine.errors import StreamKey


class ReadTable(msgspec.Struct, frozen=True):
    """A table of a read model: the key's columns are texts or numbers like any others.

    Where a store is several databases, the key begins with the id of the aggregate that a row is of.
    `numbers` are whole numbers of 64 bits, `texts` have up to 64 characters. Every index is a
    tuple of columns.
    """

    name: str
    key: tuple[str, ...]
    texts: tuple[str, ...]
    numbers: tuple[str, ...]
    indexes: tuple[tuple[str, ...], ...] = ()

    @property
    def columns(self) -> tuple[str, ...]:
        """Every column, the key's first."""
        rest = [each for each in (*self.texts, *self.numbers) if each not in self.key]
        return (*self.key, *rest)


class Put(NamedTuple):
    """Write whole rows, values in the order of the table's columns; an older row is replaced."""

    table: str
    rows: Sequence[Sequence[Value]]


class Patch(NamedTuple):
    """Set `columns` of rows that are there; a row is (key values, then the columns' values)."""

    table: str
    columns: tuple[str, ...]
    rows: Sequence[Sequence[Value]]


class Tally(NamedTuple):
    """Add to `columns`, numbers all; a row that is not there begins at 0. Rows as in Patch."""

    table: str
    columns: tuple[str, ...]
    rows: Sequence[Sequence[Value]]


Write: TypeAlias = Put | Patch | Tally


class Progress(msgspec.Struct, frozen=True):
    """How far one projection is in one partition.

    `position` is that of the last commit it has taken in. `revision` is raised whenever a dead
    letter is settled, so that whoever decided on the letters of before writes nothing.
    """

    position: int
    revision: int = 0


WAITS: Final = "waits: "
"""How the reason of a letter begins that is poison to nobody: it waits for another partition."""


class DeadLetter(msgspec.Struct, frozen=True):
    """A commit that a projection could not take in, or that stands behind such a one of its stream.

    The event store keeps the events; this only names them. `reason` is empty for a successor.
    """

    partition: int
    position: int
    aggregate_type: str
    aggregate_id: str
    reason: str

    @property
    def stream(self) -> StreamKey:
        return (self.aggregate_type, self.aggregate_id)

    @property
    def is_waiting(self) -> bool:
        """Whether it goes on by itself."""
        return self.reason.startswith(WAITS)


class Step(msgspec.Struct, frozen=True):
    """What one transaction brings: rows of `tables`, the new progress, dead letters.

    `settled` are the positions of letters that are dead no more; `letters` are the new ones.
    """

    projection: str
    generation: int
    partition: int
    expected: Progress
    reached: Progress
    tables: Sequence[ReadTable] = ()
    writes: Sequence[Write] = ()
    letters: Sequence[DeadLetter] = ()
    settled: Sequence[int] = ()


class Select(msgspec.Struct, frozen=True):
    """A question to one table: rows whose columns equal, and at most one that is at most, a value.

    `order_by` should be an index that begins with the columns of `equal`. The first `skip` rows are
    left out; they are read all the same, so it is for small numbers.
    """

    table: str
    equal: Mapping[str, Value] = {}
    at_most: tuple[str, int] | None = None
    order_by: tuple[str, ...] = ()
    descending: bool = False
    limit: int = 100
    skip: int = 0


class ReadStore(Protocol):
    """Where read models live. Every method raises StoreUnavailable when it cannot be done now.

    A projection is built in generations: the live one answers questions, a younger one may be under
    construction beside it (a rebuild). A table is read under its own name, whatever the generation.
    """

    async def prepare(self, projection: str, tables: Sequence[ReadTable], partitions: int) -> int:
        """Return the live generation, made empty when there is none. Raises SchemaMismatch when
        its tables are others than these: it must be rebuilt."""

    async def draft(self, projection: str, tables: Sequence[ReadTable], partitions: int) -> int:
        """Begin a new, empty generation beside the live one, dropping an unfinished draft."""

    async def promote(self, projection: str, generation: int) -> None:
        """Make a draft the live generation and drop the old one, at once for every reader.

        Raises StoreUnavailable when it is no draft: another one was begun meanwhile.
        """

    async def progress(self, projection: str, generation: int, partition: int) -> Progress | None:
        """How far it is; None when that generation is gone."""

    async def advance(self, step: Step) -> bool:
        """Do all of a step in one transaction when the progress is still `expected`, else nothing.

        False: somebody else has moved on. Raises ValueError when the rows themselves cannot be
        written; then nothing was.
        """

    async def dead_letters(
        self, projection: str, generation: int, partition: int | None = None
    ) -> list[DeadLetter]:
        """The dead letters of a generation, by partition and position."""

    async def select(self, query: Select) -> list[dict[str, Value]]:
        """The rows a query asks for. Raises ValueError for a column that is not there."""

    async def close(self) -> None:
        """Give everything back. Idempotent."""


def by_database(views: ReadStore) -> tuple[ReadStore, ...]:
    """The databases of a store that is several, each by itself; else the store alone.

    For work that goes on in the others when one of them is down.
    """
    parts: tuple[ReadStore, ...] = getattr(views, "parts", (views,))
    return parts


class LiveModel(msgspec.Struct, frozen=True):
    """The live generation of a projection: its tables, dead letters and how far it is.

    `reached` names the last commit taken in of each partition.
    """

    generation: int
    tables: tuple[ReadTable, ...]
    reached: Mapping[int, int]
    letters: tuple[DeadLetter, ...]


class ReadModelSnapshot(Protocol):
    """Read models as they were at one moment: rows, checkpoints and dead letters that belong together.

    Whoever feeds them goes on meanwhile, and nothing is made or changed. It is for checking them;
    programs ask a ReadStore. Every method raises StoreUnavailable when it cannot be done now.
    """

    @property
    def location(self) -> str:
        """Where they are, without any password."""

    async def live(self, projection: str) -> LiveModel | None:
        """The live generation of a projection, None when there is none."""

    async def page(
        self, model: LiveModel, table: ReadTable, after: Sequence[Value], limit: int
    ) -> list[dict[str, Value]] | None:
        """Up to `limit` rows of a table by key, those behind the key `after` (empty: the first).

        None when a rebuild has replaced rows meanwhile, and those of that moment are gone.
        """

    async def close(self) -> None:
        """Give everything back. Idempotent."""
