"""Callers are answered in order, a few at a time, and nobody is forgotten."""

from __future__ import annotations

import asyncio

from engine.cqrs.command_side.batch import Batch
from engine.cqrs.command_side.mailbox import Request
from engine.cqrs.command_side.publish import ANSWERS_AT_ONCE, Publisher, publish_error
from engine.cqrs.messages import Outcome, Rejected
from engine.errors import StoreUnavailable
from tests.cqrs.command_side.queued import mailbox, request

MANY = 3 * ANSWERS_AT_ONCE + 1


def closed(requests: list[Request]) -> Batch:
    box = mailbox(*requests)
    return Batch(box, box.take(1_000), "idle")


def outcomes(names: list[str]) -> list[Outcome]:
    return [Rejected(name, "") for name in names]


def singles(count: int, prefix: str = "") -> tuple[list[Request], Batch, list[Outcome]]:
    names = [f"{prefix}{n}" for n in range(count)]
    requests = [request(name) for name in names]
    return requests, closed(requests), outcomes(names)


async def test_a_lonely_caller_is_answered_at_once() -> None:
    requests, batch, answers = singles(1)
    Publisher().publish(batch, answers)
    assert requests[0].future.result() == [Rejected("0", "")]


async def test_a_crowd_is_answered_in_portions_that_let_others_run() -> None:
    requests, batch, answers = singles(MANY)
    Publisher().publish(batch, answers)
    seen = []
    while not requests[-1].future.done():
        seen.append(sum(each.future.done() for each in requests))
        await asyncio.sleep(0)
    assert seen == [ANSWERS_AT_ONCE, 2 * ANSWERS_AT_ONCE, 3 * ANSWERS_AT_ONCE]
    assert [each.future.result() for each in requests] == [[each] for each in answers]


async def test_batches_are_answered_one_after_the_other() -> None:
    publisher = Publisher()
    order: list[Outcome] = []
    everybody = []
    for prefix in "ab":
        requests, batch, answers = singles(MANY, prefix)
        for each in requests:
            each.future.add_done_callback(lambda future: order.append(*future.result()))
            everybody.append(each.future)
        publisher.publish(batch, answers)
    await asyncio.gather(*everybody)
    await asyncio.sleep(0)
    assert order == outcomes([f"{prefix}{n}" for prefix in "ab" for n in range(MANY)])


async def test_flushing_answers_everybody_now() -> None:
    publisher = Publisher()
    crowds = [singles(MANY, prefix) for prefix in "ab"]
    for _, batch, answers in crowds:
        publisher.publish(batch, answers)
    publisher.flush()
    assert all(each.future.done() for requests, _, _ in crowds for each in requests)
    late, batch, answers = singles(1, "late")
    publisher.publish(batch, answers)
    assert late[0].future.done()


async def test_an_error_goes_to_everybody_now() -> None:
    requests, batch, _ = singles(MANY)
    publish_error(batch, lambda command: StoreUnavailable(command.id))
    words = [str(each.future.result()[0]) for each in requests]
    assert words == [f"{n}" for n in range(MANY)]
