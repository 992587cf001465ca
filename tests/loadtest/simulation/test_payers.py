"""Buyers pay, pay late or leave, as drawn; every payment has one answer and one id."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from engine.cqrs.messages import Answer, Command, Rejected
from engine.errors import AggregateHalted, EngineClosed, OutcomeUnknown, Overloaded, SeckillError
from engine.inventory.commands import Confirm, Reserve
from engine.inventory.events import Confirmed, HoldExpired, Reserved
from engine.inventory.order_messages import (
    Line,
    OrderPaid,
    OrderPaidTooLate,
    OrderPlaced,
    OrderReserved,
    PayOrder,
    PlaceOrder,
)
from engine.testing.virtual_clock import VirtualClock
from loadtest.settings import WorkloadSettings
from loadtest.simulation.crowd import Tally
from loadtest.simulation.payers import LATE_SECONDS_MAX, SECOND_US, Payers
from loadtest.workload import GeneratedWorkload, generate

HOLD_SECONDS = 10


@dataclass
class Desk:
    """Notes when each payment comes and answers it as the test says."""

    clock: VirtualClock
    answer: Callable[[Command, int], Answer | SeckillError]
    came: list[tuple[str, float]] = field(default_factory=list)

    async def execute(self, command: Command) -> Answer:
        sending = sum(id_ == command.id for id_, _ in self.came) + 1
        self.came.append((command.id, self.clock.monotonic()))
        answer = self.answer(command, sending)
        if isinstance(answer, SeckillError):
            raise answer
        return answer


def take(command: Command, sending: int) -> Answer:
    if isinstance(command, PayOrder):
        return (OrderPaid(command.id, ()),)
    assert isinstance(command, Confirm)
    return (Confirmed(command.id, command.reservation_id, 1),)


def workload_with(pay: float, late: float, buyers: int = 50) -> GeneratedWorkload:
    return generate(
        WorkloadSettings(
            seed=5, buyers=buyers, hold_seconds=HOLD_SECONDS, pay_rate=pay, late_payments=late
        )
    )


def gather(
    workload: GeneratedWorkload,
    answer: Callable[[Command, int], Answer | SeckillError] = take,
) -> tuple[Payers, Tally, Desk]:
    clock = VirtualClock()
    desk, tally = Desk(clock, answer), Tally(workload)
    return Payers(workload, desk.execute, clock, tally), tally, desk


def accept_all(workload: GeneratedWorkload, payers: Payers, desk: Desk) -> None:
    until_us = desk.clock.wall_us() + HOLD_SECONDS * SECOND_US
    for number, _, _, order in workload:
        assert isinstance(order, Reserve)
        payers.accepted(number, order, (Reserved(order.id, order.buyer, order.quantity, until_us),))


async def run(payers: Payers, desk: Desk) -> None:
    await desk.clock.run(payers.finish())


async def test_the_shares_are_those_that_were_asked_for() -> None:
    workload = workload_with(0.6, 0.1, buyers=5_000)
    plans = [workload.plan_of(number)[0] for number in range(workload.orders)]
    assert plans.count("pay") / 5_000 == pytest.approx(0.6, abs=0.03)
    assert plans.count("pay_late") / 5_000 == pytest.approx(0.1, abs=0.02)
    assert plans == [generate(workload.settings).plan_of(n)[0] for n in range(workload.orders)]


async def test_who_pays_in_time_pays_once_and_within_the_hold() -> None:
    workload = workload_with(1, 0)
    payers, tally, desk = gather(workload)
    began = desk.clock.monotonic()
    accept_all(workload, payers, desk)
    assert tally.payments.waiting == 50
    await run(payers, desk)
    assert len({id_ for id_, _ in desk.came}) == len(desk.came) == 50
    assert max(at for _, at in desk.came) - began < HOLD_SECONDS
    assert (tally.payments.paid, tally.payments.waiting, tally.failed) == (50, 0, 0)
    assert tally.payments.units == {"SKU-1": 50}


async def test_who_pays_late_comes_after_the_time_is_up_and_is_told_so() -> None:
    workload = workload_with(0, 1)
    payers, tally, desk = gather(
        workload, lambda command, _: (HoldExpired(command.id, command.id[4:]),)
    )
    began = desk.clock.monotonic()
    accept_all(workload, payers, desk)
    await run(payers, desk)
    assert min(at for _, at in desk.came) - began >= HOLD_SECONDS
    assert max(at for _, at in desk.came) - began <= HOLD_SECONDS + LATE_SECONDS_MAX
    assert (tally.payments.paid, tally.payments.too_late) == (0, 50)
    assert tally.payments.units == {}


async def test_who_leaves_sends_nothing() -> None:
    workload = workload_with(0, 0)
    payers, tally, desk = gather(workload)
    accept_all(workload, payers, desk)
    await run(payers, desk)
    assert desk.came == []
    assert tally.payments.left == 50


@pytest.mark.parametrize(
    "error", [OutcomeUnknown("pay"), Overloaded(1, 1, 0.1)], ids=["doubt", "busy"]
)
async def test_a_payment_in_doubt_is_sent_again_with_its_id(error: SeckillError) -> None:
    workload = workload_with(1, 0, buyers=1)
    payers, tally, desk = gather(
        workload, lambda command, sending: error if sending < 3 else take(command, sending)
    )
    accept_all(workload, payers, desk)
    await run(payers, desk)
    assert [id_ for id_, _ in desk.came] == [desk.came[0][0]] * 3
    assert tally.payments.paid == 1


async def test_a_payment_that_fails_or_is_refused_fails_the_run() -> None:
    workload = workload_with(1, 0, buyers=2)
    refusal = Rejected("unknown_reservation", "lost")
    answers: list[Answer | SeckillError] = [refusal, AggregateHalted(("stock", "SKU-1"), "broken")]
    for number in range(len(answers)):
        payers, tally, desk = gather(workload, lambda *_, number=number: answers[number])
        accept_all(workload, payers, desk)
        await run(payers, desk)
        assert tally.failed == 2
        assert tally.payments.paid == 0


async def test_an_engine_that_is_gone_ends_the_payments_without_an_answer() -> None:
    workload = workload_with(1, 0, buyers=2)
    payers, tally, desk = gather(workload, lambda *_: EngineClosed())
    accept_all(workload, payers, desk)
    await run(payers, desk)
    assert (tally.failed, tally.payments.paid, tally.payments.waiting) == (0, 0, 0)


async def test_stopping_lets_nobody_pay_any_more() -> None:
    workload = workload_with(1, 0)
    payers, tally, desk = gather(workload)
    accept_all(workload, payers, desk)
    payers.stop()
    await payers.finish()
    assert (desk.came, tally.payments.waiting, tally.failed) == ([], 0, 0)


async def test_a_cart_is_paid_as_a_whole_and_its_lines_count() -> None:
    workload = workload_with(1, 0, buyers=1)
    payers, tally, desk = gather(workload)
    cart = PlaceOrder("cart", "cart", "ann", (Line("SKU-1", 2), Line("SKU-2", 3)))
    until_us = desk.clock.wall_us() + HOLD_SECONDS * SECOND_US
    placed = OrderPlaced("cart", "ann", cart.lines)
    payers.accepted(0, cart, (placed, OrderReserved("cart", until_us)))
    await run(payers, desk)
    assert [id_ for id_, _ in desk.came] == ["pay-cart"]
    assert tally.payments.units == {"SKU-1": 2, "SKU-2": 3}


async def test_a_cart_paid_too_late_is_to_be_refunded() -> None:
    workload = workload_with(0, 1, buyers=1)
    payers, tally, desk = gather(workload, lambda command, _: (OrderPaidTooLate(command.id),))
    cart = PlaceOrder("cart", "cart", "ann", (Line("SKU-1", 2),))
    placed = OrderPlaced("cart", "ann", cart.lines)
    payers.accepted(0, cart, (placed, OrderReserved("cart", desk.clock.wall_us())))
    await run(payers, desk)
    assert tally.payments.too_late == 1
    # Its deadline lies a whole hold before what this run could have given: an earlier run's.
    assert tally.payments.accepted_before == 1
