"""Several databases as one: which URL is which, who is down, and where each partition lives now."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final, Generic, Protocol, TypeVar

from engine.errors import ConfigError, SchemaMismatch, StoreUnavailable
from engine.stores.layout import Layout, check_layout
from engine.stores.mysql_url import MysqlAddress
from engine.stores.places import Home, Member, check_members, find_home

logger = logging.getLogger(__name__)

LOOKS_MAX: Final = 3
"""Times the map is read until it makes sense: databases are asked one after the other, and a move
may go on meanwhile."""

LOOK_SECONDS_MAX: Final = 5.0
"""One that hangs must not keep the partitions of the others from being looked for."""


class Database(Protocol):
    """One of several, opened. Every method raises StoreUnavailable."""

    @property
    def layout(self) -> Layout: ...

    @property
    def member(self) -> Member | None: ...

    async def read_marks(self) -> dict[int, str]:
        """What it says of where each partition lives."""

    async def read_mark(self, partition: int) -> str: ...

    async def close(self) -> None: ...


D = TypeVar("D", bound=Database)
T = TypeVar("T")


class _Link(Generic[D]):
    """One URL, and its database once it has answered."""

    def __init__(self, address: MysqlAddress, connect: Callable[[MysqlAddress], Awaitable[D]]):
        self.address = address
        self._connect = connect
        self._turn = asyncio.Lock()
        self.database: D | None = None
        self.name = ""

    async def get(self) -> D:
        """Raises StoreUnavailable while it does not answer, ConfigError and SchemaMismatch."""
        async with self._turn:
            if self.database is None:
                self.database = await self._connect(self.address)
                assert self.database.member is not None
                self.name = self.database.member.name
            return self.database

    async def close(self) -> None:
        if self.database is not None:
            await self.database.close()


class Databases(Generic[D]):
    """Every database of a store, the ones that are down too: those are tried again when they are
    asked for. Made by `open`."""

    def __init__(self, links: Sequence[_Link[D]], layout: Layout, member: Member) -> None:
        self._links = links
        self.layout = layout
        self._member = member
        self.spread = member.spread
        """What all of them have in common, and no others."""
        self.names = member.names
        self._homes: Mapping[int, Home] = {}
        self._looking = asyncio.Lock()
        self._looks = 0
        self._looked = 0
        self._closed = False

    @classmethod
    async def open(
        cls, addresses: Sequence[MysqlAddress], connect: Callable[[MysqlAddress], Awaitable[D]]
    ) -> Databases[D]:
        """Open all that answer, at least one.

        Raises ConfigError for one that is missing, foreign or given twice, SchemaMismatch when they
        differ about where a partition lives or are laid out differently, StoreUnavailable.
        """
        links = [_Link(each, connect) for each in addresses]
        try:
            outcomes = await asyncio.gather(*(each.get() for each in links), return_exceptions=True)
            down = [each for each in outcomes if isinstance(each, BaseException)]
            for error in down:
                if not isinstance(error, StoreUnavailable):
                    raise error
            if len(down) == len(links):
                raise down[0]
            for error in down:
                logger.warning("a database is left out until it answers: %s", error)
            up = [each for each in outcomes if not isinstance(each, BaseException)]
            members: dict[str, Member] = {}
            for link in links:
                if link.database is not None and link.database.member is not None:
                    if str(link.address) in members:
                        raise ConfigError(f"{link.address} is given twice")
                    members[str(link.address)] = link.database.member
            check_members(members, len(links))
            for each in up[1:]:
                check_layout(each.layout, up[0].layout, "one of the databases")
            databases = cls(links, up[0].layout, next(iter(members.values())))
            await databases.read_map()
        except BaseException:
            for link in links:
                await link.close()
            raise
        return databases

    @property
    def up(self) -> list[D]:
        """Those that have answered, in the order of their names."""
        found = {each.name: each.database for each in self._links if each.database is not None}
        return [each for name in self.names if (each := found.get(name)) is not None]

    @property
    def location(self) -> str:
        return ", ".join(str(each.address) for each in self._links)

    def location_of(self, name: str) -> str:
        """The URL of a database without its password; empty for one that never answered."""
        return next((str(each.address) for each in self._links if each.name == name), "")

    def home(self, partition: int) -> Home:
        """Where a partition lived when the map was read last."""
        if (home := self._homes.get(partition)) is None:
            raise ValueError(f"no partition {partition}: there are 0..{self.layout.partitions - 1}")
        return home

    async def get(self, name: str) -> D:
        """The database of that name. Raises StoreUnavailable while it does not answer."""
        for link in self._links:
            if link.name == name and link.database is not None:
                return link.database
        if self._closed:
            raise StoreUnavailable("the store is closed")
        # One that never answered may be it.
        unknown = [each for each in self._links if each.database is None]
        why = await asyncio.gather(*(self._reopen(each) for each in unknown))
        for link in unknown:
            if link.name == name and link.database is not None:
                return link.database
        raise StoreUnavailable(f"database {name} does not answer: {'; '.join(filter(None, why))}")

    async def _reopen(self, link: _Link[D]) -> str:
        """Try one that was down; return why it still is."""
        try:
            database = await link.get()
            taken = [each.name for each in self._links if each is not link and each.database]
            member = database.member
            same = member is not None and member.spread == self._member.spread
            if not same or link.name in taken or link.name not in self.names:
                await link.close()
                link.database = None
                raise ConfigError(f"{link.address} is not the database that is missing")
            check_layout(database.layout, self.layout, str(link.address))
            logger.info("database %s answers again", link.name)
        except (StoreUnavailable, ConfigError, SchemaMismatch) as error:
            return str(error)
        return ""

    async def read_map(self) -> None:
        """Learn where every partition lives, from all that answer.

        Raises SchemaMismatch, StoreUnavailable when none answers.
        """
        asked = self._looks
        async with self._looking:
            if self._looked > asked:
                # Somebody else looked, with success, and began after this was asked for.
                return
            self._looks += 1
            for look in range(LOOKS_MAX):
                said = await self._read_marks()
                try:
                    self._homes = {
                        number: find_home(
                            number, {name: marks[number] for name, marks in said.items()}
                        )
                        for number in range(self.layout.partitions)
                    }
                    self._looked = self._looks
                    return
                except SchemaMismatch:
                    if look == LOOKS_MAX - 1:
                        raise

    async def _read_marks(self) -> dict[str, dict[int, str]]:
        asked = [(each.name, each.database) for each in self._links if each.database is not None]
        answers = await asyncio.gather(
            *(asyncio.wait_for(each.read_marks(), LOOK_SECONDS_MAX) for _, each in asked),
            return_exceptions=True,
        )
        said: dict[str, dict[int, str]] = {}
        for (name, _), answer in zip(asked, answers, strict=True):
            if not isinstance(answer, BaseException):
                said[name] = answer
            elif not isinstance(answer, StoreUnavailable | TimeoutError):
                raise answer
        if not said:
            why = answers[0] if answers else "the store is closed"
            raise StoreUnavailable(f"none of the databases answers: {why}")
        return said

    async def ask(self, partition: int, question: Callable[[D], Awaitable[T]]) -> T:
        """Ask the database where a partition lives, and where it has moved to if it has meanwhile.

        Raises StoreUnavailable.
        """
        for _ in range(LOOKS_MAX):
            name = self.home(partition).name
            try:
                database = await self.get(name)
                answer = await question(database)
                # After it: what was read is true when the partition still lives there.
                if await database.read_mark(partition) == name:
                    return answer
            except StoreUnavailable:
                await self._look_again()
                if self.home(partition).name == name:
                    raise
                continue
            await self._look_again()
            if self.home(partition).name == name:
                # It is fenced there and claimed nowhere, so nothing is newer.
                return answer
        raise StoreUnavailable(f"partition {partition} moves too often")

    async def act(self, partition: int, action: Callable[[D], Awaitable[T]]) -> T:
        """The same for what a database refuses by itself (Elsewhere) when the partition is not there.

        Done twice only when it failed in a database where the partition does not live any more.
        """
        name = self.home(partition).name
        try:
            return await action(await self.get(name))
        except StoreUnavailable:
            await self._look_again()
            if self.home(partition).name == name:
                raise
        return await action(await self.get(self.home(partition).name))

    async def ask_all(self, question: Callable[[D], Awaitable[T]]) -> list[tuple[str, T]]:
        """Ask every database at once: (name, answer), true for what lived there all the while.

        Raises StoreUnavailable when one does not answer: the rest would not be all.
        """
        for _ in range(LOOKS_MAX):
            before = self._homes
            databases = await asyncio.gather(*(self.get(name) for name in self.names))
            answers = await asyncio.gather(*(question(each) for each in databases))
            await self._look_again()
            if {n: each.name for n, each in before.items()} == {
                n: each.name for n, each in self._homes.items()
            }:
                return list(zip(self.names, answers, strict=True))
        raise StoreUnavailable("partitions are being moved too often")

    async def ask_those_up(self, question: Callable[[D], Awaitable[T]]) -> list[tuple[str, T]]:
        """`ask_all` without those that do not answer. Raises StoreUnavailable when none does."""
        await self._look_again()
        answers = await asyncio.gather(*(self._try(name, question) for name in self.names))
        return [each for each in answers if each is not None]

    async def _try(self, name: str, question: Callable[[D], Awaitable[T]]) -> tuple[str, T] | None:
        try:
            return name, await question(await self.get(name))
        except StoreUnavailable as error:
            logger.debug("database %s is left out: %s", name, error)
            return None

    async def _look_again(self) -> None:
        """`read_map` of a store in use: what is wrong with it may be put right again."""
        try:
            await self.read_map()
        except SchemaMismatch as error:
            raise StoreUnavailable(str(error)) from error

    async def close(self) -> None:
        """Close all. Idempotent."""
        self._closed = True
        for link in self._links:
            await link.close()
