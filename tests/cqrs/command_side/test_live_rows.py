"""The rows in memory are those of the table, and change only by what is durable."""

from __future__ import annotations

from engine.cqrs.command_side.live_rows import LiveRows
from engine.cqrs.event_store import NewCommit, RowChange, Table
from engine.stores.memory import MemoryStore
from engine.testing.virtual_clock import VirtualClock

BOX = Table("box", "name", ("units", "version"), ("colour",))


async def loaded() -> LiveRows:
    rows = LiveRows()
    await rows.load(MemoryStore(1, (BOX,), VirtualClock()), (BOX,))
    return rows


def commit(*changes: RowChange) -> NewCommit:
    return NewCommit("box", "a", 1, 1, b"", 0, changes)


MADE = commit(RowChange("box", "a", insert=True, put={"units": 5, "version": 1, "colour": "red"}))


async def test_a_row_is_made_then_added_to_and_replaced_in() -> None:
    rows = await loaded()
    assert dict(rows.table("box")) == {}
    rows.note_durable([MADE])
    assert rows.table("box")["a"] == {"name": "a", "units": 5, "version": 1, "colour": "red"}
    rows.note_durable([commit(RowChange("box", "a", add={"units": -2}, put={"version": 2}))])
    assert rows.table("box")["a"] == {"name": "a", "units": 3, "version": 2, "colour": "red"}


async def test_who_holds_a_row_does_not_see_it_change() -> None:
    rows = await loaded()
    rows.note_durable([MADE])
    held = rows.table("box")["a"]
    rows.note_durable([commit(RowChange("box", "a", add={"units": 1}))])
    assert held["units"] == 5
    assert rows.table("box")["a"]["units"] == 6


async def test_each_watcher_is_told_of_what_changed_since_it_looked() -> None:
    rows = await loaded()
    first = rows.watch()
    rows.note_durable([MADE])
    second = rows.watch()
    rows.note_durable([commit(RowChange("box", "a", add={"units": 1}))] * 2)
    assert first == second == {("box", "a")}
    first.clear()
    assert second == {("box", "a")}
    rows.note_durable([commit(RowChange("box", "b", insert=True, put={"units": 0}))])
    assert first == {("box", "b")}


async def test_who_watches_no_more_is_told_nothing_also_when_another_set_is_equal() -> None:
    rows = await loaded()
    gone, stays = rows.watch(), rows.watch()
    rows.unwatch(gone)
    rows.note_durable([MADE])
    assert (gone, stays) == (set(), {("box", "a")})


async def test_a_watcher_that_fails_stops_neither_the_writer_nor_the_other_watchers() -> None:
    rows = await loaded()

    def fail() -> None:
        raise RuntimeError("the page has a bug")

    told: list[str] = []
    rows.watch(fail)
    rows.watch(lambda: told.append("news"))
    rows.note_durable([MADE])
    assert told == ["news"]
