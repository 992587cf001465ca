"""Which orders wait for their answer now, so that their buyers can be told how long the queue is.

An order costs nothing for being found: the queue of its SKU is gone through when somebody asks, at
most once in `LOOK_SECONDS`, for all who ask. Where the queue is another node's, it is asked then.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Final, NamedTuple

from engine.clock import Clock
from engine.inventory.commands import Reserve
from engine.live_stock import LiveStock

LOOK_SECONDS: Final = 0.25
"""A full queue of 65,536 orders takes some ten milliseconds to go through."""


class Place(NamedTuple):
    """`position` 1 is next, 0 is being written."""

    position: int
    buyer: str


class Look(NamedTuple):
    """What was found for one SKU, and for whom it was looked."""

    asked: frozenset[str]
    places: Mapping[str, Place]


class Waiting:
    """The places of the SKUs that somebody asked for, as they were up to `LOOK_SECONDS` ago."""

    def __init__(self, live: LiveStock, clock: Clock) -> None:
        self._live = live
        self._clock = clock
        self._looked_at = 0.0
        self._looks: dict[str, Look] = {}
        self._looking: dict[str, asyncio.Task[Look]] = {}
        self._asking: dict[str, set[str]] = {}
        self._asked_before: dict[str, set[str]] = {}

    async def find(self, sku: str, command_id: str) -> Place | None:
        """Where an order stands, None when it does not wait."""
        if not self._live.sees_all_waiting and self._live.row(sku) is None:
            # Names that somebody made up are no question to another node.
            return None
        self._begin_anew()
        look = self._looks.get(sku)
        while True:
            self._asking.setdefault(sku, set()).add(command_id)
            if look is not None and (self._live.sees_all_waiting or command_id in look.asked):
                return look.places.get(command_id)
            look = await self._look_once(sku)

    def _begin_anew(self) -> None:
        now = self._clock.monotonic()
        if now - self._looked_at >= LOOK_SECONDS:
            self._looks = {}
            self._asked_before, self._asking = self._asking, {}
            self._looked_at = now

    async def _look_once(self, sku: str) -> Look:
        """The look that is under way, or one that begins now: one at a time, however many ask."""
        task = self._looking.get(sku)
        if task is None:
            task = self._looking[sku] = asyncio.create_task(self._look(sku))
            task.add_done_callback(lambda _: self._looking.pop(sku))
        # Others wait for it as well when this one leaves.
        return await asyncio.shield(task)

    async def _look(self, sku: str) -> Look:
        """Look for all who ask, and for those who asked a moment ago and will again."""
        asked = self._asking.get(sku, set()) | self._asked_before.get(sku, set())
        found = await self._live.waiting(sku, asked)
        places = {
            id_: Place(position, command.buyer)
            for id_, (position, command) in found.items()
            if isinstance(command, Reserve)
        }
        look = self._looks[sku] = Look(frozenset(asked), places)
        return look
