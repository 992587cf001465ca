"""Orders over several SKUs: all of their lines or none."""

from __future__ import annotations

import logging
from typing import Final
from urllib.parse import quote

from engine.cqrs.messages import Rejected, check_id
from engine.engine import Engine
from engine.errors import InvalidCommand, OutcomeUnknown, SeckillError
from engine.inventory.order import Order
from engine.inventory.order_messages import OrderPaidTooLate
from engine.service.ids import check_sku, derived_id
from engine.service.replies import Reply, in_doubt, json_reply, problem, refused
from engine.service.wire import OrderLine, OrderView, PlaceOrderBody

logger = logging.getLogger(__name__)

TIMEOUT_MS: Final = 10_000


class Carts:
    """Every method takes the order id and raises what the engine raises."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def place(self, order_id: str, body: PlaceOrderBody, timeout_ms: int | None) -> Reply:
        """POST /v1/orders"""
        for each in body.lines:
            check_sku(each.sku)
        lines = {each.sku: each.quantity for each in body.lines}
        if len(lines) < len(body.lines):
            raise InvalidCommand("each SKU may be in one line of an order only")
        try:
            order = await self._engine.place_order(
                order_id, buyer=body.buyer, lines=lines, timeout_ms=timeout_ms or TIMEOUT_MS
            )
        except OutcomeUnknown:
            return in_doubt(order_id, _link(order_id))
        if isinstance(order, Rejected):
            return refused(order)
        if order.refused:
            return problem(409, "order_refused", "Not every line could be reserved", order.refused)
        return json_reply(_view(order_id, order), 201, [(b"location", _link(order_id).encode())])

    async def get(self, order_id: str) -> Reply:
        """GET /v1/orders/{id}"""
        check_id("order id", order_id)
        order = await self._engine.queries.order(order_id)
        if order is None:
            return problem(404, "unknown_order", "No such order was placed")
        return json_reply(_view(order_id, order))

    async def pay(self, order_id: str, command_id: str | None) -> Reply:
        """POST /v1/orders/{id}/pay. 409 paid_too_late: it had ended, so refund the buyer."""
        try:
            answer = await self._engine.pay_order(
                order_id, command_id=command_id or derived_id("pay", order_id)
            )
        except OutcomeUnknown:
            return in_doubt(order_id, _link(order_id))
        if isinstance(answer, Rejected):
            return refused(answer)
        if isinstance(answer, OrderPaidTooLate):
            return problem(
                *(409, "paid_too_late", "The order had ended before it was paid"),
                "its units may be sold to others: refund the buyer",
            )
        return await self._changed(order_id)

    async def cancel(self, order_id: str, command_id: str | None) -> Reply:
        """POST /v1/orders/{id}/cancel"""
        try:
            answer = await self._engine.cancel_order(
                order_id, command_id=command_id or derived_id("cancel", order_id)
            )
        except OutcomeUnknown:
            return in_doubt(order_id, _link(order_id))
        if isinstance(answer, Rejected):
            return refused(answer)
        return await self._changed(order_id)

    async def _changed(self, order_id: str) -> Reply:
        """The order after a change that is durable, whatever goes wrong while it is looked up."""
        try:
            return await self.get(order_id)
        except SeckillError as error:
            logger.warning("an order was changed and cannot be read now: %s", error)
            return in_doubt(order_id, _link(order_id))


def _link(order_id: str) -> str:
    return f"/v1/orders/{quote(order_id, safe='')}"


def _view(order_id: str, order: Order) -> OrderView:
    lines = [OrderLine(each.sku, each.quantity) for each in order.lines]
    until_ms = order.held_until_us // 1_000 or None
    return OrderView(
        *(order_id, order.buyer, order.step, lines, until_ms, order.waiting_for, order.refused)
    )
