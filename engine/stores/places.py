"""Where each partition lives, when a store is several databases. Pure: no connection.

Every database keeps a mark for every partition, and only the one whose mark is its own name may be
written to. A partition that moves from `db1` to `db2` goes through these marks:

    step          db1     db2           others
    at rest       db1     db1           db1
    fenced        >db2    db1           db1       nobody may acquire it
    received      >db2    <db1 TOKEN    db1       its rows are copied and compared
    told          >db2    <db1 TOKEN    db2
    claimed       >db2    db2           db2       db2 may be acquired
    at rest       db2     db2           db2

A crash between any two leaves marks that say how far it came. The token is drawn by each run, so that
one that was given up for dead cannot claim later.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from engine.errors import ConfigError, SchemaMismatch, StoreUnavailable

LEAVING: Final = ">"
ARRIVING: Final = "<"


class Member(msgspec.Struct, frozen=True):
    """What a database says of itself: of which store it is one, its name there, everybody's names."""

    spread: str
    name: str
    names: tuple[str, ...]


class Home(msgspec.Struct, frozen=True):
    """The database where a partition lives, and where it is being moved to, if it is."""

    name: str
    moving_to: str = ""


class Elsewhere(StoreUnavailable):
    """A partition that does not live, or not any more, in the database that was asked."""

    def __init__(self, partition: int, mark: str) -> None:
        super().__init__(tell(partition, mark))
        self.partition = partition


def tell(partition: int, mark: str) -> str:
    """A mark in words."""
    if mark.startswith(LEAVING):
        to = target_of(mark)
        return (
            f"partition {partition} is being moved to {to}; if nobody is at it any more, finish it "
            f"with: seckill partitions move {partition} --to {to}"
        )
    if mark.startswith(ARRIVING):
        return f"partition {partition} is being moved here from {source_of(mark)}"
    if not mark:
        return f"partition {partition} is not spread over several databases yet: seckill init"
    return f"partition {partition} lives in {mark} now: nothing was written"


def leaving(target: str) -> str:
    return f"{LEAVING}{target}"


def arriving(source: str, token: str) -> str:
    return f"{ARRIVING}{source} {token}"


def target_of(mark: str) -> str:
    return mark.removeprefix(LEAVING)


def source_of(mark: str) -> str:
    return mark.removeprefix(ARRIVING).split(" ")[0]


def find_home(partition: int, said: Mapping[str, str]) -> Home:
    """Where a partition lives, by the mark of each database that answers.

    It may be one that does not answer. Raises SchemaMismatch, naming both sides, for marks that no
    move leaves behind.
    """
    claims = [name for name, mark in said.items() if mark == name]
    left = [name for name, mark in said.items() if mark.startswith(LEAVING)]
    if len(claims) > 1 or len(left) > 1:
        one, other = (claims if len(claims) > 1 else left)[:2]
        raise SchemaMismatch(
            f"{one} and {other} both say that partition {partition} is theirs: one of them was "
            "restored from before a move; nothing is written until it is clear which one is right"
        )
    if left:
        target = target_of(said[left[0]])
        if claims and claims != [target]:
            raise _differ(partition, {said[left[0]]: left[0], claims[0]: claims[0]})
        # One that does not answer may have claimed it.
        name = target if claims or target not in said else left[0]
        return Home(name, target)
    named = {mark: name for name, mark in said.items() if not mark.startswith(ARRIVING)}
    sources = {source_of(mark): name for name, mark in said.items() if mark.startswith(ARRIVING)}
    if claims:
        wrong = next((mark for mark in named if mark != claims[0]), None)
        if wrong is None:
            return Home(claims[0])
        raise _differ(partition, {wrong: named[wrong], claims[0]: claims[0]})
    # Nobody here claims it: only one that does not answer can.
    homes = (sources or named).keys() - said.keys()
    if len(homes) != 1 or (not sources and len(named) > 1):
        raise _differ(partition, named | sources)
    return Home(homes.pop())


def _differ(partition: int, named: Mapping[str, str]) -> SchemaMismatch:
    says = " and ".join(f"{name} says {mark or 'nothing'}" for mark, name in named.items())
    return SchemaMismatch(
        f"the databases differ about where partition {partition} lives: {says}; one of them was "
        "restored from another time, or is not one of this store"
    )


def check_members(members: Mapping[str, Member], count: int) -> tuple[str, ...]:
    """The names of all databases of a store, of which `members` answered, by their location.

    `count` URLs were given. Raises ConfigError for one that is given twice, left out or foreign,
    SchemaMismatch when they differ about who belongs together.
    """
    places: dict[str, str] = {}
    first_place, first = next(iter(members.items()))
    for place, member in members.items():
        if member.spread != first.spread:
            raise ConfigError(
                f"{place} and {first_place} are databases of two different stores (they call "
                f"themselves {member.name} and {first.name})"
            )
        if member.name in places:
            raise ConfigError(
                f"{place} and {places[member.name]} are the same database ({member.name}); it is "
                "given twice"
            )
        places[member.name] = place
        if member.names != first.names:
            raise SchemaMismatch(
                f"{first_place} belongs together with {_list(first.names)}, and {place} with "
                f"{_list(member.names)}; run seckill init with all of them again"
            )
    missing = [each for each in first.names if each not in places]
    if count < len(first.names):
        raise ConfigError(
            f"the store is {len(first.names)} databases ({_list(first.names)}) and {count} were "
            f"given; {_list(missing)} is missing" + (" or does not answer" * (len(members) < count))
        )
    if count > len(first.names):
        raise ConfigError(
            f"{count} databases were given and the store is {len(first.names)} "
            f"({_list(first.names)}); to add one: seckill init"
        )
    return first.names


def spread_evenly(partitions: int, names: Sequence[str]) -> dict[int, str]:
    """A home for every partition of a new store, in turn."""
    return {number: names[number % len(names)] for number in range(partitions)}


def _list(names: Sequence[str]) -> str:
    return ", ".join(names)
