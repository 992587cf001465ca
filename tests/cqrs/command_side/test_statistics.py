"""Every command is counted once, under what became of it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.cqrs.command_side.batch import Batch, CloseReason
from engine.cqrs.command_side.decide import Refusals, decide
from engine.cqrs.command_side.mailbox import Mailbox
from engine.cqrs.command_side.repository import Resident
from engine.cqrs.command_side.statistics import Counters, Statistics
from engine.cqrs.messages import Command
from tests.cqrs.bank_account import ACCOUNT, Audit, Deposit, Withdraw
from tests.cqrs.command_side.queued import request

STREAM = ("account", "a")

COMMANDS = st.lists(
    st.builds(
        lambda make, number: make(f"{number}"),
        st.sampled_from(
            [
                lambda name: Deposit(name, "a", 3),
                lambda name: Withdraw(name, "a", 5),
                lambda name: Audit(name, "a"),
            ]
        ),
        st.integers(0, 6),
    ),
    min_size=1,
    max_size=20,
)


def batch_with(commands: list[Command], depth: int = 0, reason: CloseReason = "idle") -> Batch:
    mailbox = Mailbox(ACCOUNT, STREAM)
    mailbox.depth = depth
    asked = request(*(each.id for each in commands))
    asked.commands = commands
    return Batch(mailbox, [(asked, 0, len(commands))], reason)


def count(counters: Counters, batch: Batch, resident: Resident | None = None) -> None:
    resident = resident or Resident(ACCOUNT, STREAM)
    counters.count_batch(batch, decide(resident, batch.commands, Refusals(99), 0), 1.0)


def snapshot(counters: Counters) -> Statistics:
    return counters.snapshot(queue_depth=0, residents=0, halted=0)


@given(batches=st.lists(COMMANDS, min_size=1, max_size=4))
async def test_every_command_of_a_batch_is_counted_under_one_heading(
    batches: list[list[Command]],
) -> None:
    counters, resident = Counters(), Resident(ACCOUNT, STREAM)
    for commands in batches:
        count(counters, batch_with(commands), resident)
    counted = snapshot(counters)
    assert counted.accepted == len(resident.answers)
    refused = sum(counted.rejected.values())
    total = counted.accepted + refused + counted.repeated + counted.failed
    assert total == sum(len(each) for each in batches)
    assert sum(size * n for size, n in counted.batch_sizes.items()) == total
    assert counted.batches == len(batches)


async def test_a_batch_of_everything_is_told_apart() -> None:
    counters = Counters()
    deposit, refused = Deposit("1", "a", 3), Withdraw("2", "a", 50)
    commands = [deposit, deposit, deposit, refused, refused, Audit("3", "a"), Deposit("2", "a", 1)]
    for _ in range(2):
        count(counters, batch_with(commands, reason="size"))
    counted = snapshot(counters)
    assert counted.accepted == 2
    assert counted.rejected == {"insufficient_balance": 2}
    assert counted.repeated == 6
    assert counted.failed == 4
    assert (counted.batches, counted.batch_sizes, counted.closed_by) == (2, {7: 2}, {"size": 2})


@pytest.mark.parametrize(
    ("depth", "group"), [(0, 0), (1, 1), (2, 2), (3, 2), (4, 4), (1_023, 512), (1_024, 1_024)]
)
async def test_queue_depths_are_rounded_down_to_a_power_of_two(depth: int, group: int) -> None:
    counters = Counters()
    count(counters, batch_with([Deposit("1", "a", 1)], depth))
    assert snapshot(counters).queue_depths == {group: 1}


async def test_histograms_are_sorted_and_batches_told_apart() -> None:
    counters = Counters()
    reasons: list[CloseReason] = ["idle", "delay", "idle"]
    for size, depth, reason in zip((3, 1, 2), (9, 0, 5), reasons, strict=True):
        commands: list[Command] = [Deposit(f"{n}", "a", 1) for n in range(size)]
        count(counters, batch_with(commands, depth, reason))
    counted = snapshot(counters)
    assert list(counted.batch_sizes.items()) == [(1, 1), (2, 1), (3, 1)]
    assert list(counted.queue_depths.items()) == [(0, 1), (4, 1), (8, 1)]
    assert counted.closed_by == {"idle": 2, "delay": 1}


def test_a_snapshot_says_each_count_under_its_own_name() -> None:
    counters = Counters()
    numbered = [
        "accepted",
        "repeated",
        "failed",
        "overloaded",
        "expired",
        "unknown",
        "transactions",
        "conflicts",
        "recoveries",
    ]
    for number, name in enumerate(numbered, start=1):
        setattr(counters, name, number)
    counters.commit_seconds = 0.25
    counted = counters.snapshot(queue_depth=101, residents=102, halted=103)
    assert [getattr(counted, name) for name in numbered] == list(range(1, len(numbered) + 1))
    assert counted.commit_seconds == 0.25
    assert (counted.queue_depth, counted.residents, counted.halted) == (101, 102, 103)


async def test_a_snapshot_does_not_change_afterwards() -> None:
    counters = Counters()
    before = snapshot(counters)
    count(counters, batch_with([Withdraw("1", "a", 5)]))
    assert before == snapshot(Counters())
    assert before != snapshot(counters)
