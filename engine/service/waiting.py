"""Which orders wait for their answer now, so that their buyers can be told how long the queue is.

An order costs nothing for being found: the queue of its SKU is gone through when somebody asks, at
most once in `LOOK_SECONDS`, for all who ask.
"""

from __future__ import annotations

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


class Waiting:
    """The places of the SKUs that somebody asked for, as they were up to `LOOK_SECONDS` ago."""

    def __init__(self, live: LiveStock, clock: Clock) -> None:
        self._live = live
        self._clock = clock
        self._looked_at = 0.0
        self._places: dict[str, dict[str, Place]] = {}

    def find(self, sku: str, command_id: str) -> Place | None:
        """Where an order stands, None when it does not wait."""
        now = self._clock.monotonic()
        if now - self._looked_at >= LOOK_SECONDS:
            self._places = {}
            self._looked_at = now
        places = self._places.get(sku)
        if places is None:
            places = self._places[sku] = {
                command.id: Place(position, command.buyer)
                for position, command in self._live.waiting(sku)
                if isinstance(command, Reserve)
            }
        return places.get(command_id)
