"""Read models over several databases: the rows of a partition live in the database of its events.

Each database numbers its generations by itself. A number that is given out here stands for one of
each, and means nothing to another process, which asks for its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from heapq import merge
from itertools import islice
from typing import Any, Final

import msgspec

from engine.cqrs.event_store import Value
from engine.cqrs.partitioning import partition_of
from engine.cqrs.query_side.read_model import (
    DeadLetter,
    Progress,
    ReadStore,
    ReadTable,
    Select,
    Step,
)
from engine.errors import StoreUnavailable
from engine.stores.databases import Databases
from engine.stores.layout import Layout
from engine.stores.mysql_read import MysqlReader
from engine.stores.mysql_url import MysqlAddress
from engine.stores.mysql_views import MysqlViews
from engine.stores.places import Member
from engine.stores.read_tables import check_read_tables, check_select

FIRST_NUMBER: Final = 1 << 40
"""Numbers given out for databases that differ; no database comes that far."""


class _Place:
    """The read models of one database, with a connection of its own to look where partitions live."""

    def __init__(self, reader: MysqlReader, views: MysqlViews) -> None:
        self._reader = reader
        self.views = views
        self.read_marks = reader.read_marks
        self.read_mark = reader.read_mark

    @classmethod
    async def open(cls, address: MysqlAddress) -> _Place:
        reader = await MysqlReader.open(address, several=True)
        try:
            return cls(reader, await MysqlViews.open(address))
        except BaseException:
            await reader.close()
            raise

    @property
    def layout(self) -> Layout:
        return self._reader.layout

    @property
    def member(self) -> Member | None:
        return self._reader.member

    @property
    def name(self) -> str:
        assert self.member is not None
        return self.member.name

    async def close(self) -> None:
        await self.views.close()
        await self._reader.close()


class SpreadViews:
    """A ReadStore over several databases. Made by `open`."""

    def __init__(self, databases: Databases[_Place]) -> None:
        self._databases = databases
        self._tables: dict[str, ReadTable] = {}
        self._numbers: dict[tuple[str, tuple[int | None, ...]], int] = {}
        self._generations: dict[tuple[str, int], Mapping[str, int | None]] = {}

    @classmethod
    async def open(cls, addresses: Sequence[MysqlAddress]) -> SpreadViews:
        """Raises what `Databases.open` and `MysqlReader.open` raise."""
        return cls(await Databases.open(addresses, _Place.open))

    @property
    def parts(self) -> tuple[ReadStore, ...]:
        """The read models of each database by themselves; see `by_database`."""
        return tuple(_Part(self, name) for name in self._databases.names)

    async def prepare(self, projection: str, tables: Sequence[ReadTable], partitions: int) -> int:
        """One that is down is left out, and in the number: it is prepared when it is asked again."""
        self._tables |= check_read_tables(tables)
        found = await asyncio.gather(
            *(self._prepare(name, projection, tables, partitions) for name in self._databases.names)
        )
        if not any(isinstance(each, int) for each in found):
            raise StoreUnavailable(f"none of the databases answers: {found[0]}")
        return self._number(projection, [each if isinstance(each, int) else None for each in found])

    async def _prepare(
        self, name: str, projection: str, tables: Sequence[ReadTable], partitions: int
    ) -> int | StoreUnavailable:
        try:
            place = await self._databases.get(name)
            return await place.views.prepare(projection, tables, partitions)
        except StoreUnavailable as error:
            return error

    async def draft(self, projection: str, tables: Sequence[ReadTable], partitions: int) -> int:
        self._tables |= check_read_tables(tables)
        places = await self._all()
        drafts = await asyncio.gather(
            *(each.views.draft(projection, tables, partitions) for each in places)
        )
        return self._number(projection, drafts)

    async def promote(self, projection: str, generation: int) -> None:
        """In one database after the other: each is whole, before and after."""
        numbers = self._generations.get((projection, generation), {})
        for place in await self._all():
            number = numbers.get(place.name)
            if number is None:
                raise StoreUnavailable(f"another rebuild of {projection} began; try again")
            await place.views.promote(projection, number)

    async def progress(self, projection: str, generation: int, partition: int) -> Progress | None:
        if not 0 <= partition < self._databases.layout.partitions:
            return None
        found = await self._databases.ask(
            partition,
            lambda each: each.views.progress(
                projection, self._local(projection, generation, each), partition
            ),
        )
        if found is None and (home := self._databases.home(partition)).moving_to:
            raise StoreUnavailable(f"partition {partition} is being moved to {home.moving_to}")
        return found

    async def advance(self, step: Step) -> bool:
        # A database that the partition leaves has no checkpoint of it to move, from "clear" on.
        place = await self._databases.get(self._databases.home(step.partition).name)
        generation = self._local(step.projection, step.generation, place)
        return await place.views.advance(msgspec.structs.replace(step, generation=generation))

    async def dead_letters(
        self, projection: str, generation: int, partition: int | None = None
    ) -> list[DeadLetter]:
        if partition is not None:
            return await self._databases.ask(
                partition,
                lambda each: each.views.dead_letters(
                    projection, self._local(projection, generation, each), partition
                ),
            )
        # Whoever looks for what waits for a database looks when that is down.
        answers = await self._databases.ask_those_up(
            lambda each: each.views.dead_letters(
                projection, self._local(projection, generation, each)
            )
        )
        letters = [
            each
            for name, found in answers
            for each in found
            if self._databases.home(each.partition).name == name
        ]
        return sorted(letters, key=lambda each: (each.partition, each.position))

    async def select(self, query: Select) -> list[dict[str, Value]]:
        """Ask one database when the query names an aggregate, the first column of the key; else all,
        and merge in order.

        Raises StoreUnavailable also while a partition that is asked for moves: its rows are nowhere.
        """
        table = self._table(query)
        aggregate = query.equal.get(table.key[0])
        if isinstance(aggregate, str):
            partition = partition_of(aggregate, self._databases.layout.partitions)
            found = await self._databases.ask(partition, lambda each: each.views.select(query))
            self._check_at_rest(partition)
            return found
        # What is skipped of all may be in any one of them.
        first = msgspec.structs.replace(query, limit=query.limit + query.skip, skip=0)
        answers = await self._databases.ask_all(lambda each: each.views.select(first))
        for partition in range(self._databases.layout.partitions):
            self._check_at_rest(partition)
        order = query.order_by or table.key

        def place_of(row: dict[str, Value]) -> tuple[Any, ...]:
            return tuple(row[name] for name in order)

        rows = merge(*(found for _, found in answers), key=place_of, reverse=query.descending)
        return list(islice(rows, query.skip, query.skip + query.limit))

    async def close(self) -> None:
        await self._databases.close()

    async def select_in(self, name: str, query: Select) -> list[dict[str, Value]]:
        """The rows of one database."""
        self._table(query)
        return await (await self._databases.get(name)).views.select(query)

    def _check_at_rest(self, partition: int) -> None:
        home = self._databases.home(partition)
        # Once it is claimed its rows are folded again, which shows as lag.
        if home.moving_to not in ("", home.name):
            raise StoreUnavailable(f"partition {partition} is being moved to {home.moving_to}")

    def _table(self, query: Select) -> ReadTable:
        table = self._tables.get(query.table)
        if table is None:
            raise ValueError(f"there is no table {query.table!r}; there is: {list(self._tables)}")
        check_select(table, query)
        return table

    async def _all(self) -> list[_Place]:
        return [await self._databases.get(name) for name in self._databases.names]

    def _number(self, projection: str, generations: Sequence[int | None]) -> int:
        """A number for one generation of each database: theirs when they agree."""
        key = (projection, tuple(generations))
        if (number := self._numbers.get(key)) is None:
            first = generations[0]
            same = first is not None and len(set(generations)) == 1
            number = first if same and first is not None else FIRST_NUMBER + len(self._numbers)
            self._numbers[key] = number
            names = self._databases.names
            self._generations[projection, number] = dict(zip(names, generations, strict=True))
        return number

    def _local(self, projection: str, generation: int, place: _Place) -> int:
        """That of one database, 0 for a number that was not given out."""
        numbers = self._generations.get((projection, generation))
        number = 0 if numbers is None else numbers.get(place.name)
        if number is None:
            raise StoreUnavailable(f"database {place.name} was down when {projection} was prepared")
        return number


class _Part:
    """A ReadStore of one of several databases: its own rows, and everything else as ever."""

    def __init__(self, views: SpreadViews, name: str) -> None:
        self._views = views
        self._name = name
        self.prepare = views.prepare
        self.draft = views.draft
        self.promote = views.promote
        self.progress = views.progress
        self.advance = views.advance
        self.dead_letters = views.dead_letters

    async def select(self, query: Select) -> list[dict[str, Value]]:
        return await self._views.select_in(self._name, query)

    async def close(self) -> None:
        """Nothing: the whole of it is closed by who opened it."""
