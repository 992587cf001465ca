"""Buyers on real connections, who note what they ask and what they are told.

An order is noted before it is sent. A connection that ends leaves its order unknown, to be asked for
again with the same key; an answer that differs from an earlier one is in `contradictions`.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import Final
from urllib.parse import urlsplit

from engine.cqrs.messages import Outcome, Rejected
from engine.errors import EngineClosed, OutcomeUnknown, SeckillError
from engine.inventory.commands import Reserve
from engine.inventory.events import Reserved
from engine.inventory.history import HistoryWriter
from loadtest.http_client import HttpConnection

LIST_ORDERS: Final = 20
BUYERS: Final = 40
"""Few, so that a limit per buyer refuses some of their orders."""

ANSWER_SECONDS_MAX: Final = 30.0

Told = tuple[int, str]
"""What an order was answered: its status, and why when it was refused."""

Buy = Callable[[HttpConnection], Awaitable[None]]


class HttpCrowd:
    """`answers` holds the definite answers by order, `open_orders` what has none yet.

    `doubtful` are those of the open ones whose connection ended, or which were told 202.
    """

    def __init__(self, url: str, skus: Sequence[str], writer: HistoryWriter, seed: int) -> None:
        at = urlsplit(url)
        self._address = (at.hostname or "", at.port or 0)
        self._skus = skus
        self._writer = writer
        self._watched: list[tuple[int, asyncio.Event]] = []
        self.chance = random.Random(seed)
        self.orders: dict[str, Reserve] = {}
        self.answers: dict[str, Told] = {}
        self.open_orders: dict[str, Reserve] = {}
        self.doubtful: set[str] = set()
        self.contradictions: list[str] = []
        self.statuses: Counter[int] = Counter()

    async def rush(self, singles: int, lists: int) -> None:
        """Buy until the server has ended all connections and takes no new ones."""
        await asyncio.gather(
            *(self._until_ended(self._buy_one) for _ in range(singles)),
            *(self._until_ended(self._buy_list) for _ in range(lists)),
        )

    async def answered(self, more: int) -> None:
        """Wait for `more` answers."""
        event = asyncio.Event()
        self._watched.append((self.statuses.total() + more, event))
        await event.wait()

    async def never_happened(self, keys: Sequence[str]) -> None:
        """Assert that the server knows nothing of these orders."""
        connection = await HttpConnection.connect(*self._address)
        for key in keys:
            reply = await connection.request(
                "GET", f"/v1/commands/{self.orders[key].aggregate_id}:{key}"
            )
            assert reply.status == 404, (key, reply)
        connection.close()

    async def ask_again(self, some: int) -> None:
        """Send all open orders again, and `some` of the answered ones, on one new connection each
        for orders and lists; every answer has to be definite then."""
        known = list(self.answers)
        again = [*self.open_orders, *self.chance.sample(known, min(some, len(known)))]
        self.chance.shuffle(again)
        orders = [self.orders[key] for key in again]
        half = len(orders) // 2
        connection = await HttpConnection.connect(*self._address)
        for each in orders[:half]:
            await self._send_one(connection, each)
        for start in range(half, len(orders), LIST_ORDERS):
            await self._send_list(connection, orders[start : start + LIST_ORDERS])
        connection.close()
        assert not self.open_orders, self.open_orders

    # -- what a buyer does

    async def _until_ended(self, buy: Buy) -> None:
        while True:
            try:
                connection = await HttpConnection.connect(*self._address)
            except OSError:
                return
            try:
                while True:
                    await buy(connection)
            except ConnectionError:
                pass

    async def _buy_one(self, connection: HttpConnection) -> None:
        await self._send_one(connection, self._new_order())

    async def _buy_list(self, connection: HttpConnection) -> None:
        await self._send_list(connection, [self._new_order() for _ in range(LIST_ORDERS)])

    def _new_order(self) -> Reserve:
        chance = self.chance
        order = Reserve(
            f"order-{len(self.orders) + 1}",
            chance.choice(self._skus),
            f"buyer-{chance.randrange(BUYERS)}",
            chance.randint(1, 3),
        )
        self.orders[order.id] = self.open_orders[order.id] = order
        return order

    async def _send_one(self, connection: HttpConnection, order: Reserve) -> None:
        body = {"buyer": order.buyer, "quantity": order.quantity}
        path = f"/v1/skus/{order.aggregate_id}/reservations"
        reply = await self._noted(
            connection, [order], path, json.dumps(body).encode(), {"Idempotency-Key": order.id}
        )
        if reply is not None:
            told = json.loads(reply[1])
            if reply[0] == 201:
                assert (told["buyer"], told["quantity"]) == (order.buyer, order.quantity)
            self._note(order, reply[0], told.get("reason", ""))

    async def _send_list(self, connection: HttpConnection, orders: Sequence[Reserve]) -> None:
        body = [
            {
                "id": each.id,
                "sku": each.aggregate_id,
                "buyer": each.buyer,
                "quantity": each.quantity,
            }
            for each in orders
        ]
        reply = await self._noted(
            connection, orders, "/v1/reservations:batch", json.dumps(body).encode(), {}
        )
        if reply is None:
            return
        status, text = reply
        if status != 200:
            for each in orders:
                self._note(each, status, json.loads(text)["reason"])
            return
        for each, told in zip(orders, json.loads(text), strict=True):
            assert told["id"] == f"{each.aggregate_id}:{each.id}"
            self._note(each, told["status"], told.get("reason", ""))

    async def _noted(
        self,
        connection: HttpConnection,
        orders: Sequence[Reserve],
        path: str,
        body: bytes,
        headers: dict[str, str],
    ) -> tuple[int, bytes] | None:
        """The reply to a POST. Raises ConnectionError, and the orders are in doubt then."""
        self._writer.invoke(orders)
        try:
            async with asyncio.timeout(ANSWER_SECONDS_MAX):
                reply = await connection.request("POST", path, body, headers)
        except (ConnectionError, TimeoutError):
            for each in orders:
                self._note_doubt(each)
            raise ConnectionError("no reply") from None
        return reply.status, reply.body

    # -- what a buyer is told

    def _note_doubt(self, order: Reserve) -> None:
        self._writer.answered(order.id, OutcomeUnknown(order.id))
        if order.id not in self.answers:
            self.doubtful.add(order.id)

    def _note(self, order: Reserve, status: int, reason: str) -> None:
        self.statuses[status] += 1
        self._wake()
        if status == 202:
            self._note_doubt(order)
            return
        self._writer.answered(order.id, _outcome(order, status, reason))
        if status == 503:
            # Nothing happened, it says.
            return
        told = (status, reason)
        if self.answers.setdefault(order.id, told) != told:
            self.contradictions.append(f"{order} was told {self.answers[order.id]}, then {told}")
        self.open_orders.pop(order.id, None)
        self.doubtful.discard(order.id)

    def _wake(self) -> None:
        total = self.statuses.total()
        for due, event in self._watched:
            if total >= due:
                event.set()
        self._watched = [each for each in self._watched if not each[1].is_set()]


def _outcome(order: Reserve, status: int, reason: str) -> Outcome | SeckillError | Reserved:
    if status == 201:
        return Reserved(order.id, order.buyer, order.quantity)
    if status == 409:
        return Rejected(reason)
    assert status == 503, f"{order} was answered {status} {reason}"
    return EngineClosed()
