"""Moving a partition to another database of its store: fence, copy, compare, switch.

    mark      the old home raises the epoch and says where the partition goes: nobody may acquire it
    receive   the new home says where it comes from, under a token of this run
    clear     neither home feeds its read models, and the process managers of the old one stop
    copy      commits, rows, snapshots
    verify    every byte of them, in both
    tell      the other databases learn the new home
    claim     ONE transaction makes the new home the home, with the epoch, position, owner and source
              of before: from here on it may be acquired, there and nowhere else
    settle    the old home drops what is not history, and its mark

Cut off at any point, the same command goes on where it stopped; before `claim`, the command with the
old home as its target takes everything back.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Final, NamedTuple, TypeAlias

from engine.errors import ConfigError, StoreUnavailable
from engine.stores import move_read_models as read_models
from engine.stores import mysql_move_sql as sql
from engine.stores import mysql_sql
from engine.stores import mysql_views_sql as views_sql
from engine.stores.failpoint import Failpoint, no_failpoint
from engine.stores.layout import Layout, check_layout
from engine.stores.move_copy import Copy, Report
from engine.stores.mysql_connection import LOCK_WAIT_SECONDS, MysqlConnection
from engine.stores.mysql_places import read_member
from engine.stores.mysql_schema import read_layout
from engine.stores.mysql_server import MysqlServer, read_server
from engine.stores.mysql_url import MysqlAddress
from engine.stores.places import Member, check_members, find_home

logger = logging.getLogger(__name__)

STEPS: Final = (
    "mark",
    "receive",
    "clear",
    "copy",
    "verify",
    "tell",
    "claim",
    "settle",
)
"""The failpoint of a move is called after each of these."""

Outcome: TypeAlias = str


class _Place(NamedTuple):
    """One database, and a connection of this command alone."""

    name: str
    address: MysqlAddress
    connection: MysqlConnection
    server: MysqlServer
    layout: Layout


def quiet(_what: str, _done: int, _total: int) -> None:
    """Tell nobody how far it is."""


async def move_partition(
    addresses: Sequence[MysqlAddress],
    partition: int,
    to: str,
    report: Report = quiet,
    failpoint: Failpoint = no_failpoint,
) -> Outcome:
    """Move a partition to the database `to`: its name, or its URL without the password.

    Returns a sentence that says what was done. `report(what, done, total)` is called as it goes on. Raises ConfigError for a
    partition or database that is not there, SchemaMismatch, and StoreUnavailable when any of the
    databases does not answer, another move runs, or the copy is not the original; the partition then
    is where it was, or is being moved, and the same command goes on.
    """
    async with _open(addresses) as places:
        layout = next(iter(places.values())).layout
        if not 0 <= partition < layout.partitions:
            raise ConfigError(f"no partition {partition}: there are 0..{layout.partitions - 1}")
        target = _find(places, to)
        return await _Move(places, partition, report, failpoint).run(target)


class _Move:
    def __init__(
        self,
        places: Mapping[str, _Place],
        partition: int,
        report: Report,
        failpoint: Failpoint,
    ) -> None:
        self._places = places
        self._partition = partition
        self._report = report
        self._failpoint = failpoint
        self._token = uuid.uuid4().hex

    async def run(self, target: _Place) -> Outcome:
        await self._settle_claimed()
        marks = await self._marks()
        home = find_home(self._partition, marks)
        source = self._places[home.name]
        if home.moving_to and target is source:
            await self._undo(source, self._places[home.moving_to])
            return f"partition {self._partition} stays in {source.name}: the move was taken back"
        if home.moving_to and home.moving_to != target.name:
            raise ConfigError(
                f"partition {self._partition} is being moved from {source.name} to "
                f"{home.moving_to}: finish that with --to {home.moving_to}, or take it back with "
                f"--to {source.name}"
            )
        if target is source:
            return f"partition {self._partition} lives in {target.name}: there was nothing to do"
        await self._move(source, target)
        return f"partition {self._partition} moved from {source.name} to {target.name}"

    async def _move(self, source: _Place, target: _Place) -> None:
        partitions = source.layout.partitions
        await read_models.check_movable(source.connection)
        await read_models.check_movable(target.connection)
        await read_models.prepare_managers(source.connection, target.address, partitions)
        async with _nobody_rebuilds(source), _nobody_rebuilds(target):
            marks = await self._marks()
            if marks[source.name] == source.name:
                await self._change(source, sql.fence(self._partition, source.name, target.name))
            self._reached("mark")
            receive = sql.receive(self._partition, source.name, target.name, self._token)
            await self._change(target, receive)
            self._reached("receive")
            for place in (source, target):
                await read_models.clear(place.connection, self._partition, partitions)
            await read_models.stop_managers(source.connection, self._partition)
            self._reached("clear")
            row = (await source.connection.run(sql.read_row(self._partition))).rows[0]
            epoch, position, owner, broker, _ = row
            copy = Copy(
                *(source.connection, target.connection, target.server, source.layout),
                *(self._partition, position, self._report),
            )
            await copy.copy()
            self._reached("copy")
            await copy.verify()
            self._reached("verify")
            for place in self._places.values():
                if place not in (source, target):
                    await self._change(place, sql.mark(self._partition, target.name, ""))
            self._reached("tell")
            await self._claim(source, target, (epoch, position, owner, broker))
            self._reached("claim")
        await self._settle(source, target)

    async def _claim(self, source: _Place, target: _Place, row: tuple[int, int, str, str]) -> None:
        statements = [
            *await read_models.begin_again(target.connection, self._partition),
            *await read_models.take_along(source.connection, target.connection, self._partition),
        ]
        claim = sql.claim(self._partition, source.name, target.name, self._token, row)
        connection = target.connection
        _, claimed = await connection.run_all(["BEGIN", claim])
        if claimed.matched != 1:
            await connection.run("ROLLBACK")
            raise StoreUnavailable("another run of this command went on meanwhile")
        for statement in statements:
            await connection.run(statement)
        await connection.run("COMMIT")

    async def _settle(self, source: _Place, target: _Place) -> None:
        """Drop what only the home of a partition has, and its mark."""
        connection, partition = source.connection, self._partition
        copy = Copy(
            *(source.connection, target.connection, target.server, source.layout),
            *(partition, 0, self._report),
        )
        await copy.drop_at_source()
        await connection.run_all(
            [
                "BEGIN",
                *await read_models.leave(connection, partition),
                sql.mark(partition, target.name, ""),
                "COMMIT",
            ]
        )
        self._reached("settle")

    async def _settle_claimed(self) -> None:
        """Finish a move that was cut off after the partition had its new home."""
        marks = await self._marks()
        home = find_home(self._partition, marks)
        if home.moving_to == home.name:
            source = next(name for name, mark in marks.items() if mark.startswith(">"))
            logger.info("partition %d: finishing its move to %s", self._partition, home.name)
            await self._settle(self._places[source], self._places[home.name])

    async def _undo(self, source: _Place, target: _Place) -> None:
        """Give a partition back that was not claimed yet."""
        partition, partitions = self._partition, source.layout.partitions
        # First: a run that was given up for dead cannot claim it any more.
        given_up = sql.mark(partition, source.name, target.name)
        if (await target.connection.run(given_up)).matched != 1:
            raise StoreUnavailable("another run of this command went on meanwhile")
        self._reached("receive")
        for place in self._places.values():
            if place not in (source, target):
                await self._change(place, sql.mark(partition, source.name, ""))
        self._reached("tell")
        async with _nobody_rebuilds(source):
            await read_models.clear(source.connection, partition, partitions)
            self._reached("clear")
            await source.connection.run_all(
                [
                    "BEGIN",
                    *await read_models.begin_again(source.connection, partition),
                    *await read_models.let_managers_go_on(source.connection, partition),
                    sql.mark(partition, source.name, ""),
                    "COMMIT",
                ]
            )
        self._reached("settle")

    async def _change(self, place: _Place, statement: str) -> None:
        if (await place.connection.run(statement)).matched != 1:
            raise StoreUnavailable(f"{place.name} changed meanwhile; look with: seckill partitions")

    async def _marks(self) -> dict[str, str]:
        return {
            name: str((await each.connection.run(mysql_sql.read_mark(self._partition))).rows[0][1])
            for name, each in self._places.items()
        }

    def _reached(self, step: str) -> None:
        self._report(step, 1, 1)
        self._failpoint(step)


def _find(places: Mapping[str, _Place], to: str) -> _Place:
    for name, place in places.items():
        if to in (name, str(place.address)):
            return place
    known = ", ".join(f"{name} ({place.address})" for name, place in places.items())
    raise ConfigError(f"there is no database {to!r}; there is: {known}")


@asynccontextmanager
async def _open(addresses: Sequence[MysqlAddress]) -> AsyncIterator[dict[str, _Place]]:
    """Every database by name, for one move at a time."""
    members: dict[str, Member] = {}
    places: list[_Place] = []
    try:
        for address in addresses:
            connection = await MysqlConnection.open(address)
            try:
                layout = await read_layout(connection, address)
                server = await read_server(connection)
                member = await read_member(connection, address, several=True)
            except BaseException:
                connection.close()
                raise
            assert member is not None
            places.append(_Place(member.name, address, connection, server, layout))
            check_layout(layout, places[0].layout, str(address))
            members[str(address)] = member
        check_members(members, len(addresses))
        by_name = {each.name: each for each in sorted(places, key=lambda each: each.name)}
        for each in by_name.values():
            # Always in the order of their names, so that two moves never wait for each other.
            if (await each.connection.run(sql.lock(LOCK_WAIT_SECONDS))).rows[0][0] != 1:
                raise StoreUnavailable(f"another move is going on in {each.name}")
        yield by_name
    finally:
        # Which gives the locks back too.
        for each in places:
            each.connection.close()


@asynccontextmanager
async def _nobody_rebuilds(place: _Place) -> AsyncIterator[None]:
    """Keep new generations of read models from being made, which would feed from where it was."""
    taken = await place.connection.run(views_sql.lock(LOCK_WAIT_SECONDS))
    if taken.rows[0][0] != 1:
        raise StoreUnavailable(f"a read model is being built anew in {place.name}: try again")
    try:
        yield
    finally:
        if not place.connection.closed:
            await place.connection.run(views_sql.UNLOCK)
