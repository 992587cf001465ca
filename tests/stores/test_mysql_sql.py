"""The statements of the MySQL store: literals that mean what they say, inserts that fit."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from engine.cqrs.event_store import Lease
from engine.stores import mysql_sql as sql
from engine.stores.mysql_connection import MysqlConnection
from engine.stores.mysql_url import parse_mysql_url
from engine.testing.store_contract import commit

NASTY = [
    "",
    "'",
    "\\",
    "\\'",
    "';DROP TABLE x;--",
    "\0",
    "\n\r\t\x1a",
    "é✓🎫",
    '"%_',
    "--",
    "a ",
    "/*",
]


async def test_every_text_arrives_as_it_is(mariadb_url: str) -> None:
    connection = await MysqlConnection.open(parse_mysql_url(mariadb_url))
    try:
        for text in NASTY:
            answer = await connection.run(f"SELECT {sql.quote(text)}, LENGTH({sql.quote(text)})")
            assert answer.rows[0] == (text, len(text.encode()))
        blob = bytes(range(256))
        assert (await connection.run(f"SELECT {sql.quote_bytes(blob)}")).rows[0] == (blob,)
    finally:
        connection.close()


@given(st.text())
def test_a_literal_ends_where_its_text_does(text: str) -> None:
    literal = sql.quote(text)
    inside = literal[1:-1]
    unescaped = inside.replace("\\\\", "").replace("\\'", "")
    assert literal[0] == literal[-1] == "'"
    assert "'" not in unescaped
    assert not unescaped.endswith("\\")


@given(sizes=st.lists(st.integers(1, 20), min_size=1, max_size=12), bytes_max=st.integers(1, 2_000))
def test_inserts_hold_every_commit_once_and_in_order(sizes: list[int], bytes_max: int) -> None:
    commits = [commit(f"s{number}", 1, size) for number, size in enumerate(sizes)]
    statements = list(sql.inserts(Lease(0, 1, 7), commits, 1, bytes_max))
    text = "".join(statements)
    places = [text.index(f"(0,{position},'counter'") for position in range(8, 8 + len(sizes))]
    assert places == sorted(places)
    assert text.count(",'counter',") == len(sizes)
    for statement in statements:
        rows = statement.count(",'counter',")
        head = statement.index("(0,")
        assert rows == 1 or len(statement.encode()) - head <= bytes_max + rows


@given(sizes=st.lists(st.integers(1, 20), max_size=12), bytes_max=st.integers(1, 60))
def test_statements_that_go_together_fit_and_keep_their_order(
    sizes: list[int], bytes_max: int
) -> None:
    statements = ["é" * size for size in sizes]
    sent = list(sql.together(statements, bytes_max))
    assert [each for some in sent for each in some] == statements
    for some in sent:
        assert len(some) == 1 or len(";".join(some).encode()) < bytes_max
    for some, more in pairwise(sent):
        assert len(";".join([*some, more[0]]).encode()) >= bytes_max, "it had fitted"
