"""Every event of a SKU as CSV, in order, page by page: a file for a spreadsheet, never all in memory."""

from __future__ import annotations

import asyncio
import csv
import io
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from engine.cqrs.codec import Codec
from engine.cqrs.event_store import EventReader, StoredCommit
from engine.inventory.stock import STOCK

PAGE_COMMITS: Final = 32

COLUMNS: Final = (
    *("version", "at", "event", "command_id", "buyer", "quantity"),
    *("reservation_id", "order_id", "held_until", "details"),
)
NAMED: Final = frozenset({"type", *COLUMNS, "held_until_us"})

FORMULA_BEGINS: Final = ("=", "+", "-", "@", "\t", "\r")
"""A text that begins so is taken for a formula by spreadsheets, and buyers choose their names."""


async def export(reader: EventReader, sku: str) -> AsyncIterator[bytes]:
    """The lines of the file. Raises CorruptEvent, StoreUnavailable."""
    codec = Codec(STOCK.events, STOCK.upcasters)
    yield _lines([COLUMNS])
    version = 0
    while commits := await reader.read_stream((STOCK.name, sku), version, PAGE_COMMITS):
        for commit in commits:
            # Up to thousands of events: not on the event loop, where buyers are answered.
            yield await asyncio.to_thread(_lines_of, codec, commit)
        version = commits[-1].last_version


def _lines_of(codec: Codec, commit: StoredCommit) -> bytes:
    return _lines(_rows(codec, commit))


def _rows(codec: Codec, commit: StoredCommit) -> list[Sequence[object]]:
    at = _time(commit.committed_at_us)
    rows: list[Sequence[object]] = []
    for version, event in enumerate(codec.decode(commit), commit.first_version):
        fields: dict[str, Any] = msgspec.to_builtins(event)
        until_us = fields.get("held_until_us", 0)
        details = {name: value for name, value in fields.items() if name not in NAMED}
        rows.append(
            (
                *(version, at, fields["type"], fields["command_id"]),
                *(
                    fields.get(name, "")
                    for name in ("buyer", "quantity", "reservation_id", "order_id")
                ),
                _time(until_us) if until_us else "",
                " ".join(f"{name}={value}" for name, value in details.items()),
            )
        )
    return rows


def _lines(rows: Sequence[Sequence[object]]) -> bytes:
    text = io.StringIO()
    csv.writer(text).writerows([[_harmless(each) for each in row] for row in rows])
    return text.getvalue().encode()


def _harmless(value: object) -> object:
    if isinstance(value, str) and value.startswith(FORMULA_BEGINS):
        return "'" + value
    return value


def _time(at_us: int) -> str:
    return datetime.fromtimestamp(at_us / 1_000_000, UTC).isoformat(timespec="milliseconds")
