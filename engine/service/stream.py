"""GET /v1/stream: the whole sale, live, as server-sent events: a snapshot, then points.

One task makes the points, four times a second at most, whoever looks. A reader who is slow misses
points and nothing waits for it: each reader has a place in one short history, not a queue. Readers of one
SKU, which is what buyers are, hear of it only when it has changed.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Sequence
from typing import Final, NamedTuple

import msgspec

from engine.clock import Clock
from engine.engine import Engine
from engine.errors import SeckillError
from engine.service.figures import LiveSku, Point, is_quiet, live_sku, make_point
from engine.service.wire import About

logger = logging.getLogger(__name__)

TICK_SECONDS: Final = 0.25
QUIET_TICKS_MAX: Final = 4
"""A point is made at least once a second, so that charts and clocks of pages go on."""

POINTS_KEPT: Final = 1_200
"""Five minutes at four a second."""

RECENT_KEPT: Final = 20
"""Points kept with their rows, for readers who are slow: five seconds. A sale of ten thousand SKUs may
change a megabyte of rows in each."""

HEARTBEAT_SECONDS: Final = 15.0
"""Proxies close what is silent for a minute, some for thirty seconds."""

HEARTBEAT: Final = b": still here\n\n"

SNAPSHOT_SKUS_MAX: Final = 1_000
READERS_MAX: Final = 1_000
"""Each costs an encoding of up to 1,000 rows at its start, and a socket."""

encode = msgspec.json.Encoder().encode


class Snapshot(msgspec.Struct, frozen=True):
    """Where a reader begins. `history` are points without SKUs, oldest first."""

    id: int
    at_ms: int
    about: About
    skus: list[LiveSku]
    history: list[Point]


class SkuPoint(msgspec.Struct, frozen=True):
    """What a reader of one SKU is told: buyers need no more, and a sale may keep its figures."""

    id: int
    at_ms: int
    skus: list[LiveSku]


class Kept(NamedTuple):
    """A point of late: encoded with its rows, and which SKUs changed in it."""

    id: int
    event: bytes
    changed: frozenset[str]


class Stream:
    """Makes the points of one engine."""

    def __init__(self, engine: Engine, about: About, clock: Clock) -> None:
        self._engine = engine
        self._about = about
        self._clock = clock
        self._watch = engine.live.watch()
        self._points: deque[Point] = deque(maxlen=POINTS_KEPT)
        self._recent: deque[Kept] = deque(maxlen=RECENT_KEPT)
        self._before = engine.statistics()
        self._at = clock.monotonic()
        # A page that comes back after a restart must not take old ids for newer ones.
        self._id = clock.wall_us() // 1_000
        self._news = asyncio.Event()
        self._lag_commits = 0
        self._of_sku: dict[str, bytes] = {}
        self._closed = False
        self.readers = 0

    async def run(self) -> None:
        """Make points until cancelled."""
        quiet = ticks = 0
        while True:
            await self._clock.sleep(TICK_SECONDS)
            if self.readers and ticks % QUIET_TICKS_MAX == 0:
                await self._measure_lag()
            ticks += 1
            quiet += 1
            if self.tick(force=quiet == QUIET_TICKS_MAX):
                quiet = 0

    def tick(self, *, force: bool) -> bool:
        """Make the point that is due; when nothing happened only with `force`."""
        now, statistics = self._clock.monotonic(), self._engine.statistics()
        changed = [live_sku(each, self._engine.live) for each in self._watch.drain()]
        point = make_point(
            self._id + 1,
            self._clock.wall_us() // 1_000,
            max(1, round((now - self._at) * 1_000)),
            *(self._before, statistics, self._lag_commits, changed),
        )
        if is_quiet(point) and not force:
            return False
        self._id, self._before, self._at = point.id, statistics, now
        kept = msgspec.structs.replace(point, skus=[])
        names = frozenset(each.sku for each in changed)
        self._points.append(kept)
        self._recent.append(Kept(point.id, _event("point", point), names))
        self._of_sku = {}
        self._news.set()
        self._news = asyncio.Event()
        return True

    def snapshot(self, sku: str | None, after_id: int | None) -> bytes:
        """The first event of a reader who has seen the points up to `after_id`."""
        live = self._engine.live
        if sku is None:
            rows = live.page(limit=SNAPSHOT_SKUS_MAX)
        else:
            rows = [row for row in (live.row(sku),) if row is not None]
        # The page of one SKU draws no charts, and a crowd of buyers opens it.
        wanted = self._points if sku is None else ()
        history = [each for each in wanted if after_id is None or each.id > after_id]
        skus = [live_sku(each, live) for each in rows]
        at_ms = self._clock.wall_us() // 1_000
        return _event("snapshot", Snapshot(self._id, at_ms, self._about, skus, history))

    async def read(self, sku: str | None, after_id: int | None) -> AsyncIterator[bytes]:
        """The events for one reader, until it leaves or the service closes."""
        self.readers += 1
        try:
            yield self.snapshot(sku, after_id)
            seen, told_at = self._id, self._clock.monotonic()
            while not self._closed:
                if self._id == seen:
                    await self._wait(self._news)
                if self._recent and seen < self._recent[0].id - 1:
                    # Rows have changed in points that are gone: everything as it is now.
                    before, seen = seen, self._id
                    yield self.snapshot(sku, before)
                    continue
                missed, seen = self._since(seen), self._id
                events = [each.event for each in missed]
                if sku is not None:
                    changed = any(sku in each.changed for each in missed)
                    events = [self._newest_of(sku)] if changed else []
                now = self._clock.monotonic()
                if not events and now - told_at >= HEARTBEAT_SECONDS:
                    events = [HEARTBEAT]
                for event in events:
                    yield event
                    told_at = now
        finally:
            self.readers -= 1

    def close(self) -> None:
        """End every reader's stream."""
        self._closed = True
        self._news.set()
        self._watch.close()

    def _since(self, seen: int) -> Sequence[Kept]:
        """What a reader has missed; from the end, which is where the newest are."""
        missed: list[Kept] = []
        for each in reversed(self._recent):
            if each.id <= seen:
                break
            missed.append(each)
        return missed[::-1]

    def _newest_of(self, sku: str) -> bytes:
        """The newest row of one SKU, made once for all who look at it."""
        event = self._of_sku.get(sku)
        if event is None:
            row, live = self._engine.live.row(sku), self._engine.live
            skus = [] if row is None else [live_sku(row, live)]
            newest = self._points[-1]
            event = self._of_sku[sku] = _event("point", SkuPoint(newest.id, newest.at_ms, skus))
        return event

    async def _wait(self, news: asyncio.Event) -> None:
        """Wait for the next point, or for a heartbeat's time."""
        waiting = asyncio.ensure_future(news.wait())

        def give_up() -> None:
            waiting.cancel()

        timer = self._clock.call_later(HEARTBEAT_SECONDS, give_up)
        try:
            await asyncio.wait((waiting,))
        finally:
            timer.cancel()
            waiting.cancel()

    async def _measure_lag(self) -> None:
        try:
            lags = await self._engine.queries.lag()
        except SeckillError as error:
            logger.debug("how far read models are behind is not known now: %s", error)
            return
        self._lag_commits = max((each.commits for each in lags), default=0)


def _event(kind: str, record: Point | SkuPoint | Snapshot) -> bytes:
    return b"event: %s\nid: %d\ndata: %s\n\n" % (kind.encode(), record.id, encode(record))
