"""What buyers do once their order is held: pay in time, pay late, or leave.

What each does, and how quick they are, is drawn with the workload, and the ids of payments follow
from the orders': a run that was killed and is run again pays nothing twice.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final

from engine.clock import Clock
from engine.cqrs.messages import Answer, Command, Event, Rejected
from engine.errors import (
    SEND_AGAIN,
    EngineClosed,
    PartitionLost,
)
from engine.inventory.commands import Confirm, Reserve
from engine.inventory.events import Confirmed, HoldExpired, Reserved
from engine.inventory.order_messages import OrderPaid, OrderPaidTooLate, OrderReserved, PayOrder
from loadtest.simulation.crowd import RETRY_SECONDS, Tally
from loadtest.workload import Order, Workload, units_of

SECOND_US: Final = 1_000_000
IN_TIME_SHARE: Final = 0.5
"""Who pays in time does so in this share of the hold, so that a slow machine makes nobody late."""

LATE_SECONDS_MAX: Final = 2.0
"""Who pays late does so within this time after the end: some find their units still held."""

GONE: Final = (EngineClosed, PartitionLost)


class Payers:
    """The buyers whose orders are held. Counts what they are told in the tally's `payments`."""

    def __init__(
        self,
        workload: Workload,
        execute: Callable[[Command], Awaitable[Answer]],
        clock: Clock,
        tally: Tally,
    ) -> None:
        self._workload = workload
        self._execute = execute
        self._clock = clock
        self._tally = tally
        self._tasks: set[asyncio.Task[None]] = set()
        self._began_us = clock.wall_us()

    def accepted(self, number: int, order: Order, answer: tuple[Event, ...]) -> None:
        """Let the buyer of an accepted order go on."""
        until_us = _held_until_us(answer)
        hold_us = self._workload.hold_seconds * SECOND_US
        payments = self._tally.payments
        payments.accepted_before += until_us < self._began_us + hold_us
        plan, pace = self._workload.plan_of(number)
        if plan == "leave":
            payments.left += 1
        elif plan == "pay":
            # Counted from now, also by a run that goes on after a crash and may be late with it.
            pause_seconds = pace * IN_TIME_SHARE * self._workload.hold_seconds
            self._start(self._pay(order, pause_seconds))
        else:
            early_seconds = max(0, until_us - self._clock.wall_us()) / SECOND_US
            self._start(self._pay(order, early_seconds + pace * LATE_SECONDS_MAX))

    async def finish(self) -> None:
        """Return when everybody who wants to has paid, or `stop` was called."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    def stop(self) -> None:
        """Let nobody pay any more. Who was just paying may have paid: the next run asks again."""
        for task in self._tasks:
            task.cancel()

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        self._tally.payments.waiting += 1
        task.add_done_callback(self._end)

    def _end(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._tally.payments.waiting -= 1
        if not task.cancelled() and (error := task.exception()) is not None:
            self._tally.fail(f"a payment: {error!r}")

    async def _pay(self, order: Order, pause_seconds: float) -> None:
        await self._clock.sleep(pause_seconds)
        answer = await self._send(_payment(order))
        if answer is not None:
            self._count(order, answer)

    async def _send(self, command: Command) -> Answer | None:
        """Send a payment until it has a definite answer; None when the engine is gone."""
        while True:
            try:
                return await self._execute(command)
            except SEND_AGAIN:
                await self._clock.sleep(RETRY_SECONDS)
            except GONE:
                return None

    def _count(self, order: Order, answer: Answer) -> None:
        payments = self._tally.payments
        event = None if isinstance(answer, Rejected) else answer[0]
        match event:
            case Confirmed() | OrderPaid():
                payments.paid += 1
                for sku, quantity in units_of(order):
                    payments.units[sku] = payments.units.get(sku, 0) + quantity
            case HoldExpired() | OrderPaidTooLate():
                payments.too_late += 1
            case _:
                self._tally.fail(f"the payment of {order.id!r} was answered {answer}")


def _payment(order: Order) -> Command:
    if isinstance(order, Reserve):
        return Confirm(f"pay-{order.id}", order.aggregate_id, order.id)
    return PayOrder(f"pay-{order.id}", order.id)


def _held_until_us(answer: tuple[Event, ...]) -> int:
    event = answer[-1]
    assert isinstance(event, Reserved | OrderReserved)
    return event.held_until_us
