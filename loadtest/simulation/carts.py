"""Orders of several SKUs, sent and noted like orders of one.

PlaceOrder --place_order--> (OrderPlaced, OrderReserved), or Rejected when a line was refused
"""

from __future__ import annotations

from collections.abc import Sequence

from engine.cqrs.messages import Answer, Command, Rejected
from engine.engine import Engine
from engine.errors import SeckillError
from engine.inventory.checkout import line_id
from engine.inventory.commands import Reserve
from engine.inventory.events import Reserved
from engine.inventory.history import HistoryWriter
from engine.inventory.order_messages import OrderPlaced, OrderReserved, PlaceOrder
from loadtest.workload import Order


class Till:
    """What a crowd executes its orders with."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def execute(self, command: Command) -> Answer:
        """Execute a Reserve, or a PlaceOrder until its lines are reserved or given back.

        Raises what `Engine.place_order` raises.
        """
        if not isinstance(command, PlaceOrder):
            return await self._engine.execute(command)
        lines = {each.sku: each.quantity for each in command.lines}
        order = await self._engine.place_order(command.id, buyer=command.buyer, lines=lines)
        if isinstance(order, Rejected):
            return order
        if order.refused:
            return Rejected(order.refused.rpartition(": ")[2], f"the order {order.refused}")
        placed = OrderPlaced(command.id, order.buyer, order.lines)
        return (placed, OrderReserved(command.id, order.held_until_us))


class Notebook:
    """Notes a crowd's orders in a history, a cart line by line under the ids of its reservations.

    A line of a refused cart may have been reserved and given back, so it is noted as asked for and
    not as answered: the audit then expects it to be stored as it was asked, or not at all.
    """

    def __init__(self, history: HistoryWriter) -> None:
        self._history = history

    def invoke(self, orders: Sequence[Order]) -> None:
        self._history.invoke([line for each in orders for line in lines_of(each)])

    def answered(self, order: Order, outcome: Answer | SeckillError) -> None:
        if isinstance(order, Reserve):
            self._history.answered(order.id, outcome)
        elif isinstance(outcome, tuple):
            self._history.answered_many(
                (line.id, Reserved(line.id, line.buyer, line.quantity)) for line in lines_of(order)
            )


def lines_of(order: Order) -> list[Reserve]:
    """The reservations that an order stands for: itself, or one a line."""
    if isinstance(order, Reserve):
        return [order]
    return [
        Reserve(line_id(order.id, each.sku), each.sku, order.buyer, each.quantity)
        for each in order.lines
    ]
