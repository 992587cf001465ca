"""Where partitions live is looked up again whenever an answer might be of two times."""

from __future__ import annotations

import asyncio

import pytest

from engine.errors import StoreUnavailable
from engine.stores.databases import Databases
from engine.stores.layout import Layout
from engine.stores.mysql_url import MysqlAddress, parse_mysql_url
from engine.stores.places import Member
from engine.testing.virtual_clock import settle

NAMES = ("db1", "db2")


class World:
    """What the databases hold: partition 0, and its row, in one of them. A look waits for `gate`, if
    there is one, and then fails."""

    def __init__(self) -> None:
        self.home = "db1"
        self.gate: asyncio.Event | None = None
        self.looks = 0

    async def open(self) -> Databases[Place]:
        addresses = [parse_mysql_url(f"mysql://shop@host/{name}") for name in NAMES]
        return await Databases.open(addresses, self._connect)

    async def _connect(self, address: MysqlAddress) -> Place:
        return Place(self, address.database)


class Place:
    """One of the databases."""

    def __init__(self, world: World, name: str) -> None:
        self.layout = Layout(1, ())
        self.member = Member("store", name, NAMES)
        self.name = name
        self._world = world

    async def read_marks(self) -> dict[int, str]:
        self._world.looks += 1
        if (gate := self._world.gate) is not None:
            await gate.wait()
            raise StoreUnavailable("injected: a moment without network")
        return {0: self._world.home}

    async def read_mark(self, partition: int) -> str:
        return self._world.home

    async def rows(self) -> list[str]:
        return ["row"] if self._world.home == self.name else []

    async def close(self) -> None:
        pass


async def test_who_waited_behind_a_look_that_failed_looks_for_itself() -> None:
    world = World()
    databases = await world.open()
    moved = asyncio.Event()

    async def question(place: Place) -> list[str]:
        # One is asked before the partition comes to it, the other one after it went.
        if place.name == "db1":
            await moved.wait()
        return await place.rows()

    asking = asyncio.create_task(databases.ask_all(question))
    await settle()
    world.gate = asyncio.Event()
    others = [asyncio.create_task(databases.read_map()) for _ in range(2)]
    await settle()
    world.home = "db2"
    moved.set()
    await settle()
    # Now it waits for its turn, too; the look before it fails, and so does the next.
    world.gate.set()
    for each in others:
        with pytest.raises(StoreUnavailable):
            await each
    with pytest.raises(StoreUnavailable):
        await asking
    world.gate = None
    assert dict(await databases.ask_all(question)) == {"db1": [], "db2": ["row"]}


async def test_many_who_wait_share_one_look_that_began_after_they_asked() -> None:
    world = World()
    databases = await world.open()
    world.looks = 0
    await asyncio.gather(*(databases.read_map() for _ in range(20)))
    # The first one's, and that of all others: each is a question to both databases.
    assert world.looks == 2 * 2
