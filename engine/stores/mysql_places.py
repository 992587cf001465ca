"""What a MySQL database knows of the other databases of its store, and how it comes to be one of them."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Final

import msgspec

from engine.errors import ConfigError
from engine.stores import mysql_sql as sql
from engine.stores.layout import Layout
from engine.stores.mysql_connection import MysqlConnection
from engine.stores.mysql_schema import initialise
from engine.stores.mysql_url import MysqlAddress
from engine.stores.places import (
    Elsewhere,
    Member,
    check_members,
    find_home,
    spread_evenly,
)

READ_MEMBER: Final = "SELECT name, value FROM meta WHERE name IN ('spread', 'place', 'places')"


async def find_member(connection: MysqlConnection) -> Member | None:
    """What the database is among several; None for one that is a store alone."""
    found = dict((await connection.run(READ_MEMBER)).rows)
    if "spread" not in found:
        return None
    names = msgspec.json.decode(found["places"], type=tuple[str, ...])
    return Member(found["spread"], found["place"], names)


async def read_member(
    connection: MysqlConnection, address: MysqlAddress, *, several: bool
) -> Member | None:
    """The same for one that must be one of several, or else must not. Raises ConfigError."""
    member = await find_member(connection)
    if several and member is None:
        raise ConfigError(
            f"{address} is not one of several databases yet; make it one with: seckill init, with "
            "the URLs of all of them"
        )
    if member is not None and not several:
        raise ConfigError(
            f"{address} is {member.name}, one of the databases of a store "
            f"({', '.join(member.names)}); name all of them: store.urls, or --store-url for each"
        )
    return member


async def initialise_several(
    addresses: Sequence[MysqlAddress], layout: Layout, *, strict: bool = True
) -> None:
    """Make the databases one store, or add those that are new to it; a part that is done is left.

    New ones share the partitions evenly. Where one was in use before, alone or with others, every
    partition stays where it is, and new databases are empty until some are moved to them. Raises
    ConfigError, SchemaMismatch and StoreUnavailable.
    """
    for address in addresses:
        await initialise(address, layout, strict=strict)
    async with AsyncExitStack() as opened:
        connections: dict[str, MysqlConnection] = {}
        for address in addresses:
            connection = await MysqlConnection.open(address)
            opened.callback(connection.close)
            if str(address) in connections:
                raise ConfigError(f"{address} is given twice")
            connections[str(address)] = connection
        await _join(connections, layout.partitions)


async def _join(connections: Mapping[str, MysqlConnection], partitions: int) -> None:
    members: dict[str, Member] = {}
    for place, connection in connections.items():
        if (member := await find_member(connection)) is not None:
            members[place] = member
    new = [place for place in connections if place not in members]
    used = [place for place in new if await _is_used(connections[place])]
    if len(used) + bool(members) > 1:
        raise ConfigError(
            f"{used[-1]} was in use as a store of its own and cannot be joined with "
            f"{used[0] if not members else next(iter(members))}"
        )
    spread, names = await _names(members, len(new))
    taken = {each.name for each in members.values()}
    free = iter([name for name in names if name not in taken])
    named = {place: next(free) for place in new}
    if members:
        homes = await _stored_homes(members, connections, partitions)
    elif used:
        homes = dict.fromkeys(range(partitions), named[used[0]])
    else:
        homes = spread_evenly(partitions, names)
    # One that was in use comes first: only by that it is told from one that is new.
    for place, name in sorted(named.items(), key=lambda each: each[0] not in used):
        await _make_member(connections[place], place, Member(spread, name, names), homes)
    for place, member in members.items():
        if member.names != names:
            text = sql.quote(msgspec.json.encode(names).decode())
            await connections[place].run(f"UPDATE meta SET value = {text} WHERE name = 'places'")


async def _names(members: Mapping[str, Member], new: int) -> tuple[str, tuple[str, ...]]:
    """The store's id, and the names of all of its databases, new ones included."""
    if not members:
        return uuid.uuid4().hex, tuple(f"db{number}" for number in range(1, new + 1))
    # One that was added last time, when the others were not told any more, knows the most.
    names = max((each.names for each in members.values()), key=len)
    more = new - (len(names) - len(members))
    names = (*names, *(f"db{len(names) + number}" for number in range(1, more + 1)))
    told = {place: Member(each.spread, each.name, names) for place, each in members.items()}
    check_members(told, len(members) + new)
    return next(iter(told.values())).spread, names


async def _stored_homes(
    members: Mapping[str, Member], connections: Mapping[str, MysqlConnection], partitions: int
) -> dict[int, str]:
    said = {
        member.name: dict((await connections[place].run(sql.READ_MARKS)).rows)
        for place, member in members.items()
    }
    homes: dict[int, str] = {}
    for number in range(partitions):
        marks = {name: marks[number] for name, marks in said.items()}
        home = find_home(number, marks)
        if home.moving_to:
            leaving = next(mark for mark in marks.values() if mark.startswith(">"))
            raise ConfigError(str(Elsewhere(number, leaving)))
        homes[number] = home.name
    return homes


async def _make_member(
    connection: MysqlConnection, place: str, member: Member, homes: Mapping[int, str]
) -> None:
    found = await find_member(connection)
    if found is not None:
        raise ConfigError(f"{place} is {found.name} already: the same database is given twice")
    marks = ", ".join(
        f"({number}, 0, 0, '', '', {sql.quote(home)})" for number, home in homes.items()
    )
    names = msgspec.json.encode(member.names).decode()
    values = (("spread", member.spread), ("place", member.name), ("places", names))
    meta = ", ".join(f"({sql.quote(name)}, {sql.quote(value)})" for name, value in values)
    await connection.run_all(
        [
            "BEGIN",
            f"INSERT INTO meta (name, value) VALUES {meta}",
            (
                "INSERT INTO partitions (partition_id, epoch, position, owner, source, place) "
                f"VALUES {marks} ON DUPLICATE KEY UPDATE place = VALUES(place)"
            ),
            "COMMIT",
        ]
    )


async def _is_used(connection: MysqlConnection) -> bool:
    """Whether anybody ever acquired one of its partitions."""
    return bool((await connection.run("SELECT MAX(epoch) FROM partitions")).rows[0][0])
