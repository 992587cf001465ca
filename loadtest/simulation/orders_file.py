"""A recorded sale: orders from a CSV or JSON Lines file, checked whole before anything is sent.

Columns: `at` (seconds from the start), `buyer`, `sku`, `quantity`, `command_id`; others are
ignored. The same command id again, with the same order, is a repeat.
"""

from __future__ import annotations

import csv
import hashlib
import math
import re
from collections.abc import Iterator, Sequence
from io import StringIO
from pathlib import Path
from typing import Any, Final

import msgspec

from engine.errors import ConfigError, InvalidCommand
from engine.inventory.commands import Reserve
from loadtest.settings import LIMITS, ORDERS_MAX, check_limit
from loadtest.workload import Plan, Sending

COLUMNS: Final = ("at", "buyer", "sku", "quantity", "command_id")

AT_SECONDS_MAX: Final = 86_400

_WHOLE = re.compile(r"[+-]?\d{1,18}", re.ASCII)
_DECIMAL = re.compile(r"[+-]?(\d{1,18}(\.\d{0,18})?|\.\d{1,18})([eE][+-]?\d{1,3})?", re.ASCII)


class OrderRow(msgspec.Struct, frozen=True):
    """One line of the file."""

    at: float
    buyer: str
    sku: str
    quantity: int
    command_id: str


class RecordedWorkload:
    """The orders of a file, sorted by time. `timed` false sends them as fast as they are taken."""

    def __init__(
        self,
        sendings: Sequence[Sending],
        orders: int,
        stock: int,
        limit_per_buyer: int,
        digest: str,
        *,
        timed: bool,
    ) -> None:
        self._sendings = sendings
        self.skus: Sequence[str] = list(dict.fromkeys(each[3].aggregate_id for each in sendings))
        self.stock = stock
        self.limit_per_buyer = limit_per_buyer
        self.hold_seconds = 0
        self.orders = orders
        self.rows = len(sendings)
        self.timed = timed
        self.seed: int | None = None
        self._digest = digest
        self.origin = f"file-{digest[:16]}-{stock}-{limit_per_buyer}"

    def describe(self) -> dict[str, Any]:
        return {
            "orders_sha256": self._digest,
            "arrival": "recorded" if self.timed else "burst",
            "skus": len(self.skus),
            "stock": self.stock,
            "limit_per_buyer": self.limit_per_buyer,
        }

    def plan_of(self, number: int) -> tuple[Plan, float]:
        raise ConfigError(f"order {number} of the file is final; nobody pays for it")

    def __iter__(self) -> Iterator[Sending]:
        return iter(self._sendings)


def read_orders(
    path: Path, *, stock: int, limit_per_buyer: int = 0, timed: bool = True
) -> RecordedWorkload:
    """Read and check a whole file; every SKU in it gets `stock` units.

    Raises ConfigError naming the file, the row (the first order is row 1) and what is wrong.
    """
    check_limit("stock", stock)
    check_limit("limit_per_buyer", limit_per_buyer)
    reader = {".csv": _read_csv, ".jsonl": _read_jsonl}.get(path.suffix.lower())
    if reader is None:
        raise ConfigError(f"--orders takes a .csv or .jsonl file, got {path.name}")
    try:
        data = path.read_bytes()
        text = data.decode("utf-8-sig")
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 text: byte {error.start:,} is wrong") from None
    sendings, orders = _number(path, reader(path, text))
    if not sendings:
        raise ConfigError(f"{path} holds no orders")
    sendings.sort(key=lambda each: each[1])
    digest = hashlib.sha256(data).hexdigest()
    return RecordedWorkload(sendings, orders, stock, limit_per_buyer, digest, timed=timed)


def _number(path: Path, rows: Iterator[tuple[str, OrderRow]]) -> tuple[list[Sending], int]:
    """Check every row, number the orders and mark the repeats."""
    sendings: list[Sending] = []
    first: dict[str, tuple[int, str, Reserve, float]] = {}
    skus = set[str]()
    for where, row in rows:
        if len(sendings) == ORDERS_MAX:
            raise ConfigError(f"{path} holds more than {ORDERS_MAX:,} orders")
        order = _check(path, where, row)
        number, seen_where, seen, seen_at = first.setdefault(
            order.id, (len(first), where, order, row.at)
        )
        repeat = seen is not order
        if repeat and seen != order:
            raise ConfigError(
                f"{path} {where}: command_id {order.id!r} was used for another order "
                f"in {seen_where}"
            )
        if repeat and row.at < seen_at:
            raise ConfigError(
                f"{path} {where}: repeats {seen_where}, but its at is earlier "
                f"({row.at:g} < {seen_at:g})"
            )
        skus.add(order.aggregate_id)
        sendings.append((number, row.at, repeat, seen))
    if len(skus) > LIMITS["skus"][1]:
        raise ConfigError(f"{path} names {len(skus):,} SKUs; at most {LIMITS['skus'][1]:,}")
    return sendings, len(first)


def _check(path: Path, where: str, row: OrderRow) -> Reserve:
    if not (math.isfinite(row.at) and 0 <= row.at <= AT_SECONDS_MAX):
        raise ConfigError(
            f"{path} {where}: at must be from 0 to {AT_SECONDS_MAX:,} seconds, got {row.at}"
        )
    order = Reserve(row.command_id, row.sku, row.buyer, row.quantity)
    try:
        order.check()
    except InvalidCommand as error:
        raise ConfigError(f"{path} {where}: {error}") from None
    return order


def _read_csv(path: Path, text: str) -> Iterator[tuple[str, OrderRow]]:
    lines = csv.reader(StringIO(text, newline=""), strict=True)
    row = 0
    try:
        header = [name.strip() for name in next(lines, [])]
        places = _find_columns(path, header)
        for fields in lines:
            if not fields:
                continue
            row += 1
            where = f"row {row:,} (line {lines.line_num:,})"
            if len(fields) != len(header):
                raise ConfigError(
                    f"{path} {where}: {len(fields)} fields where the header has {len(header)}"
                )
            yield where, _parse(path, where, [fields[place] for place in places])
    except csv.Error as error:
        raise ConfigError(f"{path} line {lines.line_num:,}: {error}") from None


def _find_columns(path: Path, header: list[str]) -> list[int]:
    missing = [name for name in COLUMNS if name not in header]
    if missing:
        found = ", ".join(header)[:200] or "nothing"
        hint = "; separate the columns by commas" if len(header) == 1 and found != "nothing" else ""
        raise ConfigError(
            f"{path} lacks the column{'s' * (len(missing) > 1)} {', '.join(missing)}; its first "
            f"line must name {', '.join(COLUMNS)}, and it holds {found}{hint}"
        )
    for name in COLUMNS:
        if header.count(name) > 1:
            raise ConfigError(f"{path} has two columns named {name}")
    return [header.index(name) for name in COLUMNS]


def _parse(path: Path, where: str, fields: list[str]) -> OrderRow:
    at, buyer, sku, quantity, command_id = fields
    if not _DECIMAL.fullmatch(at.strip()):
        raise ConfigError(f"{path} {where}: at must be a number of seconds, got {at[:40]!r}")
    if not _WHOLE.fullmatch(quantity.strip()):
        raise ConfigError(f"{path} {where}: quantity must be a whole number, got {quantity[:40]!r}")
    return OrderRow(float(at), buyer, sku, int(quantity), command_id)


def _read_jsonl(path: Path, text: str) -> Iterator[tuple[str, OrderRow]]:
    decoder = msgspec.json.Decoder(OrderRow)
    row = 0
    # Not splitlines: it would also cut at characters that may stand inside a JSON string.
    for line_number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        row += 1
        where = f"row {row:,} (line {line_number:,})"
        try:
            yield where, decoder.decode(line)
        except msgspec.DecodeError as error:
            raise ConfigError(f"{path} {where}: {error}") from None
