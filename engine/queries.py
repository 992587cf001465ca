"""What a program may ask: reservations of a buyer, orders, figures, and how fresh they are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal, TypeAlias

import msgspec

from engine.cqrs.codec import Codec
from engine.cqrs.event_store import EventReader
from engine.cqrs.query_side.query_side import QuerySide
from engine.cqrs.query_side.read_model import ReadStore, Select
from engine.errors import ConfigError
from engine.inventory.order import ORDER, Order
from engine.inventory.order import evolve as evolve_order

PAGE_COMMITS: Final = 1_000


State: TypeAlias = Literal["final", "held", "paid", "released"]


class ReservationRow(msgspec.Struct, frozen=True):
    """A row of the read model `orders`. `state`: final, held, paid or released."""

    sku: str
    reservation_id: str
    buyer: str
    state: State
    order_id: str
    quantity: int
    held_until_us: int
    reserved_at_us: int


class SalesRow(msgspec.Struct, frozen=True):
    """What one SKU did in one second: `orders`, `paid_too_late` and `refused_...` (orders) are counts,
    the rest units."""

    sku: str
    second: int
    orders: int
    sold: int
    paid: int
    given_back: int
    paid_too_late: int
    added: int
    withdrawn: int
    refused_sold_out: int
    refused_over_limit: int
    refused_paused: int
    refused_closed: int


class Queries:
    """The questions of an engine. Read models lag behind by `lag`, unless they are kept inline."""

    def __init__(
        self, reader: EventReader, query_side: QuerySide, places: Mapping[str, ReadStore]
    ) -> None:
        """`places` names the read models that are kept, and the store of their rows."""
        self._reader = reader
        self.query_side = query_side
        self._places = places
        self._order_codec = Codec(ORDER.events, ORDER.upcasters)
        self.lag = query_side.lag
        self.caught_up = query_side.caught_up
        self.rebuild = query_side.rebuild
        self.dead_letters = query_side.dead_letters
        self.retry_dead_letters = query_side.retry

    async def reservations_of(
        self, buyer: str, *, limit: int = 100, at_most_us: int | None = None, skip: int = 0
    ) -> list[ReservationRow]:
        """The newest reservations of a buyer, newest first.

        With `at_most_us` only those made by then, without the first `skip` of them. Raises
        ConfigError when `orders` is off, StoreUnavailable.
        """
        query = Select(
            "orders",
            {"buyer": buyer},
            None if at_most_us is None else ("reserved_at_us", at_most_us),
            order_by=("reserved_at_us", "reservation_id"),
            descending=True,
            limit=limit,
            skip=skip,
        )
        return msgspec.convert(await self._place("orders").select(query), list[ReservationRow])

    async def sales_of(self, sku: str, *, seconds: int = 3_600) -> list[SalesRow]:
        """The newest seconds in which something happened to a SKU, oldest first.

        Raises ConfigError when `sales` is off, StoreUnavailable.
        """
        query = Select("sales", {"sku": sku}, order_by=("second",), descending=True, limit=seconds)
        rows = await self._place("sales").select(query)
        return msgspec.convert(rows[::-1], list[SalesRow])

    async def order(self, order_id: str) -> Order | None:
        """An order as its events say: at which step it is, and what it is waiting for.

        Never behind an answer you got. None when it was never placed. Raises StoreUnavailable.
        """
        commits = await self._reader.read_stream((ORDER.name, order_id), 0, PAGE_COMMITS)
        state = ORDER.initial()
        for commit in commits:
            for event in self._order_codec.decode(commit):
                state = evolve_order(state, event)
        return state if commits else None

    def _place(self, name: str) -> ReadStore:
        if name not in self._places:
            raise ConfigError(f'the read model {name} is off; set query_side.{name} to "async"')
        return self._places[name]
