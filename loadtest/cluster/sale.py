"""Buyers of a cluster: each order goes through one gateway, and through the next while it is open.

An order is noted before it is sent and after it is answered, every time, so that the audit can tell
whether an acknowledged one was lost. It is open until it is told 201 or 409: after a 202, a 503, a
connection that ended or no reply in time, it is sent again with the same Idempotency-Key. Some of
those that were accepted are sent once more, and have to be told the same.

A buyer wants one SKU. So a partition that does not sell holds up its own buyers and nobody else's.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Final, NamedTuple
from urllib.parse import quote, urlsplit

import msgspec

from engine.clock import Clock, SystemClock
from engine.cqrs.messages import Rejected
from engine.errors import (
    DeadlineExceeded,
    EngineClosed,
    OutcomeUnknown,
    PartitionLost,
    SeckillError,
    StoreUnavailable,
    WrongExpectedVersion,
)
from engine.inventory.commands import Reserve
from engine.inventory.events import Reserved
from engine.inventory.history import HistoryWriter
from loadtest.http_client import HttpConnection, HttpReply
from loadtest.latency import LatencyRecorder

AGAIN_SECONDS: Final = 0.1
"""Before an order without a reply is sent again; who was told how long to wait does that."""

AGAIN_SECONDS_MAX: Final = 1.0
"""Nobody waits longer: Retry-After knows whole seconds only."""

NO_REPLY: Final = "no reply"
SAMPLES_MAX: Final = 5

NOTHING_HAPPENED: Final[Mapping[str, SeckillError]] = {
    "overloaded": EngineClosed("overloaded"),
    "no_owner": PartitionLost("no owner"),
    "partition_lost": PartitionLost("lost"),
    "closing": EngineClosed("closing"),
    "deadline_exceeded": DeadlineExceeded("deadline"),
    "store_unavailable": StoreUnavailable("store"),
    "conflict": WrongExpectedVersion(frozenset()),
}
"""What a 503 of this reason is noted as: certainly not done, and the audit holds the service to it.
An order with another 503 may be done."""


class SaleLoad(msgspec.Struct, frozen=True, kw_only=True):
    """How a crowd buys.

    `skus` are shared out among `buyers`, who send `per_second` orders in all while they are answered
    at once. Each order is for `quantity_max` units at most, of one of `accounts` names of a SKU, so
    that a limit per buyer refuses some. `repeats` is the share of accepted orders that are sent once
    more. A gateway has `answer_seconds` for a reply; an order is given up after `open_seconds_max`.
    """

    skus: tuple[str, ...]
    buyers: int = 160
    per_second: float = 800
    quantity_max: int = 2
    accounts: int = 1_000
    repeats: float = 0.02
    answer_seconds: float = 2.0
    open_seconds_max: float = 40.0
    seed: int = 1


class Sale(NamedTuple):
    """An accepted order: when it was first sent, and when it was told so; seconds of the clock."""

    order: Reserve
    sent_at: float
    answered_at: float


class GatewayCounts:
    """What a crowd met at one gateway.

    `first` counts orders that were sent here first, `again` those that came on from another gateway.
    `accepted`, `refused` (by reason), `repeated` and `failed` are definite answers of this one;
    `open_answers` are the others, by what they were.
    """

    def __init__(self) -> None:
        self.first = self.again = self.accepted = self.repeated = self.failed = self.unknown = 0
        self.refused: Counter[str] = Counter()
        self.open_answers: Counter[str] = Counter()

    def __add__(self, other: GatewayCounts) -> GatewayCounts:
        both = GatewayCounts()
        for name, count in vars(self).items():
            setattr(both, name, count + getattr(other, name))
        return both


class Problem(msgspec.Struct):
    """What of a reply's body is of interest, whatever it is."""

    reason: str = ""
    retry_after_ms: int | None = None
    buyer: str = ""
    quantity: int = 0


class ClusterCrowd:
    """Buyers on real connections to several gateways.

    `counts` are by gateway, `sales` in the order of their answers. `latency` is from an order's first
    sending to its definite answer, `decided_at` when it had that. `samples` are the first wrong
    answers in words.
    """

    def __init__(
        self,
        gateways: Sequence[str],
        load: SaleLoad,
        history: HistoryWriter,
        clock: Clock | None = None,
    ) -> None:
        """`gateways` are the URLs of their listeners for buyers."""
        parts = [urlsplit(each) for each in gateways]
        self._addresses = [(each.hostname or "", each.port or 0) for each in parts]
        self._load = load
        self._history = history
        self._clock = clock or SystemClock()
        self._stopped = asyncio.Event()
        self._numbers = 0
        self.counts = [GatewayCounts() for _ in gateways]
        self.sales: list[Sale] = []
        self.decided_at: list[float] = []
        self.latency = LatencyRecorder()
        self.samples: list[str] = []
        self.began = self.ended = 0.0

    @property
    def total(self) -> GatewayCounts:
        return sum(self.counts, GatewayCounts())

    def stop(self) -> None:
        """Begin no more orders. Those that are open go on until they are answered."""
        self._stopped.set()

    async def run(self) -> None:
        """Buy until `stop`, and return when no order is open."""
        self.began = self._clock.monotonic()
        buyers = [_Buyer(self._addresses) for _ in range(self._load.buyers)]
        try:
            await asyncio.gather(*(self._buy(number, buyer) for number, buyer in enumerate(buyers)))
        finally:
            for each in buyers:
                each.close()
        self.ended = self._clock.monotonic()

    async def ask_again(self, sales: Iterable[Sale]) -> None:
        """Send accepted orders once more, through every gateway: each has to be told the same."""
        buyer = _Buyer(self._addresses)
        try:
            for each in sales:
                for gateway in range(len(self._addresses)):
                    await self._repeat(buyer, each.order, gateway)
        finally:
            buyer.close()

    # -- what a buyer does

    async def _buy(self, number: int, buyer: _Buyer) -> None:
        load = self._load
        chance = random.Random(f"{load.seed}-{number}")
        sku = load.skus[number % len(load.skus)]
        period = load.buyers / load.per_second
        await self._pause(period * chance.random())
        while not self._stopped.is_set():
            due = self._clock.monotonic() + period * chance.uniform(0.5, 1.5)
            order = self._new_order(sku, chance)
            gateway = chance.randrange(len(self._addresses))
            accepted = await self._until_definite(buyer, order, gateway)
            if accepted and chance.random() < load.repeats:
                await self._repeat(buyer, order, chance.randrange(len(self._addresses)))
            await self._pause(due - self._clock.monotonic())

    def _new_order(self, sku: str, chance: random.Random) -> Reserve:
        self._numbers += 1
        name = f"{sku}-{chance.randrange(self._load.accounts)}"
        quantity = chance.randint(1, self._load.quantity_max)
        return Reserve(f"order-{self._load.seed}-{self._numbers}", sku, name, quantity)

    async def _pause(self, seconds: float) -> None:
        if seconds > 0 and not self._stopped.is_set():
            await self._clock.sleep(seconds)

    async def _until_definite(self, buyer: _Buyer, order: Reserve, gateway: int) -> bool:
        """Send the order through one gateway after the other; whether it was accepted."""
        first = self._clock.monotonic()
        self.counts[gateway].first += 1
        while True:
            reply = await self._send(buyer, order, gateway)
            now = self._clock.monotonic()
            counts = self.counts[gateway]
            if reply is not None and reply.status in (201, 409):
                self._note_definite(counts, order, reply, Sale(order, first, now))
                return reply.status == 201
            if reply is not None and reply.status not in (202, 503):
                counts.failed += 1
                self._complain(f"{order} was answered {reply.status} {reply.body[:200]!r}")
                return False
            if now - first > self._load.open_seconds_max:
                counts.unknown += 1
                return False
            await self._clock.sleep(_wait_seconds(reply))
            gateway = (gateway + 1) % len(self._addresses)
            self.counts[gateway].again += 1

    async def _repeat(self, buyer: _Buyer, order: Reserve, gateway: int) -> None:
        """Ask for an accepted order again; what has no definite answer is no finding."""
        reply = await self._send(buyer, order, gateway)
        counts = self.counts[gateway]
        if reply is None or reply.status in (202, 503):
            return
        if reply.status == 201 and _is_of(order, reply):
            counts.repeated += 1
            return
        counts.failed += 1
        self._complain(
            f"{order} was accepted and, sent again, answered {reply.status} {reply.body[:200]!r}"
        )

    async def _send(self, buyer: _Buyer, order: Reserve, gateway: int) -> HttpReply | None:
        """The reply, noted like the order itself; None when there was none."""
        self._history.invoke([order])
        reply = await buyer.post(gateway, order, self._load.answer_seconds)
        told = _told(reply)
        self._history.answered(order.id, _outcome(order, reply, told))
        if reply is None or reply.status in (202, 503):
            kind = NO_REPLY if reply is None else f"{reply.status} {told.reason}".strip()
            self.counts[gateway].open_answers[kind] += 1
        return reply

    # -- what is noted

    def _note_definite(
        self, counts: GatewayCounts, order: Reserve, reply: HttpReply, sale: Sale
    ) -> None:
        self.latency.record(sale.answered_at - sale.sent_at)
        self.decided_at.append(sale.answered_at)
        if reply.status == 409:
            counts.refused[_told(reply).reason] += 1
            return
        counts.accepted += 1
        self.sales.append(sale)
        if not _is_of(order, reply):
            counts.failed += 1
            self._complain(f"{order} was answered {reply.body[:200]!r}")

    def _complain(self, text: str) -> None:
        if len(self.samples) < SAMPLES_MAX:
            self.samples.append(text)


class _Buyer:
    """One connection to each gateway, made when it is needed."""

    def __init__(self, addresses: Sequence[tuple[str, int]]) -> None:
        self._addresses = addresses
        self._connections: list[HttpConnection | None] = [None] * len(addresses)

    async def post(self, gateway: int, order: Reserve, seconds: float) -> HttpReply | None:
        """None when the connection cannot be made, ends, or brings no reply in twice the time that
        the gateway has."""
        path = f"/v1/skus/{quote(order.aggregate_id, safe='')}/reservations"
        body = msgspec.json.encode({"buyer": order.buyer, "quantity": order.quantity})
        headers = {
            "Content-Type": "application/json",
            "Idempotency-Key": order.id,
            "X-Request-Timeout-Ms": str(int(seconds * 1_000)),
        }
        with suppress(OSError, TimeoutError):
            async with asyncio.timeout(seconds * 2):
                connection = self._connections[gateway]
                if connection is None or not connection.open:
                    connection = await HttpConnection.connect(*self._addresses[gateway])
                    self._connections[gateway] = connection
                return await connection.request("POST", path, body, headers)
        return None

    def close(self) -> None:
        for each in self._connections:
            if each is not None:
                each.close()


def _told(reply: HttpReply | None) -> Problem:
    with suppress(msgspec.DecodeError):
        return Problem() if reply is None else msgspec.json.decode(reply.body, type=Problem)
    return Problem()


def _is_of(order: Reserve, reply: HttpReply) -> bool:
    told = _told(reply)
    return (told.buyer, told.quantity) == (order.buyer, order.quantity)


def _outcome(
    order: Reserve, reply: HttpReply | None, told: Problem
) -> Reserved | Rejected | SeckillError:
    """The reply as a history has it."""
    if reply is not None and reply.status == 201:
        return Reserved(order.id, told.buyer, told.quantity)
    if reply is not None and reply.status == 409:
        return Rejected(told.reason)
    if reply is not None and reply.status == 503:
        return NOTHING_HAPPENED.get(told.reason, OutcomeUnknown(order.id))
    return OutcomeUnknown(order.id)


def _wait_seconds(reply: HttpReply | None) -> float:
    told = _told(reply)
    if told.retry_after_ms is None:
        return AGAIN_SECONDS
    return min(told.retry_after_ms / 1_000, AGAIN_SECONDS_MAX)
