"""GET /v1/commands/{id}/stream: one buyer's place in the queue while it waits, then the answer.

    event: queue    {"position": 12, "ahead": 11}
    event: result   {"status": 201, "body": {...}}     what the POST is answered

It may be opened before the POST has arrived, and again after a reload.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Final

import msgspec

from engine.clock import Clock
from engine.errors import SeckillError
from engine.live_stock import LiveStock
from engine.service.access import Caller, Denied
from engine.service.ids import split_id
from engine.service.replies import Reply, failed, too_many_readers
from engine.service.reservations import Reservations, unknown_command
from engine.service.waiting import LOOK_SECONDS, Waiting

UNKNOWN_LOOKS_MAX: Final = 20
"""Five seconds for a POST that was sent at the same time to arrive."""

UNKNOWN_ASKED_AT: Final = frozenset({0, 1, 3, 7, 15, UNKNOWN_LOOKS_MAX})
"""Looks after which another node is asked for what is unknown so far: each question goes through its
queue, and ids that somebody made up would fill it."""

READERS_MAX: Final = 10_000
"""Each looks four times a second, for a few microseconds."""

LOOKS_MAX: Final = 2_400
"""Ten minutes, which is the longest time a request may name."""


class QueuePlace(msgspec.Struct, frozen=True):
    """`position` 1 is next and 0 is being written; `ahead` orders come before it."""

    position: int
    ahead: int


class Result(msgspec.Struct, frozen=True):
    """The reply as the POST gets it."""

    status: int
    body: msgspec.Raw


class BuyerStreams:
    def __init__(
        self, live: LiveStock, waiting: Waiting, reservations: Reservations, clock: Clock
    ) -> None:
        self._waiting = waiting
        self._reservations = reservations
        self._clock = clock
        self._live = live
        self._closed = False
        self.readers = 0

    def open(self, caller: Caller, id_: str) -> AsyncIterator[bytes]:
        """The stream of one command. Raises InvalidCommand for what is no id, Denied when too many
        are open."""
        split_id(id_)
        if self.readers >= READERS_MAX:
            raise Denied(too_many_readers())
        return self.read(caller, id_)

    async def read(self, caller: Caller, id_: str) -> AsyncIterator[bytes]:
        """The events of one command, ending with its result."""
        self.readers += 1
        try:
            async for event in self._look(caller, id_):
                yield event
        finally:
            self.readers -= 1

    async def _look(self, caller: Caller, id_: str) -> AsyncIterator[bytes]:
        told: QueuePlace | None = None
        asking: asyncio.Task[Reply | None] | None = None
        unknown = 0
        try:
            for _ in range(LOOKS_MAX):
                place = await self._place(caller, id_)
                if place is not None:
                    if place != told:
                        yield _event(b"queue", place)
                    told, unknown = place, 0
                elif asking is None and self._is_to_ask(unknown):
                    asking = asyncio.create_task(self._answer(caller, id_))
                # The question waits in the queue as well, and the order may come behind it.
                if asking is not None and await self._is_answered(asking):
                    reply, asking = asking.result(), None
                    if reply is not None and reply.status not in (202, 503):
                        yield _event(b"result", Result(reply.status, msgspec.Raw(reply.body)))
                        return
                    unknown += reply is None
                elif asking is None and place is None:
                    unknown += 1
                if self._closed or unknown > UNKNOWN_LOOKS_MAX:
                    break
                if asking is None:
                    await self._clock.sleep(LOOK_SECONDS)
        finally:
            if asking is not None:
                asking.cancel()
        if unknown > UNKNOWN_LOOKS_MAX:
            reply = unknown_command()
            yield _event(b"result", Result(reply.status, msgspec.Raw(reply.body)))

    def _is_to_ask(self, unknown: int) -> bool:
        return self._live.sees_all_waiting or unknown in UNKNOWN_ASKED_AT

    async def _is_answered(self, asking: asyncio.Task[Reply | None]) -> bool:
        """Wait for an answer until the next look."""
        over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def end() -> None:
            if not over.done():
                over.set_result(None)

        timer = self._clock.call_later(LOOK_SECONDS, end)
        try:
            await asyncio.wait((asking, over), return_when=asyncio.FIRST_COMPLETED)
        finally:
            timer.cancel()
            over.cancel()
        return asking.done()

    def close(self) -> None:
        """End every stream at its next look."""
        self._closed = True

    async def _place(self, caller: Caller, id_: str) -> QueuePlace | None:
        place = await self._waiting.find(*split_id(id_))
        if place is None or not caller.owns(place.buyer):
            return None
        return QueuePlace(place.position, max(0, place.position - 1))

    async def _answer(self, caller: Caller, id_: str) -> Reply | None:
        if not self._live.may_know(*split_id(id_)):
            # Known without a question in the queue, which ids that somebody made up would fill.
            return None
        try:
            return await self._reservations.answer(caller, id_)
        except SeckillError as error:
            return failed(error)


def _event(kind: bytes, record: QueuePlace | Result) -> bytes:
    return b"event: %s\ndata: %s\n\n" % (kind, msgspec.json.encode(record))
