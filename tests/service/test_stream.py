"""The live page: a snapshot, then points, whoever is slow."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any

import pytest

from engine.service import public
from engine.service.stream import HEARTBEAT_SECONDS, POINTS_KEPT, RECENT_KEPT, TICK_SECONDS
from engine.testing.virtual_clock import settle
from tests.service.api import Api, serving


@asynccontextmanager
async def live() -> AsyncIterator[Api]:
    """A service whose points are being made, with two SKUs."""
    async with serving() as api:
        running = asyncio.create_task(api.service.run())
        await settle()
        await api.open("PHONE", 9, hold_seconds=60)
        await api.open("HAT", 9)
        await tick(api)
        yield api
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def tick(api: Api, times: int = 1) -> None:
    for _ in range(times):
        api.clock.advance(TICK_SECONDS)
        await settle()


class Reader:
    """Takes the events of a stream as they come."""

    def __init__(self, events: AsyncIterator[tuple[str, Any]]) -> None:
        self.events: list[tuple[str, Any]] = []
        self.task = asyncio.create_task(self._read(events))

    async def _read(self, events: AsyncIterator[tuple[str, Any]]) -> None:
        async for each in events:
            self.events.append(each)

    def points(self) -> list[Any]:
        return [data for name, data in self.events if name == "point"]


@asynccontextmanager
async def reading(api: Api, path: str = "/v1/stream", **more: Any) -> AsyncIterator[Reader]:
    async with aclosing(api.public.events(path, **more)) as events:  # type: ignore[type-var]
        reader = Reader(events)
        await settle()
        yield reader
        reader.task.cancel()
        await asyncio.gather(reader.task, return_exceptions=True)


def row(sku: str = "PHONE", **changes: Any) -> dict[str, Any]:
    hold_seconds = 60 if sku == "PHONE" else 0
    return {
        "sku": sku,
        "phase": "open",
        "available": 9,
        "reserved": 0,
        "paid": 0,
        "limit_per_buyer": 0,
        "hold_seconds": hold_seconds,
        "refused": {},
        **changes,
    }


async def test_a_reader_gets_everything_as_it_is_then_what_changes() -> None:
    async with live() as api, reading(api) as reader:
        ((name, snapshot),) = reader.events
        assert name == "snapshot"
        assert snapshot["skus"] == [row("HAT"), row("PHONE")]
        assert snapshot["about"] == (await api.public.get("/v1/about")).body
        assert snapshot["at_ms"] == 1_000_250
        assert [(each["id"], each["skus"]) for each in snapshot["history"]] == [
            (snapshot["id"], [])
        ]
        assert snapshot["history"][0]["accepted"] == 2
        await api.public.reserve("PHONE", "alice", 2, key="1")
        await api.public.reserve("PHONE", "alice", 99, key="2")
        await tick(api)
        (point,) = reader.points()
        assert point["id"] == snapshot["id"] + 1
        assert (point["at_ms"], point["interval_ms"]) == (1_000_500, 250)
        assert (point["decided"], point["accepted"]) == (2, 1)
        assert point["refused"] == {"sold_out": 1}
        assert (point["batches"], point["batch_size_mean"], point["batch_size_max"]) == (2, 1.0, 1)
        assert point["closed_by"] == {"idle": 2}
        assert (point["overloaded"], point["unknown"], point["queue_depth"]) == (0, 0, 0)
        assert set(point["latency_ms"]) == {"p50", "p99"}
        # Only what changed, as it is now.
        assert point["skus"] == [row(available=7, reserved=2, refused={"sold_out": 1})]


async def test_many_changes_of_a_quarter_of_a_second_are_one_point() -> None:
    async with live() as api, reading(api) as reader:
        for number in range(5):
            await api.public.reserve("PHONE", f"buyer-{number}", key=str(number))
            await api.public.reserve("HAT", f"buyer-{number}", key=str(number))
        await settle()
        assert reader.points() == []
        await tick(api)
        (point,) = reader.points()
        assert (point["accepted"], point["batches"]) == (10, 10)
        assert sorted((each["sku"], each["available"]) for each in point["skus"]) == [
            ("HAT", 4),
            ("PHONE", 4),
        ]


async def test_counts_of_all_points_add_up_to_the_statistics_of_the_engine() -> None:
    async with live() as api, reading(api) as reader:
        for number in range(30):
            await api.public.reserve("PHONE", f"buyer-{number}", key=str(number))
            if number % 7 == 0:
                await tick(api, number % 3)
        await tick(api, 4)
        points = [*reader.events[0][1]["history"], *reader.points()]
        now = api.engine.statistics()
        assert sum(each["accepted"] for each in points) == now.accepted
        assert (
            sum(each["refused"].get("sold_out", 0) for each in points) == now.rejected["sold_out"]
        )
        assert sum(each["batches"] for each in points) == sum(now.batch_sizes.values())
        assert reader.points()[-1]["skus"] == []


async def test_when_nothing_happens_there_is_a_point_a_second() -> None:
    async with live() as api, reading(api) as reader:
        await tick(api, 12)
        assert [each["interval_ms"] for each in reader.points()] == [1_000] * 3
        assert {each["decided"] for each in reader.points()} == {0}
        assert {each["latency_ms"] for each in reader.points()} == {None}


async def test_a_reader_who_comes_back_gets_only_the_points_they_missed() -> None:
    async with live() as api:
        async with reading(api) as reader:
            await tick(api, 4)
            seen = reader.points()[-1]["id"]
        await api.public.reserve("PHONE", "alice", key="1")
        await tick(api)
        await api.public.reserve("PHONE", "alice", key="2")
        await tick(api)
        async with reading(api, headers={"last-event-id": str(seen)}) as back:
            snapshot = back.events[0][1]
            assert [each["id"] for each in snapshot["history"]] == [seen + 1, seen + 2]
            assert [each["accepted"] for each in snapshot["history"]] == [1, 1]
            assert snapshot["skus"][1] == row(available=7, reserved=2)
        async with reading(api, headers={"last-event-id": "0"}) as other:
            # One of long ago, or of another server, gets all there is.
            assert len(other.events[0][1]["history"]) == 4


@pytest.mark.parametrize("text", ["", "x", "-1", "1.5", "9" * 19])
async def test_an_event_id_that_is_none_is_400(text: str) -> None:
    async with serving() as api:
        reply = await api.public.get("/v1/stream", headers={"last-event-id": text})
        assert (reply.status, reply.reason) == (400, "invalid")
        assert "Last-Event-ID must be the id of an event seen before" in reply.body["detail"]


async def test_a_reader_of_one_sku_hears_of_it_only_when_it_changed_and_gets_no_history() -> None:
    async with live() as api, reading(api, "/v1/stream?sku=PHONE") as reader:
        assert reader.events[0][1]["skus"] == [row()]
        assert reader.events[0][1]["history"] == []
        await api.public.reserve("HAT", "alice", key="1")
        await tick(api)
        assert reader.points() == []
        await api.public.reserve("PHONE", "alice", key="1")
        await tick(api)
        assert [each["skus"] for each in reader.points()] == [[row(available=8, reserved=1)]]


async def test_a_reader_may_wait_for_a_sku_that_is_not_opened_yet() -> None:
    async with live() as api, reading(api, "/v1/stream?sku=NEW%20ONE") as reader:
        assert reader.events[0][1]["skus"] == []
        await api.open("NEW ONE", 1)
        await tick(api)
        assert [each["sku"] for each in reader.points()[-1]["skus"]] == ["NEW ONE"]
        reply = await api.public.get("/v1/stream?sku=")
        assert (reply.status, reply.reason) == (400, "invalid")


async def test_a_reader_who_is_slow_holds_nobody_up_and_gets_what_they_missed_in_order() -> None:
    async with live() as api, reading(api) as quick:
        slow = api.public.events("/v1/stream")
        name, snapshot = await anext(slow)
        assert name == "snapshot"
        for number in range(6):
            await api.public.reserve("PHONE", "alice", key=str(number))
            await tick(api)
        assert [each["accepted"] for each in quick.points()] == [1] * 6
        late = [(await anext(slow))[1] for _ in range(6)]
        assert late == quick.points()
        assert late[0]["id"] == snapshot["id"] + 1
        await slow.aclose()  # type: ignore[attr-defined]


async def test_a_reader_who_is_too_slow_for_what_is_kept_begins_anew_with_every_row_as_it_is() -> (
    None
):
    async with live() as api:
        slow = api.public.events("/v1/stream")
        _, first = await anext(slow)
        await api.public.reserve("PHONE", "alice", key="1")
        stream = api.service.stream
        for _ in range(RECENT_KEPT + 2):
            assert stream.tick(force=True)
        name, again = await anext(slow)
        assert name == "snapshot"
        assert row(available=8, reserved=1) in again["skus"]
        assert again["history"][0]["id"] == first["id"] + 1
        assert len(again["history"]) == RECENT_KEPT + 2
        await slow.aclose()  # type: ignore[attr-defined]


async def test_the_history_is_bounded() -> None:
    async with serving() as api:
        stream = api.service.stream
        for _ in range(POINTS_KEPT + 5):
            assert stream.tick(force=True)
        async with reading(api) as reader:
            ids = [each["id"] for each in reader.events[0][1]["history"]]
            assert len(ids) == POINTS_KEPT
            assert ids[-1] == reader.events[0][1]["id"]


async def test_a_silent_stream_says_that_it_is_still_there() -> None:
    # Nobody makes points here.
    async with serving() as api, reading(api) as reader:
        api.clock.advance(HEARTBEAT_SECONDS - 0.25)
        await settle()
        assert len(reader.events) == 1
        api.clock.advance(0.25)
        await settle()
        assert reader.events[1:] == [("", "still here")]


async def test_at_the_closing_every_stream_ends() -> None:
    async with live() as api, reading(api) as reader, reading(api, "/v1/stream?sku=HAT") as other:
        assert api.service.stream.readers == 2
        api.service.stop_taking()
        await settle()
        assert reader.task.done()
        assert other.task.done()
        assert api.service.stream.readers == 0


async def test_who_leaves_is_no_reader_any_more() -> None:
    async with live() as api:
        async with reading(api):
            assert api.service.stream.readers == 1
        await settle()
        assert api.service.stream.readers == 0


async def test_beyond_so_many_readers_one_more_is_told_to_come_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(public, "READERS_MAX", 1)
    async with live() as api, reading(api):
        reply = await api.public.get("/v1/stream")
        assert (reply.status, reply.reason) == (503, "too_many_readers")


async def test_who_asks_for_the_head_of_a_stream_gets_that_and_no_stream() -> None:
    async with live() as api:
        reply = await api.public.send("HEAD", "/v1/stream")
        assert (reply.status, reply.content) == (200, b"")
        assert reply.headers["content-type"].startswith("text/event-stream")
        assert api.service.stream.readers == 0
