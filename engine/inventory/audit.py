"""Prove a sale from its events, with code of its own.

The stored JSON is decoded and added up by `audit_sale.py`, which shares nothing with the aggregate,
the events or the codec of the engine. Whatever is wrong with one commit is reported and the audit
goes on with the next. It may run beside a writing engine.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from itertools import groupby
from typing import Final, TypeVar

import google_crc32c

from engine.cqrs.event_store import EventReader, StoredCommit, Value
from engine.cqrs.query_side.read_model import ReadModelSnapshot
from engine.errors import StreamKey
from engine.inventory.audit_carts import AnyCartEvent
from engine.inventory.audit_format import AnyEvent, Format
from engine.inventory.audit_history import HistoryMatch
from engine.inventory.audit_read_models import ReadModelChecks
from engine.inventory.audit_report import AuditCheck, AuditReport, Units
from engine.inventory.audit_sale import SaleChecks, Sku
from engine.inventory.audit_sale_events import AnySaleEvent
from engine.inventory.audit_units import UnitsCheck
from engine.inventory.history import History

__all__ = ["AuditCheck", "AuditReport", "Units", "audit"]

PAGE_COMMITS: Final = 64
"""Commits read at once. At 8,190 events each that is about 40 MB of JSON."""

YIELD_EVENTS: Final = 1_000
"""Events between two turns of the event loop: about a millisecond."""

ROUNDS_MAX: Final = 1_000
"""Times the events are read on for rows that a writing engine keeps ahead of them.

Each round reads up to the end of that moment, so an honest row is met in the first or second.
"""


E = TypeVar("E")


class _Stream:
    """What is known of one stream: its version, and the commands of a type that is no stock."""

    __slots__ = ("command_ids", "sku", "version")

    def __init__(self, stream: StreamKey) -> None:
        self.version = 0
        self.sku = Sku(stream[1]) if stream[0] == "stock" else None
        self.command_ids: set[str] = set()


async def audit(
    reader: EventReader,
    history: History | None = None,
    read_models: Sequence[ReadModelSnapshot] = (),
) -> AuditReport:
    """Replay every event of a store and compare it with its `stock` table, a history, read models.

    `read_models` is what `open_read_models` found. They, and a history, must be read before the audit
    begins, so that what they tell is stored by then. Memory grows with the command ids of the store
    and the rows of its read models, not with its events. Raises StoreUnavailable when the store
    cannot be read; whatever is wrong with what it holds is a finding.
    """
    auditor = _Auditor(reader, HistoryMatch(history) if history is not None else None)
    await auditor.read_models.look(read_models, await reader.read_places())
    await auditor.read_commits()
    auditor.notes += await auditor.read_models.compare()
    await auditor.check_table()
    await auditor.check_carts()
    return auditor.report()


class _Auditor:
    """Replays the commits of all partitions once, in position order."""

    def __init__(self, reader: EventReader, orders: HistoryMatch | None) -> None:
        self._reader = reader
        self._orders = orders
        self._read_to = [0] * reader.partitions
        self._streams: dict[StreamKey, _Stream] = {}
        self._awaited: dict[str, dict[str, Value]] = {}
        self._events = 0
        self._positions = AuditCheck("positions of every partition are gapless", "commits")
        self._checksums = AuditCheck("every commit matches its checksum", "commits")
        self._readable = AuditCheck("every event is readable and of a known type", "events")
        self._versions = AuditCheck("versions of every stream are gapless", "commits")
        self._sale = SaleChecks()
        self._units = UnitsCheck()
        self.read_models = ReadModelChecks()
        self.notes: list[str] = []
        self._sale_format = Format[AnySaleEvent](AnySaleEvent)
        self._cart_format = Format[AnyCartEvent](AnyCartEvent)
        self._any_format = Format[AnyEvent](AnyEvent)

    async def read_commits(self) -> bool:
        """Replay what was appended since the last time; tell whether there was anything."""
        before, yield_at = self._positions.checked, self._events
        for partition in range(self._reader.partitions):
            page: list[StoredCommit] = []
            after = -1
            # A short page is the end, as of now; a writer may be appending behind it.
            while after < 0 or (len(page) == PAGE_COMMITS and self._read_to[partition] > after):
                after = self._read_to[partition]
                page = await self._reader.read_partition(partition, after, PAGE_COMMITS)
                for commit in page:
                    self._check_position(partition, commit)
                    self._check_commit(commit)
                    if self._events >= yield_at:
                        # Let an engine of this process sell on.
                        await asyncio.sleep(0)
                        yield_at = self._events + YIELD_EVENTS
        return self._positions.checked > before

    def _check_position(self, partition: int, commit: StoredCommit) -> None:
        self._positions.checked += 1
        due = self._read_to[partition] + 1
        if commit.position != due or commit.partition != partition:
            self._positions.fail(
                f"position {commit.position} of partition {commit.partition} stands where "
                f"position {due} of partition {partition} is due"
            )
        self._read_to[partition] = max(self._read_to[partition], commit.position)

    def _check_commit(self, commit: StoredCommit) -> None:
        stream = self._streams.get(commit.stream)
        if stream is None:
            stream = self._streams[commit.stream] = _Stream(commit.stream)
        self.read_models.pass_by(commit)
        self._checksums.checked += 1
        if google_crc32c.value(commit.events) != commit.checksum:
            self._checksums.fail(f"{_name(commit)}: its events are not the ones that were written")
        if stream.sku is None:
            self._check_any(commit, stream)
        else:
            self._check_sale(commit, stream, stream.sku)

    def _check_any(self, commit: StoredCommit, stream: _Stream) -> None:
        """Check that no command of another aggregate type, with one event or more, came twice."""
        events: Sequence[AnyEvent | AnyCartEvent | None] | None
        if commit.aggregate_type == "order":
            events = self._check_cart(commit, stream)
        else:
            plain = self._decode(commit, self._any_format)
            self._check_versions(commit, stream, plain)
            events = plain
        readable = [each for each in events or () if each is not None]
        self._sale.once.checked += len(readable)
        for command_id, _ in groupby(each.command_id for each in readable):
            if command_id in stream.command_ids:
                self._sale.once.fail(f"{_name(commit)}: command {command_id!r} had its events")
            stream.command_ids.add(command_id)

    def _check_cart(
        self, commit: StoredCommit, stream: _Stream
    ) -> Sequence[AnyCartEvent | None] | None:
        events = self._decode(commit, self._cart_format)
        carts, order_id = self._sale.carts, commit.aggregate_id
        if not self._check_versions(commit, stream, events) or events is None:
            carts.distrust(order_id)
        carts.fold(order_id, commit.first_version, events or [], commit.committed_at_us)
        return events

    def _check_sale(self, commit: StoredCommit, stream: _Stream, sku: Sku) -> None:
        events = self._decode(commit, self._sale_format)
        if not self._check_versions(commit, stream, events) or events is None:
            sku.distrust(commit.first_version, self._sale)
        self.read_models.fold(commit, events)
        at_us = commit.committed_at_us
        sku.fold(commit.first_version, events or [], self._sale, self._orders, at_us)
        if sku.name in self._awaited:
            self._meet_row(stream, sku)

    def _decode(self, commit: StoredCommit, form: Format[E]) -> list[E | None] | None:
        """Return the events, with None for an unreadable one, or None when there is no list."""
        events = form.decode(
            commit.events,
            commit.first_version,
            lambda wrong: self._readable.fail(f"{_name(commit)}{wrong}"),
        )
        self._readable.checked += len(events or ())
        self._events += len(events or ())
        return events

    def _check_versions(
        self, commit: StoredCommit, stream: _Stream, events: Sequence[object] | None
    ) -> bool:
        self._versions.checked += 1
        first, last, before = commit.first_version, commit.last_version, stream.version
        stream.version = last
        if first != before + 1:
            self._versions.fail(f"{_name(commit)}: follows version {before}")
        elif last < first:
            self._versions.fail(f"{_name(commit)}: ends before it begins")
        elif events is not None and len(events) != last - first + 1:
            self._versions.fail(f"{_name(commit)}: holds {len(events):,} events")
        else:
            return True
        return False

    async def check_table(self) -> None:
        """Compare the `stock` table with the sums of the events.

        The table is read after the events, so an honest row is as new as they are, or newer. For a
        newer one the events are read on until they reach its version.
        """
        table = self._sale.table
        stocks = {key[1]: each for key, each in self._streams.items() if each.sku is not None}
        try:
            rows = {str(row.get("sku")): row for row in await self._reader.read_rows("stock")}
        except ValueError as error:
            # A store of other aggregates has no such table.
            if stocks:
                table.fail(str(error))
            return
        for name in sorted(stocks.keys() - rows.keys()):
            table.checked += 1
            table.fail(f"{name!r} has events and no row")
        self._awaited = rows
        for name, stream in stocks.items():
            if name in rows and stream.sku is not None:
                self._meet_row(stream, stream.sku)
        for _ in range(ROUNDS_MAX):
            if not self._awaited or not await self.read_commits():
                break
        for name, row in sorted(self._awaited.items()):
            ahead = self._streams.get(("stock", name))
            reached = f"its events end at {ahead.version}" if ahead else "it has no events"
            table.checked += 1
            table.fail(f"{name!r} is at version {row.get('version')!r} and {reached}")

    def _meet_row(self, stream: _Stream, sku: Sku) -> None:
        """Compare a row once the events have reached its version; it is awaited no longer then."""
        row = self._awaited[sku.name]
        version = row.get("version")
        if isinstance(version, int) and version > stream.version and sku.sound:
            return
        del self._awaited[sku.name]
        if not sku.sound:
            return
        self._sale.table.checked += 1
        wrong = [
            f"{column} is {row.get(column)!r} and should be {value!r}"
            for column, value in sku.row(stream.version).items()
            if row.get(column) != value
        ]
        if wrong:
            self._sale.table.fail(f"{sku.name!r}: {', '.join(wrong)}")
        if version == stream.version:
            self._units.balance(sku, row)

    async def check_carts(self) -> None:
        """Judge the orders twice, having read everything on in between (see `audit_carts.py`)."""
        carts = self._sale.carts
        wrong = carts.judge(self._is_known)
        if wrong and await self.read_commits():
            wrong &= carts.judge(self._is_known)
        self._sale.notes += carts.conclude(wrong)

    def _is_known(self, name: str) -> bool:
        """Tell whether all events of a SKU were followed; one without events is known, too."""
        stream = self._streams.get(("stock", name))
        return stream is None or stream.sku is None or stream.sku.sound

    def report(self) -> AuditReport:
        sale, orders = self._sale, self._orders
        checks = [self._positions, self._checksums, self._readable, self._versions]
        checks += [sale.once, sale.stock, sale.phases, sale.limits, sale.holds, sale.table]
        checks += [self._units.check, sale.carts.check]
        checks += self.read_models.checks
        notes = [*sale.notes, *self.notes]
        if orders is not None:
            notes += orders.compare()
            checks += orders.checks
        return AuditReport(
            ok=all(check.ok for check in checks),
            oversold=sale.oversold,
            lost=orders.lost if orders else 0,
            phantom=orders.phantom if orders else 0,
            duplicated=sale.once.found + (orders.duplicated if orders else 0),
            over_limit=sale.over_limit,
            checked_events=self._events,
            checked_commits=self._positions.checked,
            streams=len(self._streams),
            checks=tuple(checks),
            reservations=sale.reservations,
            units=self._units.total,
            notes=tuple(notes),
        )


def _name(commit: StoredCommit) -> str:
    return (
        f"commit at position {commit.position} of partition {commit.partition} "
        f"({commit.aggregate_type} {commit.aggregate_id!r}, "
        f"versions {commit.first_version}..{commit.last_version})"
    )
