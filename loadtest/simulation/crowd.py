"""The crowd: many buyers at once, each waiting for the answer to their own order.

Workers take the orders one after the other, wait until an order is due, send it and wait for its
answer; `concurrency` workers are at most that many unanswered orders. In a burst every worker
sends as soon as it is free. In a timed sale orders are due by the clock, whatever the engine does,
and latency counts from when an order was due: waiting for a free worker is part of it.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from typing import Final, Protocol, TypeAlias

from engine.clock import Clock
from engine.cqrs.messages import Answer, Command, Event, Rejected
from engine.errors import (
    DeadlineExceeded,
    EngineClosed,
    OutcomeUnknown,
    Overloaded,
    PartitionLost,
    SeckillError,
)
from engine.inventory.commands import Reserve
from engine.inventory.events import Reserved
from engine.inventory.order_messages import OrderPlaced
from loadtest.latency import LatencyRecorder
from loadtest.workload import Order, Sending, Workload, units_of

ATTEMPTS_MAX: Final = 50
"""Sendings of one order before it is given up. With the engine's hint of 0.1 s that is 5 seconds."""

RETRY_SECONDS: Final = 0.1
"""Pause after an unknown outcome: the time a store needs to be opened again."""

SAMPLES_MAX: Final = 5
"""Errors kept word by word; the others are only counted."""

Accepted: TypeAlias = Callable[[int, Order, tuple[Event, ...]], None]

_OPEN, _ACCEPTED, _REFUSED = 0, 1, 2


class History(Protocol):
    """Where orders are noted before they are sent and when they are answered."""

    def invoke(self, orders: list[Order], /) -> None: ...
    def answered(self, order: Order, outcome: Answer | SeckillError, /) -> None: ...


class Payments:
    """What became of accepted orders that are held: counts of orders, but for `units` by SKU.

    paid, too_late   what payments were answered     waiting          those that are still to pay
    left             buyers who do not pay           accepted_before  accepted by an earlier run
    """

    def __init__(self) -> None:
        self.paid = self.too_late = self.left = self.waiting = self.accepted_before = 0
        self.units: dict[str, int] = {}


class Tally:
    """What the buyers know: counted from their answers alone, never from the engine's counters.

    `failed` includes `contradicted`: definite answers that are not the order's own, or not the
    one it got before. `unknown_answers` and `refused_overload` count attempts, all else orders.
    """

    def __init__(self, workload: Workload) -> None:
        self.sent = self.accepted = self.duplicate = self.unknown = self.failed = 0
        self.refused_overload = 0
        self.unknown_answers = self.contradicted = 0
        self.rejected: Counter[str] = Counter()
        self.sold: dict[str, int] = dict.fromkeys(workload.skus, 0)
        self.samples: list[str] = []
        self.latency = LatencyRecorder()
        self.payments = Payments()
        self.first_sent = self.last_answered = self.counted_from = 0.0
        self.warm_decided = self.warm_accepted = 0
        self._answers = bytearray(workload.orders)

    @property
    def answered(self) -> int:
        """Orders and repeats that are over, one way or another."""
        return self.decided + self.unknown + self.failed

    @property
    def decided(self) -> int:
        """Orders and repeats with a definite answer."""
        return self.accepted + self.rejected.total() + self.duplicate

    @property
    def seconds(self) -> float:
        """From the first order sent, or the end of the warm-up, to the last answer; never zero."""
        return max(self.last_answered - self.counted_from, 1e-9)

    def begin_counting(self, now: float) -> None:
        """The warm-up is over: rates and latencies count from now on, all else from the start."""
        self.counted_from = now
        self.warm_decided, self.warm_accepted = self.decided, self.accepted
        self.latency = LatencyRecorder()

    def count(self, number: int, order: Order, answer: Answer) -> bool:
        """Count a definite answer to order `number`; a repeat must get the first answer again.

        True when the order was accepted now, for the first time in this run.
        """
        if isinstance(answer, Rejected):
            if self._is_first(number, order, _REFUSED):
                self.rejected[answer.reason] += 1
        elif not _is_own(order, answer):
            self.contradicted += 1
            self.fail(f"order {order.id!r} was answered with another order's {answer!r}")
        elif self._is_first(number, order, _ACCEPTED):
            self.accepted += 1
            for sku, quantity in units_of(order):
                self.sold[sku] += quantity
            return True
        return False

    def fail(self, what: str) -> None:
        """Count an order that ended in an error, and keep the first few in words."""
        self.failed += 1
        if len(self.samples) < SAMPLES_MAX:
            self.samples.append(what)

    def _is_first(self, number: int, order: Order, answer: int) -> bool:
        before = self._answers[number]
        if before == _OPEN:
            self._answers[number] = answer
            return True
        if before == answer:
            self.duplicate += 1
        else:
            words = ("", "accepted", "refused")
            self.contradicted += 1
            self.fail(f"order {order.id!r} was {words[before]}, and {words[answer]} when repeated")
        return False


def _is_own(order: Order, answer: tuple[Event, ...]) -> bool:
    event = answer[0]
    if not isinstance(order, Reserve):
        return event == OrderPlaced(order.id, order.buyer, order.lines)
    return (
        type(event) is Reserved
        and event.command_id == order.id
        and event.buyer == order.buyer
        and event.quantity == order.quantity
        and len(answer) == 1
    )


class Crowd:
    """Sends a workload and counts the answers in `tally`."""

    def __init__(
        self,
        workload: Workload,
        execute: Callable[[Command], Awaitable[Answer]],
        clock: Clock,
        concurrency: int,
        history: History | None = None,
    ) -> None:
        self.tally = Tally(workload)
        self.when_accepted: Accepted | None = None
        """Called for every order that is accepted, with its number and answer."""
        self._workload = workload
        self._execute = execute
        self._clock = clock
        self._concurrency = concurrency
        self._history = history
        self._stopping = asyncio.Event()
        self._pauses: set[asyncio.Future[None]] = set()

    @property
    def stopped(self) -> bool:
        return self._stopping.is_set()

    async def run(self) -> None:
        """Send everything and return when all is answered, or what was in flight after `stop`.

        Raises what the history raises: orders that cannot be noted are not sent.
        """
        sendings = iter(self._workload)
        started = self._clock.monotonic()
        self.tally.first_sent = self.tally.last_answered = self.tally.counted_from = started
        workers = min(self._concurrency, self._workload.rows)
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(workers):
                    group.create_task(self._work(sendings, started))
        except BaseExceptionGroup as failures:
            # Every worker meets the same full disk; one report of it is enough.
            raise failures.exceptions[0] from None

    def stop(self) -> None:
        """Send nothing new; what is in flight is still answered."""
        self._stopping.set()
        for pause in self._pauses:
            _end(pause)

    async def _work(self, sendings: Iterator[Sending], started: float) -> None:
        tally, monotonic, timed = self.tally, self._clock.monotonic, self._workload.timed
        execute, history = self._execute, self._history
        stopping = self._stopping.is_set
        while not stopping():
            sending = next(sendings, None)
            if sending is None:
                return
            number, at, _, order = sending
            due = started + at if timed else monotonic()
            if timed and (early := due - monotonic()) > 0:
                await self._pause(early)
                if stopping():
                    return
            tally.sent += 1
            if history is not None:
                history.invoke([order])
            try:
                answer = await execute(order)
            except SeckillError as error:
                patient = await self._retry(order, error)
                if patient is None:
                    continue
                answer = patient
            self._count(number, order, answer)
            now = monotonic()
            tally.latency.record(now - due)
            tally.last_answered = now

    def _count(self, number: int, order: Order, answer: Answer) -> None:
        is_new = self.tally.count(number, order, answer)
        if self._history is not None:
            self._history.answered(order, answer)
        if is_new and self.when_accepted is not None:
            assert isinstance(answer, tuple)
            self.when_accepted(number, order, answer)

    async def _retry(self, order: Order, error: SeckillError) -> Answer | None:
        """Send an order again until it has a definite answer; None when it got none."""
        in_doubt = False
        for attempt in range(1, ATTEMPTS_MAX + 1):
            pause_seconds = RETRY_SECONDS
            match error:
                case Overloaded(retry_after_seconds=hint):
                    self.tally.refused_overload += 1
                    pause_seconds = hint
                case DeadlineExceeded():
                    self.tally.refused_overload += 1
                case OutcomeUnknown():
                    self.tally.unknown_answers += 1
                    in_doubt = True
                case _:
                    break
            if attempt == ATTEMPTS_MAX or self.stopped:
                break
            await self._pause(pause_seconds)
            try:
                return await self._execute(order)
            except SeckillError as again:
                error = again
        self._give_up(order, error, in_doubt)
        return None

    def _give_up(self, order: Order, error: SeckillError, in_doubt: bool) -> None:
        # An earlier attempt may have gone through, whatever the last one says.
        outcome = OutcomeUnknown(order.id) if in_doubt else error
        if self._history is not None:
            self._history.answered(order, outcome)
        if in_doubt:
            self.tally.unknown += 1
        elif self.stopped and isinstance(error, Overloaded | DeadlineExceeded):
            self.tally.sent -= 1  # Nothing happened, and a resumed run sends it again.
        else:
            self.tally.fail(f"order {order.id!r}: {error}")
        if isinstance(error, EngineClosed | PartitionLost):
            self.stop()  # Every further order would get the same answer.

    async def _pause(self, seconds: float) -> None:
        """Wait, but no longer than until `stop`."""
        pause: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        timer = self._clock.call_later(seconds, lambda: _end(pause))
        self._pauses.add(pause)
        try:
            await pause
        finally:
            self._pauses.discard(pause)
            timer.cancel()


def _end(pause: asyncio.Future[None]) -> None:
    if not pause.done():
        pause.set_result(None)
