"""Questions about SKUs and buyers. SKUs are as of the last commit; a buyer's list may lag behind."""

from __future__ import annotations

from engine.engine import Engine
from engine.errors import InvalidCommand
from engine.queries import ReservationRow as Row
from engine.service.access import Caller
from engine.service.ids import make_id
from engine.service.replies import Reply, json_reply, problem
from engine.service.wire import ReservationPage, ReservationRow, SkuPage


class Lookups:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def skus(self, after: str, limit: int) -> Reply:
        """GET /v1/skus"""
        rows = self._engine.live.page(after=after, limit=limit + 1)
        more = rows[limit - 1].sku if len(rows) > limit else None
        return json_reply(SkuPage(rows[:limit], more))

    def sku(self, sku: str) -> Reply:
        """GET /v1/skus/{sku}"""
        row = self._engine.live.row(sku)
        return unknown_sku() if row is None else json_reply(row)

    async def of_buyer(self, caller: Caller, buyer: str, after: str | None, limit: int) -> Reply:
        """GET /v1/buyers/{id}/reservations"""
        if not caller.owns(buyer):
            # As for a buyer that nobody knows.
            return json_reply(ReservationPage([], None))
        at_most_us, skip = _read_cursor(after)
        rows = await self._engine.queries.reservations_of(
            buyer, limit=limit + 1, at_most_us=at_most_us, skip=skip
        )
        page = rows[:limit]
        cursor = _cursor(page, at_most_us, skip) if len(rows) > limit else None
        return json_reply(ReservationPage([_row(each) for each in page], cursor))


def unknown_sku() -> Reply:
    return problem(404, "unknown_sku", "No sale of this SKU was ever opened")


def _row(row: Row) -> ReservationRow:
    held = row.state == "held"
    return ReservationRow(
        *(make_id(row.sku, row.reservation_id), row.sku, row.buyer, row.quantity),
        state=row.state,
        held_until_ms=row.held_until_us // 1_000 if held else None,
        order_id=row.order_id,
        reserved_at_ms=row.reserved_at_us // 1_000,
    )


def _cursor(page: list[Row], at_most_us: int | None, skip: int) -> str:
    """Where the next page begins: a time, and how many rows of exactly that time were shown."""
    last_us = page[-1].reserved_at_us
    shown = sum(each.reserved_at_us == last_us for each in page)
    return f"{last_us}.{shown + (skip if last_us == at_most_us else 0)}"


def _read_cursor(text: str | None) -> tuple[int | None, int]:
    if text is None:
        return None, 0
    at_us, dot, skip = text.partition(".")
    if not (dot and at_us.isdigit() and skip.isdigit() and len(text) <= 28 and text.isascii()):
        raise InvalidCommand(f"after must be `next` of the page before, got {text[:40]!a}")
    return int(at_us), int(skip)
