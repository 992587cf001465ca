"""At its deadline a caller learns the truth: not executed, or not known yet."""

from __future__ import annotations

import math

from engine.cqrs.command_side.batch import Batch, BatchLimits, close_batch
from engine.cqrs.command_side.expiry import expire_in_flight, expire_queued, next_deadline
from engine.cqrs.command_side.mailbox import Mailbox
from engine.cqrs.messages import Rejected
from engine.errors import DeadlineExceeded, OutcomeUnknown
from tests.cqrs.command_side.queued import mailbox, request


def in_flight(box: Mailbox, size_max: int = 100) -> Batch:
    batch = close_batch(box, BatchLimits(size_max, 0.0), 0.0, draining=False)
    assert batch is not None
    return batch


async def test_what_is_queued_was_not_executed() -> None:
    late, patient = request("1", "2", deadline=5.0), request("3", deadline=6.0)
    box = mailbox(late, patient)
    assert expire_queued(box, 5.0) == 2
    outcomes = late.future.result()
    assert [type(each) for each in outcomes] == [DeadlineExceeded] * 2
    assert "'2'" in str(outcomes[1])
    assert not patient.future.done()
    assert box.drop_finished() == 2


async def test_what_is_in_flight_is_unknown() -> None:
    late, patient = request("1", deadline=5.0), request("2", deadline=6.0)
    batch = in_flight(mailbox(late, patient))
    assert expire_in_flight([batch], 5.0) == 1
    (outcome,) = late.future.result()
    assert isinstance(outcome, OutcomeUnknown)
    assert outcome.command_id == "1"
    assert not patient.future.done()
    # It is counted once, however often the timer comes.
    assert expire_in_flight([batch], 5.5) == 0


async def test_a_list_that_is_partly_answered_flying_and_queued_tells_each_apart() -> None:
    asked = request("1", "2", "3", deadline=5.0)
    box = mailbox(asked)
    in_flight(box, 1)
    asked.answer(0, [Rejected("sold_out")])
    batch = in_flight(box, 1)
    assert expire_in_flight([batch], 5.0) == 1
    assert expire_queued(box, 5.0) == 1
    kinds = [type(each) for each in asked.future.result()]
    assert kinds == [Rejected, OutcomeUnknown, DeadlineExceeded]


async def test_the_next_deadline_is_of_who_waits_in_flight_or_holds_a_place_in_the_queue() -> None:
    flying, queued, gone = (request(str(n), deadline=float(n)) for n in (5, 7, 3))
    batch = in_flight(mailbox(flying))
    box = mailbox(gone, queued)
    gone.future.cancel()
    assert next_deadline([batch], [box]) == 3.0
    box.drop_finished()
    assert next_deadline([batch], [box]) == 5.0
    flying.future.cancel()
    assert next_deadline([batch], [box]) == 7.0
    assert next_deadline([], []) == math.inf
