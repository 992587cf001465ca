"""The stock at every gateway: as its owner shows it, read again whenever something was missed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from engine.cluster.rows import LOOK_SECONDS, READ_SECONDS, ROWS_MAX, RowsIn, RowsOut
from engine.cqrs.command_side.live_rows import LiveRows
from engine.cqrs.command_side.refusal_counts import RefusalCounts
from engine.cqrs.event_store import Table
from engine.cqrs.partitioning import partition_of
from engine.errors import BrokerUnavailable, StoreUnavailable, StreamKey
from engine.testing.scripted_broker import ScriptedServer
from engine.testing.virtual_clock import VirtualClock, settle

PARTITIONS = 2
TABLE = Table("stock", "sku", ("units",))
ZERO = [f"s{n}" for n in range(40) if partition_of(f"s{n}", PARTITIONS) == 0]
ONE = [f"s{n}" for n in range(40) if partition_of(f"s{n}", PARTITIONS) == 1]


class Reader:
    """A store of one table."""

    def __init__(self) -> None:
        self.partitions = PARTITIONS
        self.rows: dict[str, int] = {}
        self.reads = 0
        self.is_down = False
        self.meanwhile: Any = None

    async def read_rows(self, table: str, partition: int | None = None) -> list[dict[str, Any]]:
        self.reads += partition is None
        if self.is_down:
            raise StoreUnavailable("injected")
        found = [{"sku": sku, "units": units} for sku, units in self.rows.items()]
        if self.meanwhile is not None:
            await self.meanwhile()
        return found


class Bench:
    """An owner that shows rows and a gateway that keeps them."""

    def __init__(self) -> None:
        self.clock = VirtualClock()
        self.server = ScriptedServer(self.clock)
        self.reader: Any = Reader()
        self.broker = self.server.connect()
        self.refused: dict[StreamKey, dict[str, int]] = {}
        self.seen = LiveRows()
        reader: Any = self.reader
        self.rows_in = RowsIn(self.seen, self.refused, reader, [TABLE], self.broker, self.clock)

    async def owner(self, boot: str) -> tuple[LiveRows, RowsOut]:
        live = LiveRows()
        empty: Any = Reader()
        await live.load(empty, [TABLE])
        counts = RefusalCounts([], [], 9)
        return live, RowsOut(boot, live, counts, self.server.connect(), PARTITIONS, self.clock)

    def units(self) -> dict[str, Any]:
        return {sku: row["units"] for sku, row in self.seen.table("stock").items()}

    def shown(self) -> list[bytes]:
        return [payload for subject, payload in self.server.sent if ".rows." in subject]

    async def pass_time(self, seconds: float) -> None:
        await self.clock.run(self.clock.sleep(seconds))


def row(sku: str, units: int) -> dict[str, Any]:
    return {"sku": sku, "units": units}


@asynccontextmanager
async def bench() -> AsyncIterator[Bench]:
    found = Bench()
    await found.rows_in.start()
    running = asyncio.create_task(found.rows_in.run())
    try:
        yield found
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await found.broker.close()


async def test_rows_that_change_are_shown_and_kept() -> None:
    async with bench() as found:
        live, out = await found.owner("a")
        live.put("stock", [row(ZERO[0], 5), row(ONE[0], 7)])
        await out.show()
        live.put("stock", [row(ZERO[0], 4)])
        await out.show()
        await out.show()
        await settle()
        assert found.units() == {ZERO[0]: 4, ONE[0]: 7}
        assert len(found.shown()) == 3


async def test_what_could_not_be_shown_is_shown_the_next_time_in_every_partition() -> None:
    async with bench() as found:
        live, out = await found.owner("a")
        live.put("stock", [row(ZERO[0], 5), row(ONE[0], 7)])
        broker: Any = out._broker
        broker.is_cut = True
        with pytest.raises(BrokerUnavailable):
            await out.show()
        broker.is_cut = False
        await out.show()
        await settle()
        assert found.units() == {ZERO[0]: 5, ONE[0]: 7}


async def test_a_message_that_is_missed_has_the_tables_read_again() -> None:
    async with bench() as found:
        live, out = await found.owner("a")
        live.put("stock", [row(ZERO[0], 5)])
        await out.show()
        await found.pass_time(2 * LOOK_SECONDS)
        before = found.reader.reads
        found.server.loses = lambda subject, payload: True
        live.put("stock", [row(ZERO[0], 4)])
        await out.show()
        found.server.loses = lambda subject, payload: False
        live.put("stock", [row(ZERO[1], 1)])
        found.reader.rows = {ZERO[0]: 4, ZERO[1]: 1}
        await out.show()
        await found.pass_time(2 * LOOK_SECONDS)
        assert found.units() == {ZERO[0]: 4, ZERO[1]: 1}
        assert found.reader.reads == before + 1


async def test_after_another_connection_the_tables_are_read_though_nobody_shows_anything() -> None:
    async with bench() as found:
        await found.pass_time(2 * LOOK_SECONDS)
        found.reader.rows = {ZERO[0]: 2}
        found.broker.connected_times += 1
        await found.pass_time(2 * LOOK_SECONDS)
        assert found.units() == {ZERO[0]: 2}


async def test_a_row_that_comes_while_the_tables_are_read_is_newer() -> None:
    async with bench() as found:
        live, out = await found.owner("a")

        async def show() -> None:
            live.put("stock", [row(ZERO[0], 3)])
            await out.show()
            await settle()

        found.reader.rows, found.reader.meanwhile = {ZERO[0]: 4, ZERO[1]: 9}, show
        await found.rows_in.read()
        assert found.units() == {ZERO[0]: 3, ZERO[1]: 9}


async def test_an_old_owner_that_shows_itself_late_is_corrected_within_a_moment() -> None:
    async with bench() as found:
        old, out_of_old = await found.owner("old")
        new, out_of_new = await found.owner("new")
        new.put("stock", [row(ZERO[0], 1)])
        await out_of_new.show()
        old.put("stock", [row(ZERO[0], 9)])
        await out_of_old.show()
        await settle()
        found.reader.rows = {ZERO[0]: 1}
        await found.pass_time(2 * LOOK_SECONDS)
        assert found.units() == {ZERO[0]: 1}


async def test_the_tables_are_read_now_and_then_and_again_when_that_failed() -> None:
    async with bench() as found:
        found.reader.rows = {ZERO[0]: 2}
        await found.pass_time(READ_SECONDS + 2 * LOOK_SECONDS)
        assert found.units() == {ZERO[0]: 2}
        found.reader.is_down, found.reader.rows = True, {}
        await found.pass_time(READ_SECONDS + 5 * LOOK_SECONDS)
        assert found.units() == {ZERO[0]: 2}
        found.reader.is_down = False
        await found.pass_time(2 * LOOK_SECONDS)
        assert found.units() == {}


async def test_many_rows_go_in_several_messages() -> None:
    async with bench() as found:
        live, out = await found.owner("a")
        many = [f"m{n}" for n in range(2 * ROWS_MAX + 100)]
        live.put("stock", [row(sku, 1) for sku in many])
        await out.show()
        await settle()
        assert len(found.units()) == len(many)
        assert len(found.shown()) == 4


async def test_damage_and_unknown_tables_are_passed_over() -> None:
    async with bench() as found:
        live, out = await found.owner("a")
        for payload in (b"", b"\xff", b"\x96\xa1\xff", b"\x91" * 50_000):
            found.server.send(found.broker.subject("rows", 0), payload)
        live.put("stock", [row(ZERO[0], 5)])
        await out.show()
        await settle()
        assert found.units() == {ZERO[0]: 5}
