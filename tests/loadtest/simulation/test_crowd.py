"""The crowd sends every order once, retries safely, and believes only the answers it got."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable

import pytest

from engine.cqrs.messages import Answer, Command, Rejected
from engine.errors import (
    AggregateHalted,
    CommandIdReused,
    DeadlineExceeded,
    EngineClosed,
    OutcomeUnknown,
    Overloaded,
    PartitionLost,
    SeckillError,
    StoreUnavailable,
)
from engine.inventory.commands import Reserve
from engine.inventory.events import Reserved
from engine.testing.virtual_clock import VirtualClock
from loadtest.sale import Arrival
from loadtest.settings import WorkloadSettings
from loadtest.simulation.crowd import ATTEMPTS_MAX, RETRY_SECONDS, Crowd, Tally
from loadtest.workload import Order, generate

Script = Callable[[Reserve, int], Answer | SeckillError | None]
"""(order, which sending of it from 1) -> its answer; None is Reserved."""


class Shop:
    """An `execute` whose answers a test writes; each takes `seconds` of virtual time."""

    def __init__(self, clock: VirtualClock, script: Script, seconds: float = 0.0) -> None:
        self.clock, self.script, self.seconds = clock, script, seconds
        self.sendings: Counter[str] = Counter()
        self.sent_at: list[float] = []
        self.in_flight = self.in_flight_max = 0

    async def execute(self, command: Command) -> Answer:
        assert isinstance(command, Reserve)
        self.sendings[command.id] += 1
        self.sent_at.append(self.clock.monotonic())
        self.in_flight += 1
        self.in_flight_max = max(self.in_flight_max, self.in_flight)
        await self.clock.sleep(self.seconds)
        self.in_flight -= 1
        answer = self.script(command, self.sendings[command.id])
        if isinstance(answer, SeckillError):
            raise answer
        return answer or (Reserved(command.id, command.buyer, command.quantity),)


class Notes:
    """A history in memory."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str]] = []

    def invoke(self, orders: list[Order], /) -> None:
        self.lines += [("invoke", order.id) for order in orders]

    def answered(self, order: Order, outcome: Answer | SeckillError, /) -> None:
        told = outcome[0] if isinstance(outcome, tuple) else outcome
        self.lines.append((type(told).__name__, order.id))


def accept(order: Reserve, sending: int) -> None:
    return None


async def run_crowd(
    script: Script = accept,
    *,
    buyers: int = 20,
    duplicates: float = 0.0,
    concurrency: int = 5,
    seconds: float = 0.0,
    arrival: Arrival = "burst",
    notes: Notes | None = None,
    during: Callable[[Crowd], Awaitable[None]] | None = None,
) -> tuple[Crowd, Shop]:
    clock = VirtualClock()
    shop = Shop(clock, script, seconds)
    settings = WorkloadSettings(
        buyers=buyers, stock=buyers, duplicates=duplicates, arrival=arrival, seconds=10.0
    )
    crowd = Crowd(generate(settings), shop.execute, clock, concurrency, notes)

    async def both() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(crowd.run())
            if during is not None:
                await clock.sleep(2.0)
                await during(crowd)

    await clock.run(both())
    return crowd, shop


async def test_every_order_is_sent_once_and_counted() -> None:
    crowd, shop = await run_crowd()
    assert set(shop.sendings.values()) == {1}
    assert len(shop.sendings) == 20
    assert (crowd.tally.sent, crowd.tally.accepted, crowd.tally.decided) == (20, 20, 20)
    assert crowd.tally.sold == {"SKU-1": 20}
    assert crowd.tally.latency.count == 20


async def test_no_more_orders_are_unanswered_than_the_concurrency() -> None:
    _, shop = await run_crowd(concurrency=3, seconds=1.0)
    assert shop.in_flight_max == 3


async def test_refusals_are_counted_by_reason() -> None:
    def script(order: Reserve, sending: int) -> Answer | None:
        return Rejected("sold_out") if int(order.buyer.split("-")[1]) % 2 else None

    crowd, _ = await run_crowd(script)
    assert crowd.tally.rejected == {"sold_out": 10}
    assert (crowd.tally.accepted, crowd.tally.decided) == (10, 20)


async def test_a_repeat_that_gets_the_first_answer_is_a_duplicate() -> None:
    def script(order: Reserve, sending: int) -> Answer | None:
        return Rejected("sold_out") if int(order.buyer.split("-")[1]) % 2 else None

    crowd, shop = await run_crowd(script, duplicates=1.0)
    assert set(shop.sendings.values()) == {2}
    assert (crowd.tally.accepted, crowd.tally.rejected.total(), crowd.tally.duplicate) == (
        10,
        10,
        20,
    )
    assert crowd.tally.failed == 0


async def test_a_repeat_that_gets_another_answer_is_a_failure() -> None:
    def script(order: Reserve, sending: int) -> Answer | None:
        return None if sending == 1 else Rejected("sold_out")

    crowd, _ = await run_crowd(script, duplicates=0.5, concurrency=1)
    assert (crowd.tally.accepted, crowd.tally.duplicate) == (20, 0)
    assert (crowd.tally.failed, crowd.tally.contradicted) == (10, 10)
    assert "was accepted, and refused when repeated" in crowd.tally.samples[0]


async def test_the_answer_to_another_order_is_a_failure() -> None:
    def script(order: Reserve, sending: int) -> Answer:
        return (Reserved(order.id, order.buyer, order.quantity + 1),)

    crowd, _ = await run_crowd(script)
    assert (crowd.tally.accepted, crowd.tally.failed, crowd.tally.contradicted) == (0, 20, 20)


@pytest.mark.parametrize(
    ("error", "pause_seconds"),
    [
        (Overloaded(10, 10, 0.75), 0.75),
        (DeadlineExceeded("late"), RETRY_SECONDS),
        (OutcomeUnknown("x"), RETRY_SECONDS),
    ],
)
async def test_an_order_is_sent_again_with_its_id_after_a_pause(
    error: SeckillError, pause_seconds: float
) -> None:
    crowd, shop = await run_crowd(
        lambda order, sending: error if sending < 3 else None, buyers=1, concurrency=1
    )
    assert list(shop.sendings.values()) == [3]
    assert shop.sent_at == pytest.approx([1_000 + pause_seconds * n for n in range(3)])
    assert (crowd.tally.accepted, crowd.tally.failed, crowd.tally.unknown) == (1, 0, 0)
    assert crowd.tally.refused_overload + crowd.tally.unknown_answers == 2
    assert crowd.tally.latency.percentiles().max == pytest.approx(2_000 * pause_seconds)


@pytest.mark.parametrize(
    ("error", "failed", "unknown", "line"),
    [
        (Overloaded(10, 10, 0.1), 1, 0, "Overloaded"),
        (OutcomeUnknown("x"), 0, 1, "OutcomeUnknown"),
    ],
)
async def test_an_order_is_given_up_after_many_sendings(
    error: SeckillError, failed: int, unknown: int, line: str
) -> None:
    notes = Notes()
    crowd, shop = await run_crowd(lambda order, sending: error, buyers=1, notes=notes)
    assert list(shop.sendings.values()) == [ATTEMPTS_MAX]
    assert (crowd.tally.failed, crowd.tally.unknown) == (failed, unknown)
    assert [what for what, _ in notes.lines] == ["invoke", line]
    assert crowd.tally.latency.count == 0


async def test_once_in_doubt_an_order_stays_unknown_whatever_error_comes_last() -> None:
    notes = Notes()
    crowd, _ = await run_crowd(
        lambda order, sending: OutcomeUnknown("x") if sending == 1 else StoreUnavailable("gone"),
        buyers=1,
        notes=notes,
    )
    assert (crowd.tally.failed, crowd.tally.unknown) == (0, 1)
    assert notes.lines[-1][0] == "OutcomeUnknown"


@pytest.mark.parametrize(
    "error",
    [CommandIdReused("x"), AggregateHalted(("stock", "S"), "broken"), StoreUnavailable("x")],
)
async def test_any_other_error_is_a_failure_in_words_and_not_sent_again(
    error: SeckillError,
) -> None:
    crowd, shop = await run_crowd(lambda order, sending: error)
    assert set(shop.sendings.values()) == {1}
    assert crowd.tally.failed == 20
    assert str(error) in crowd.tally.samples[0]
    assert len(crowd.tally.samples) == 5


@pytest.mark.parametrize("error", [EngineClosed("closed"), PartitionLost("taken over")])
async def test_nothing_more_is_sent_to_an_engine_that_is_gone(error: SeckillError) -> None:
    crowd, shop = await run_crowd(lambda order, sending: error, concurrency=2)
    assert len(shop.sendings) == 2
    assert crowd.stopped


async def test_stopping_answers_what_is_in_flight_and_sends_nothing_new() -> None:
    async def stop(crowd: Crowd) -> None:
        crowd.stop()

    crowd, shop = await run_crowd(seconds=1.5, concurrency=4, during=stop)
    assert len(shop.sendings) == crowd.tally.accepted == crowd.tally.sent == 8


async def test_stopping_wakes_those_who_wait_for_their_time() -> None:
    async def stop(crowd: Crowd) -> None:
        crowd.stop()

    crowd, shop = await run_crowd(arrival="poisson", concurrency=100, during=stop)
    assert 0 < crowd.tally.sent == crowd.tally.accepted < 20
    assert shop.clock.monotonic() == 1_002.0


async def test_a_refused_order_that_a_stop_leaves_behind_was_never_sent() -> None:
    async def stop(crowd: Crowd) -> None:
        crowd.stop()

    crowd, _ = await run_crowd(lambda order, sending: Overloaded(1, 1, 0.1), during=stop)
    assert (crowd.tally.sent, crowd.tally.failed, crowd.tally.unknown) == (0, 0, 0)


async def test_timed_orders_are_sent_when_due() -> None:
    _, shop = await run_crowd(arrival="poisson", concurrency=100)
    due = [
        at
        for _, at, _, _ in generate(
            WorkloadSettings(buyers=20, stock=20, arrival="poisson", seconds=10.0)
        )
    ]
    assert shop.sent_at == pytest.approx([1_000 + at for at in due])


async def test_latency_of_a_timed_order_counts_from_when_it_was_due() -> None:
    # One worker that takes a second an order, twenty orders due within ten seconds.
    crowd, _ = await run_crowd(arrival="poisson", concurrency=1, seconds=1.0)
    assert crowd.tally.seconds >= 20
    assert crowd.tally.latency.percentiles().max > 9_000


async def test_an_order_is_noted_before_it_is_sent_and_when_it_is_answered() -> None:
    notes = Notes()
    sent_unnoted = []

    def script(order: Reserve, sending: int) -> Answer | None:
        if ("invoke", order.id) not in notes.lines:
            sent_unnoted.append(order.id)
        return Rejected("sold_out") if order.id.endswith("1") else None

    await run_crowd(script, buyers=3, notes=notes)
    assert sent_unnoted == []
    assert sorted(notes.lines) == [
        ("Rejected", "1-1"),
        ("Reserved", "1-0"),
        ("Reserved", "1-2"),
        ("invoke", "1-0"),
        ("invoke", "1-1"),
        ("invoke", "1-2"),
    ]


async def test_orders_that_cannot_be_noted_stop_the_crowd_with_one_error() -> None:
    class FullDisk(Notes):
        def invoke(self, orders: list[Order], /) -> None:
            raise SeckillError("the disk is full")

    clock = VirtualClock()
    shop = Shop(clock, accept)
    crowd = Crowd(generate(WorkloadSettings(buyers=20)), shop.execute, clock, 5, FullDisk())
    with pytest.raises(SeckillError, match="the disk is full"):
        await clock.run(crowd.run())
    assert shop.sendings.total() == 0


def test_when_counting_begins_the_warm_up_leaves_rates_and_latency_and_nothing_else() -> None:
    workload = generate(WorkloadSettings(buyers=2, stock=2))
    tally = Tally(workload)
    orders = [order for *_, order in workload]
    for number, (order, now, seconds) in enumerate(
        zip(orders, (1.0, 5.0), (9.0, 0.5), strict=True)
    ):
        if number == 1:
            tally.begin_counting(3.0)
        assert isinstance(order, Reserve)
        answer = Reserved(order.id, order.buyer, order.quantity)
        tally.count(number, order, (answer,))
        tally.latency.record(seconds)
        tally.last_answered = now
    assert (tally.accepted, tally.warm_accepted, tally.warm_decided) == (2, 1, 1)
    assert tally.seconds == 2.0
    assert tally.latency.percentiles().max == pytest.approx(500)
