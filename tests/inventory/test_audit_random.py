"""Random sales: every honest one is cleared, every single corruption of one is found."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import msgspec
import pytest
from hypothesis import given as forall
from hypothesis import settings
from hypothesis import strategies as st

from engine.cqrs.messages import Command
from engine.inventory.commands import OpenSale, Reserve
from engine.inventory.history import History
from tests.inventory.proving import CHECKS, prove, red
from tests.inventory.sales import Books, hold_sale, sales

Events: TypeAlias = list[dict[str, Any]]
Place: TypeAlias = tuple[int, int]
"""Partition, and index of a commit in it."""
Corrupt: TypeAlias = Callable[[Books, st.DataObject], None]

SKUS = ("SHOE", "SOCK")


@st.composite
def held_sales(draw: st.DrawFn, busy: bool = False) -> tuple[Books, History]:
    """A whole sale of two SKUs in two partitions, in random batches, and its history.

    A `busy` one has at least two commits and an order in each partition.
    """
    first: list[Command] = []
    if busy:
        first += [OpenSale(f"open-{sku}", sku, 12, draw(st.integers(0, 5))) for sku in SKUS]
        first += [Reserve(f"first-{sku}", sku, "a", 1) for sku in SKUS]
    asked = first + draw(sales(*SKUS))
    cuts = draw(st.sets(st.integers(1, max(1, len(asked)))))
    inside = {cut for cut in cuts if cut < len(asked)} | ({len(SKUS)} if busy else set())
    return hold_sale(asked, sorted(inside), SKUS.index, partitions=2)


@forall(held_sales())
def test_every_honest_sale_is_cleared(sale: tuple[Books, History]) -> None:
    books, history = sale
    report = prove(books, history)
    assert red(report) == set()
    acknowledged = [each for each in history.orders.values() if each.answer == "ok"]
    units = report.units
    reserved = units.final + units.held + units.paid + units.given_back
    assert reserved == sum(each.quantity for each in acknowledged)
    assert report.checks[CHECKS.index("acknowledged")].checked == len(acknowledged)


# -- corruptions; checksums are made right again, but for the flipped bit


def flip_a_bit(books: Books, data: st.DataObject) -> None:
    partition, index = pick(books, data)
    commit = books.commits[partition][index]
    flipped = bytearray(commit.events)
    flipped[data.draw(st.integers(0, len(flipped) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    books.falsify(index, partition, events=bytes(flipped), checksum=commit.checksum)


def drop_a_commit(books: Books, data: st.DataObject) -> None:
    partition, index = pick(books, data)
    del books.commits[partition][index]


def swap_two_commits(books: Books, data: st.DataObject) -> None:
    partition, index = pick(books, data)
    stored = books.commits[partition]
    other = (index + data.draw(st.integers(1, len(stored) - 1))) % len(stored)
    one, two = stored[index], stored[other]
    stored[index] = msgspec.structs.replace(two, position=one.position)
    stored[other] = msgspec.structs.replace(one, position=two.position)


def change_a_row(books: Books, data: st.DataObject) -> None:
    row = books.rows[data.draw(st.sampled_from(SKUS))]
    column = data.draw(st.sampled_from(sorted(row)))
    value = row[column]
    row[column] = value + data.draw(st.integers(1, 3)) if isinstance(value, int) else value + "x"


def drop_a_row(books: Books, data: st.DataObject) -> None:
    del books.rows[data.draw(st.sampled_from(SKUS))]


def drop_an_event(books: Books, data: st.DataObject) -> None:
    place = pick(books, data)
    events = events_at(books, place)
    del events[data.draw(st.integers(0, len(events) - 1))]
    rewrite(books, data, place, events)


def repeat_an_event(books: Books, data: st.DataObject) -> None:
    place = pick(books, data)
    events = events_at(books, place)
    rewrite(books, data, place, [*events, data.draw(st.sampled_from(events))])


def changing(field: str, change: Callable[[Any], Any], kind: str = "") -> Corrupt:
    """Change one field of one event that has it; `kind` begins the type of the event."""

    def corrupt(books: Books, data: st.DataObject) -> None:
        having = [
            (place, number)
            for place in places(books)
            for number, event in enumerate(events_at(books, place))
            if field in event and event["type"].startswith(kind)
        ]
        place, number = data.draw(st.sampled_from(having))
        events = events_at(books, place)
        events[number][field] = change(events[number][field])
        rewrite(books, data, place, events)

    return corrupt


def places(books: Books) -> list[Place]:
    return [(p, i) for p, stored in enumerate(books.commits) for i in range(len(stored))]


def pick(books: Books, data: st.DataObject) -> Place:
    return data.draw(st.sampled_from(places(books)))


def events_at(books: Books, place: Place) -> Events:
    events: Events = msgspec.json.decode(books.commits[place[0]][place[1]].events)
    return events


def rewrite(books: Books, data: st.DataObject, place: Place, events: Events) -> None:
    """Store other events in a commit, and perhaps set every position and version right after."""
    books.falsify(place[1], place[0], events=msgspec.json.encode(events))
    if data.draw(st.sampled_from([False, True])):
        books.renumber()


CORRUPTIONS: dict[str, Corrupt] = {
    "flip a bit": flip_a_bit,
    "drop a commit": drop_a_commit,
    "swap two commits": swap_two_commits,
    "change a row": change_a_row,
    "drop a row": drop_a_row,
    "drop an event": drop_an_event,
    "repeat an event": repeat_an_event,
    "sell more": changing("quantity", lambda value: value + 1),
    "put more on sale": changing("stock", lambda value: value + 1),
    "raise the limit": changing("limit_per_buyer", lambda value: value + 1),
    "change a type": changing("type", lambda value: value.replace(".1", ".9")),
    "change a buyer": changing("buyer", lambda value: f"{value}x"),
    "change an order's id": changing("command_id", lambda value: f"{value}x", kind="reserved"),
}


@pytest.mark.parametrize("corruption", CORRUPTIONS)
@settings(max_examples=50)
@forall(sale=held_sales(busy=True), data=st.data())
def test_every_single_corruption_is_found(
    corruption: str, sale: tuple[Books, History], data: st.DataObject
) -> None:
    books, history = sale
    CORRUPTIONS[corruption](books, data)
    assert not prove(books, history).ok
