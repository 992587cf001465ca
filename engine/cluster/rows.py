"""The stock of every SKU at every gateway: owners show the rows that changed, gateways keep them.

Nobody stores these messages. Who missed one notices by its number, reads the tables and asks the
owners for the rest.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

import msgspec
from nats.aio.msg import Msg

from engine.clock import Clock
from engine.cluster.broker import Broker
from engine.cqrs.command_side.live_rows import LiveRows, RowKey
from engine.cqrs.command_side.refusal_counts import RefusalCounts
from engine.cqrs.event_store import EventReader, Table
from engine.cqrs.partitioning import partition_of
from engine.errors import BrokerUnavailable, SeckillError, StreamKey

logger = logging.getLogger(__name__)

SHOW_SECONDS: Final = 0.1
ROWS_MAX: Final = 1_000
"""Rows of one message, a few hundred bytes each."""

READ_SECONDS: Final = 30.0
"""How often the tables are read although nothing seems to be missing."""

LOOK_SECONDS: Final = 1.0

MISSED: Final = "missed"
"""Subject of whoever has just come, or missed something that is in no table."""


class Rows(msgspec.Struct, frozen=True, array_like=True):
    """Message `number` of a partition by the process `boot`.

    `rows` of a table as they are now; `refused` is what aggregates refused, by reason, since `boot` began.
    """

    boot: str
    partition: int
    number: int
    table: str
    rows: list[dict[str, Any]]
    refused: list[tuple[str, str, dict[str, int]]] = []


_ENCODER: Final = msgspec.msgpack.Encoder()
_DECODER: Final = msgspec.msgpack.Decoder(Rows)


class RowsOut:
    """Shows the rows of the partitions that this process owns."""

    def __init__(
        self,
        boot: str,
        live_rows: LiveRows,
        refusals: RefusalCounts,
        broker: Broker,
        partitions: int,
        clock: Clock,
    ) -> None:
        self._boot = boot
        self._live_rows = live_rows
        self._broker = broker
        self._clock = clock
        self._numbers = [0] * partitions
        self._changed = live_rows.watch()
        self._refusals = refusals
        self._refusing = refusals.watch()

    async def start(self) -> None:
        """Hear who missed something. Raises BrokerUnavailable."""
        await self._broker.listen(self._broker.subject(MISSED), self._show_all_refused)

    async def _show_all_refused(self, _: Msg) -> None:
        """Refusals are in no table."""
        self._refusing.update(self._refusals.streams())

    async def run(self) -> None:
        """Show what changes, until cancelled."""
        while True:
            await self._clock.sleep(SHOW_SECONDS)
            try:
                await self.show()
            except BrokerUnavailable as error:
                logger.debug("no rows were shown: %s", error)

    async def show(self) -> None:
        """Raises BrokerUnavailable; then all of it is shown the next time."""
        changed, refusing = list(self._changed), list(self._refusing)
        self._changed.clear()
        self._refusing.clear()
        try:
            await self._show_rows(changed)
            await self._show_refused(refusing)
        except BrokerUnavailable:
            self._changed.update(changed)
            self._refusing.update(refusing)
            raise

    async def _show_rows(self, changed: Sequence[RowKey]) -> None:
        groups: dict[tuple[int, str], list[str]] = {}
        for table, key in changed:
            home = partition_of(key, len(self._numbers))
            groups.setdefault((home, table), []).append(key)
        for (partition, table), keys in groups.items():
            rows = self._live_rows.table(table)
            for first in range(0, len(keys), ROWS_MAX):
                page = [dict(rows[each]) for each in keys[first : first + ROWS_MAX] if each in rows]
                await self._send(partition, table, page, [])

    async def _show_refused(self, refusing: Sequence[StreamKey]) -> None:
        groups: dict[int, list[tuple[str, str, dict[str, int]]]] = {}
        for stream in refusing:
            home = partition_of(stream[1], len(self._numbers))
            groups.setdefault(home, []).append((*stream, dict(self._refusals.totals(stream))))
        for partition, refused in groups.items():
            for first in range(0, len(refused), ROWS_MAX):
                await self._send(partition, "", [], refused[first : first + ROWS_MAX])

    async def _send(
        self,
        partition: int,
        table: str,
        rows: list[dict[str, Any]],
        refused: list[tuple[str, str, dict[str, int]]],
    ) -> None:
        self._numbers[partition] += 1
        message = Rows(self._boot, partition, self._numbers[partition], table, rows, refused)
        subject = self._broker.subject("rows", partition)
        await self._broker.send(subject, _ENCODER.encode(message))


class RowsIn:
    """Keeps a gateway's rows. `run` has to run beside it."""

    def __init__(
        self,
        live_rows: LiveRows,
        refusals: dict[StreamKey, dict[str, int]],
        reader: EventReader,
        tables: Sequence[Table],
        broker: Broker,
        clock: Clock,
    ) -> None:
        self._live_rows = live_rows
        self._refusals = refusals
        self._reader = reader
        self._tables = tables
        self._broker = broker
        self._clock = clock
        self._heard: dict[tuple[int, str], int] = {}
        """The newest message of each process about each partition."""
        self._shown_by: dict[int, str] = {}
        self._fresh: set[RowKey] = set()
        self._is_missing = True
        self._refused: dict[StreamKey, dict[str, dict[str, int]]] = {}
        """What each process has refused since it began."""

    async def start(self) -> None:
        """Listen, and read what is there. Raises BrokerUnavailable, StoreUnavailable."""
        await self._live_rows.load_what_answers(self._reader, self._tables, lambda _: True)
        await self._broker.listen(self._broker.subject("rows", "*"), self._take)
        await self.read()

    async def run(self) -> None:
        """Read again what was missed, until cancelled."""
        read_at, connections = self._clock.monotonic(), self._broker.connections
        while True:
            await self._clock.sleep(LOOK_SECONDS)
            if self._broker.connections != connections:
                # What was shown meanwhile is missed, and it may have been the last for a long time.
                connections, self._is_missing = self._broker.connections, True
            if not self._is_missing and self._clock.monotonic() - read_at < READ_SECONDS:
                continue
            try:
                await self.read()
            except SeckillError as error:
                logger.debug("rows may be old: %s", error)
            else:
                read_at = self._clock.monotonic()

    async def read(self) -> None:
        """Read the tables; what an owner shows meanwhile is newer.

        Raises BrokerUnavailable, StoreUnavailable.
        """
        missed, self._is_missing = self._is_missing, False
        self._fresh.clear()
        try:
            if missed:
                await self._broker.send(self._broker.subject(MISSED), b"")
            await self._live_rows.load_what_answers(
                self._reader, self._tables, lambda key: key not in self._fresh
            )
        except SeckillError:
            self._is_missing = True
            raise

    async def _take(self, message: Msg) -> None:
        try:
            found = _DECODER.decode(message.data)
        except (ValueError, RecursionError) as error:
            logger.warning("rows cannot be read: %s", error)
            return
        sender = (found.partition, found.boot)
        if self._heard.get(sender, 0) + 1 != found.number:
            self._is_missing = True
        self._heard[sender] = found.number
        if found.rows and self._shown_by.get(found.partition) != found.boot:
            # The owner before may still show what is older. It goes on counting refusals of its own.
            self._shown_by[found.partition], self._is_missing = found.boot, True
        for name, aggregate_id, reasons in found.refused:
            self._note_refused((name, aggregate_id), found.boot, reasons)
        if all(found.table != each.name for each in self._tables):
            return
        key_column = next(each.key for each in self._tables if each.name == found.table)
        self._fresh.update((found.table, str(row[key_column])) for row in found.rows)
        self._live_rows.put(found.table, found.rows)

    def _note_refused(self, stream: StreamKey, boot: str, reasons: dict[str, int]) -> None:
        of_boot = self._refused.setdefault(stream, {})
        of_boot[boot] = reasons
        total = Counter[str]()
        for each in of_boot.values():
            total.update(each)
        self._refusals[stream] = dict(total)
