"""A batch closes when it is full, when its time has come, or when the writer is free."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.cqrs.command_side.batch import BatchLimits, CloseReason, close_batch, close_reason
from tests.cqrs.command_side.queued import mailbox, names_of, request


@pytest.mark.parametrize(
    ("delay", "depth", "waited", "draining", "reason"),
    [
        (0.0, 1, 0.0, False, "idle"),
        (0.0, 10, 0.0, False, "size"),
        (0.05, 9, 0.049, False, None),
        (0.05, 9, 0.05, False, "delay"),
        (0.05, 10, 0.0, False, "size"),
        (0.05, 1, 0.0, True, "idle"),
    ],
)
def test_why_a_batch_closes(
    delay: float, depth: int, waited: float, draining: bool, reason: CloseReason | None
) -> None:
    assert close_reason(BatchLimits(10, delay), depth, waited, draining=draining) == reason


@given(
    size_max=st.integers(1, 50),
    delay=st.floats(0, 10),
    depth=st.integers(1, 100),
    waited=st.floats(0, 20),
    draining=st.booleans(),
)
def test_only_a_batch_that_may_still_fill_in_time_waits(
    size_max: int, delay: float, depth: int, waited: float, draining: bool
) -> None:
    reason = close_reason(BatchLimits(size_max, delay), depth, waited, draining=draining)
    assert (reason is None) == (depth < size_max and not draining and waited < delay)


async def test_a_batch_holds_what_fits_and_says_what_is_left() -> None:
    box = mailbox(request("1"), request("2", "3"), request("4"))
    batch = close_batch(box, BatchLimits(2, 0.0), 0.0, draining=False)
    assert batch is not None
    assert [each.id for each in batch.commands] == ["1", "2"] == names_of(batch.slices)
    assert (batch.reason, batch.queue_depth, box.depth) == ("size", 2, 2)


async def test_the_delay_counts_from_the_oldest_command_that_still_waits() -> None:
    gone = request("1", queued_at=0.0)
    box = mailbox(gone, request("2", queued_at=1.0))
    gone.future.cancel()
    limits = BatchLimits(10, 1.0)
    assert close_batch(box, limits, 1.5, draining=False) is None
    assert box.depth == 1
    batch = close_batch(box, limits, 2.0, draining=False)
    assert batch is not None
    assert (batch.reason, [each.id for each in batch.commands]) == ("delay", ["2"])


async def test_a_mailbox_whose_callers_all_left_makes_no_batch() -> None:
    gone = request("1")
    box = mailbox(gone)
    gone.future.cancel()
    assert close_batch(box, BatchLimits(10, 0.0), 0.0, draining=True) is None
    assert box.depth == 0


@given(queued_at=st.floats(0, 1e6), delay=st.floats(0.001, 10), asked_after=st.floats(0, 0.001))
async def test_a_batch_is_due_when_its_timer_rings(
    queued_at: float, delay: float, asked_after: float
) -> None:
    # What the alarm does: the time is added up, taken apart into a wait, and added up again.
    asked = queued_at + asked_after
    rings = asked + ((queued_at + delay) - asked)
    box = mailbox(request("1", queued_at=queued_at))
    assert close_batch(box, BatchLimits(10, delay), rings, draining=False) is not None


async def test_a_batch_does_not_wait_for_more_than_are_expected() -> None:
    limits = BatchLimits(10, 1.0, size_enough=3)
    box = mailbox(request("1"), request("2"))
    assert close_batch(box, limits, 0.5, draining=False) is None
    box.put(request("3"))
    box.put(request("4"))
    batch = close_batch(box, limits, 0.5, draining=False)
    assert batch is not None
    assert (batch.reason, len(batch.commands)) == ("idle", 4)
