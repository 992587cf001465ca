"""Where a partition lives, by what its databases say: one, or none, and never two."""

from __future__ import annotations

import itertools

import pytest

from engine.errors import ConfigError, SchemaMismatch
from engine.stores.places import Home, Member, arriving, check_members, find_home, leaving

AT_REST, MOVED = (
    dict.fromkeys(("db1", "db2", "db3"), "db1"),
    dict.fromkeys(("db1", "db2", "db3"), "db2"),
)
GONE = leaving("db2")
COMING = arriving("db1", "0123")

STEPS = [
    (AT_REST, Home("db1")),
    ({"db1": GONE, "db2": "db1", "db3": "db1"}, Home("db1", "db2")),
    ({"db1": GONE, "db2": COMING, "db3": "db1"}, Home("db1", "db2")),
    ({"db1": GONE, "db2": COMING, "db3": "db2"}, Home("db1", "db2")),
    ({"db1": GONE, "db2": "db2", "db3": "db2"}, Home("db2", "db2")),
    (MOVED, Home("db2")),
]
"""Every state that a move leaves behind when it is cut off, and where the partition is read."""


@pytest.mark.parametrize(("said", "home"), STEPS)
def test_after_each_step_of_a_move_one_database_is_the_home(
    said: dict[str, str], home: Home
) -> None:
    assert find_home(0, said) == home
    # At most one may be acquired, and then it is the home.
    assert [name for name, mark in said.items() if mark == name] in ([], [home.name])


@pytest.mark.parametrize(("said", "home"), STEPS)
@pytest.mark.parametrize("down", ["db1", "db2", "db3"])
def test_with_one_database_down_nobody_else_is_taken_for_the_home(
    said: dict[str, str], home: Home, down: str
) -> None:
    rest = {name: mark for name, mark in said.items() if name != down}
    found = find_home(0, rest).name
    # The true one; or, where that cannot be told, one that does not answer.
    assert found in (home.name, down)
    if home.name == down:
        assert found == down


def test_two_that_both_claim_a_partition_are_both_named() -> None:
    with pytest.raises(SchemaMismatch, match="db1 and db2 both say that partition 3 is theirs"):
        find_home(3, {"db1": "db1", "db2": "db2"})


@pytest.mark.parametrize(
    "said",
    [
        {"db1": "db1", "db2": "db2", "db3": "db1"},
        {"db1": "db1", "db2": "db3", "db3": "db1"},
        {"db1": "db2", "db2": "db1", "db3": "db1"},
        {"db1": "db2", "db2": "db3", "db3": "db1"},
        {"db1": GONE, "db2": "db1", "db3": "db3"},
    ],
)
def test_marks_that_no_move_leaves_behind_are_refused(said: dict[str, str]) -> None:
    with pytest.raises(SchemaMismatch, match="partition 7"):
        find_home(7, said)


def test_whatever_the_marks_are_no_database_is_taken_for_the_home_that_says_it_is_not() -> None:
    marks = ["db1", "db2", "db3", GONE, COMING]
    for said in itertools.product(marks, repeat=3):
        named = dict(zip(("db1", "db2", "db3"), said, strict=True))
        try:
            home = find_home(0, named)
        except SchemaMismatch:
            continue
        assert named[home.name] == home.name or named[home.name].startswith(">")


ONE, TWO = Member("s", "db1", ("db1", "db2")), Member("s", "db2", ("db1", "db2"))


def test_databases_that_belong_together_are_taken() -> None:
    assert check_members({"x": TWO, "y": ONE}, 2) == ("db1", "db2")
    # The other one is down, and may well be the right one.
    assert check_members({"x": TWO}, 2) == ("db1", "db2")


@pytest.mark.parametrize(
    ("members", "count", "message"),
    [
        ({"x": ONE}, 1, "the store is 2 databases (db1, db2) and 1 were given; db2 is missing"),
        ({"x": ONE, "y": ONE}, 2, "y and x are the same database (db1); it is given twice"),
        ({"x": ONE, "y": Member("t", "db2", ONE.names)}, 2, "two different stores"),
        ({"x": ONE, "y": TWO}, 3, "3 databases were given and the store is 2 (db1, db2)"),
    ],
)
def test_one_missing_twice_or_foreign_is_named(
    members: dict[str, Member], count: int, message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        check_members(members, count)
    assert message in str(caught.value)


def test_two_that_know_of_different_databases_are_both_named() -> None:
    more = Member("s", "db2", ("db1", "db2", "db3"))
    with pytest.raises(SchemaMismatch, match="x belongs together with db1, db2, and y with db1, d"):
        check_members({"x": ONE, "y": more}, 2)
