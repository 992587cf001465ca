"""A recorded sale is read whole or refused whole, and the message finds the bad row."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import ConfigError
from engine.inventory.commands import Reserve
from loadtest.simulation.orders_file import read_orders

HEADER = "at,buyer,sku,quantity,command_id\n"
GOOD = HEADER + "0.5,bob,PHONE,2,b1\n0,alice,PHONE,1,a1\n0.75,bob,PHONE,2,b1\n"
ROWS = [
    (0, 0.0, False, Reserve("a1", "PHONE", "alice", 1)),
    (1, 0.5, False, Reserve("b1", "PHONE", "bob", 2)),
    (1, 0.75, True, Reserve("b1", "PHONE", "bob", 2)),
]


def written(folder: Path, content: str | bytes, name: str = "orders.csv") -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def as_jsonl(*rows: object) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def order(**changes: object) -> dict[str, object]:
    plain = {"at": 0, "buyer": "bob", "sku": "PHONE", "quantity": 1, "command_id": "b1"}
    return {**plain, **changes}


@pytest.mark.parametrize(
    "content",
    [
        GOOD,
        GOOD.replace("\n", "\r\n"),
        GOOD.rstrip("\n"),
        GOOD + "\n\n",
        b"\xef\xbb\xbf" + GOOD.encode(),
        GOOD.replace("bob", '"bob"'),
        GOOD.replace("0.5,", "5e-1,").replace(",2,", ", 2 ,"),
    ],
    ids=["plain", "crlf", "no last newline", "empty lines", "bom", "quotes", "number forms"],
)
def test_csv_is_read_in_order_of_time_with_repeats_marked(tmp_path: Path, content: str) -> None:
    workload = read_orders(written(tmp_path, content), stock=5, limit_per_buyer=2)
    # The number of an order is its place in the file, its place in the sale that of its time.
    numbered = {"b1": 0, "a1": 1}
    assert list(workload) == [(numbered[row[3].id], *row[1:]) for row in ROWS]
    assert (workload.orders, workload.rows, workload.timed) == (2, 3, True)
    assert (workload.stock, workload.limit_per_buyer, list(workload.skus)) == (5, 2, ["PHONE"])


def test_columns_may_stand_in_any_order_beside_others(tmp_path: Path) -> None:
    text = "shop,command_id,quantity,sku,buyer,at\nX,a1,1,PHONE,alice,0\n"
    assert list(read_orders(written(tmp_path, text), stock=1)) == ROWS[:1]


def test_jsonl_is_read_like_csv(tmp_path: Path) -> None:
    text = as_jsonl(
        order(buyer="alice", command_id="a1", channel="app"),
        order(at=0.5, quantity=2),
        order(at=0.75, quantity=2),
    )
    for content in (text, text.replace("\n", "\r\n"), "\ufeff" + text):
        workload = read_orders(written(tmp_path, content, "orders.jsonl"), stock=1)
        assert list(workload) == ROWS


names = st.text(st.characters(categories=["L", "N", "P"]), min_size=1, max_size=64)


@given(
    st.lists(
        st.tuples(st.floats(0, 86_400), names, names, st.integers(1, 10**6)),
        min_size=1,
        max_size=20,
    )
)
def test_any_valid_rows_survive_a_jsonl_file(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[float, str, str, int]]
) -> None:
    folder = tmp_path_factory.mktemp("orders")
    lines = [
        order(at=at, buyer=buyer, sku=sku, quantity=quantity, command_id=f"c{number}")
        for number, (at, buyer, sku, quantity) in enumerate(rows)
    ]
    workload = read_orders(written(folder, as_jsonl(*lines), "orders.jsonl"), stock=1)
    expected = [
        (number, at, False, Reserve(f"c{number}", sku, buyer, quantity))
        for number, (at, buyer, sku, quantity) in enumerate(rows)
    ]
    assert list(workload) == sorted(expected, key=lambda each: each[1])


@pytest.mark.parametrize(
    ("row", "where", "what"),
    [
        ("-1,bob,PHONE,1,b2", "row 2 (line 3)", "at must be from 0 to 86,400 seconds"),
        ("90000,bob,PHONE,1,b2", "row 2 (line 3)", "at must be from 0 to 86,400 seconds"),
        ("nan,bob,PHONE,1,b2", "row 2 (line 3)", "at must be a number of seconds, got 'nan'"),
        ("soon,bob,PHONE,1,b2", "row 2 (line 3)", "at must be a number of seconds, got 'soon'"),
        (",bob,PHONE,1,b2", "row 2 (line 3)", "at must be a number of seconds, got ''"),
        ("0,bob,PHONE,-1,b2", "row 2 (line 3)", "quantity must be from 1 to 1,000,000, got -1"),
        ("0,bob,PHONE,0,b2", "row 2 (line 3)", "quantity must be from 1 to 1,000,000, got 0"),
        ("0,bob,PHONE,1.5,b2", "row 2 (line 3)", "quantity must be a whole number, got '1.5'"),
        ("0,bob,PHONE,two,b2", "row 2 (line 3)", "quantity must be a whole number, got 'two'"),
        ("0,bob,PHONE,,b2", "row 2 (line 3)", "quantity must be a whole number, got ''"),
        ("0,bob,PHONE,1" + "0" * 30 + ",b2", "row 2 (line 3)", "quantity must be a whole number"),
        ("0,,PHONE,1,b2", "row 2 (line 3)", "buyer must have 1 to 64 characters, got 0"),
        ("0," + "x" * 10_240 + ",PHONE,1,b2", "row 2 (line 3)", "characters, got 10,240"),
        ("0,bob,,1,b2", "row 2 (line 3)", "aggregate id must have 1 to 64 characters, got 0"),
        ("0,bob,PHONE,1,", "row 2 (line 3)", "command id must have 1 to 64 characters, got 0"),
        ("0,b\x00b,PHONE,1,b2", "row 2 (line 3)", "buyer must be printable text"),
        ("0,bob,PHONE,1", "row 2 (line 3)", "4 fields where the header has 5"),
        ("0,bob,PHONE,1,b2,more", "row 2 (line 3)", "6 fields where the header has 5"),
        ('0,"bo\nb",PHONE,1,b2', "row 2 (line 4)", "buyer must be printable text"),
        ('0,"bob"x,PHONE,1,b2', "line 3", "expected after"),
        ('0,"bob,PHONE,1,b2', "line 3", "unexpected end of data"),
        ("0,bob,PHONE,1,a1", "row 2 (line 3)", "'a1' was used for another order in row 1 (line 2)"),
        ("1,bob,PHONE,1,b2\n0,bob,PHONE,1,b2", "row 3 (line 4)", "its at is earlier (0 < 1)"),
        ("0," + "x" * 200_000 + ",PHONE,1,b2", "line 3", "field larger than field limit"),
    ],
)
def test_a_bad_row_is_named(tmp_path: Path, row: str, where: str, what: str) -> None:
    path = written(tmp_path, HEADER + "0,alice,PHONE,1,a1\n" + row + "\n")
    with pytest.raises(ConfigError) as caught:
        read_orders(path, stock=1)
    assert str(caught.value).startswith(f"{path} {where}: ")
    assert what in str(caught.value)


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("{", "truncated"),
        ("[]", "Expected `object`"),
        (json.dumps(order(quantity="1")), "Expected `int`, got `str` - at `$.quantity`"),
        (json.dumps(order(quantity=True)), "Expected `int`, got `bool`"),
        (json.dumps(order(quantity=0)), "quantity must be from 1"),
        (json.dumps(order(at=None)), "Expected `float`, got `null`"),
        (json.dumps(order(at=float("nan"))), "invalid"),
        (json.dumps(order(buyer=7)), "Expected `str`, got `int` - at `$.buyer`"),
        (json.dumps({"at": 0, "buyer": "bob"}), "missing required field `sku`"),
    ],
)
def test_a_bad_line_of_jsonl_is_named(tmp_path: Path, line: str, what: str) -> None:
    path = written(tmp_path, as_jsonl(order(command_id="a1")) + "\n" + line + "\n", "orders.jsonl")
    with pytest.raises(ConfigError) as caught:
        read_orders(path, stock=1)
    assert str(caught.value).startswith(f"{path} row 2 (line 3): ")
    assert what in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "what"),
    [
        ("orders.csv", "", "lacks the columns at, buyer, sku, quantity, command_id"),
        ("orders.csv", HEADER, "holds no orders"),
        ("orders.jsonl", "", "holds no orders"),
        ("orders.csv", HEADER.replace(",", ";"), "separate the columns by commas"),
        ("orders.csv", "at,buyer,sku,quantity\n0,b,S,1\n", "lacks the column command_id"),
        ("orders.csv", HEADER.replace(",", ";"), "it holds at;buyer;sku;quantity;command_id"),
        ("orders.csv", "at," + HEADER, "has two columns named at"),
        ("orders.xlsx", "PK", "--orders takes a .csv or .jsonl file, got orders.xlsx"),
        ("orders", GOOD, "--orders takes a .csv or .jsonl file, got orders"),
        ("orders.csv", GOOD.encode("utf-16"), "is not UTF-8 text: byte 0 is wrong"),
    ],
)
def test_a_file_that_cannot_be_read_says_why(
    tmp_path: Path, name: str, content: str | bytes, what: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        read_orders(written(tmp_path, content, name), stock=1)
    assert what in str(caught.value)


def test_a_missing_file_and_a_folder_say_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        read_orders(tmp_path / "none.csv", stock=1)
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(ConfigError, match="Is a directory"):
        read_orders(tmp_path / "folder.csv", stock=1)


def test_stock_and_limit_are_checked(tmp_path: Path) -> None:
    path = written(tmp_path, GOOD)
    with pytest.raises(ConfigError, match="--stock must be from 0"):
        read_orders(path, stock=-1)
    with pytest.raises(ConfigError, match="--limit-per-buyer must be from 0"):
        read_orders(path, stock=1, limit_per_buyer=-1)


def test_another_content_or_stock_is_another_sale(tmp_path: Path) -> None:
    path = written(tmp_path, GOOD)
    origins = {read_orders(path, stock=1).origin, read_orders(path, stock=2).origin}
    origins.add(read_orders(path, stock=1, limit_per_buyer=1).origin)
    origins.add(read_orders(written(tmp_path, GOOD + "9,eve,PHONE,1,e1\n"), stock=1).origin)
    assert len(origins) == 4
