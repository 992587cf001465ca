"""Refusals are counted by aggregate and reason, those that were asked for, and within a bound."""

from __future__ import annotations

from engine.cqrs.command_side.decide import Refused
from engine.cqrs.command_side.refusal_counts import RefusalCounts
from engine.cqrs.messages import Command, Rejected
from tests.cqrs.bank_account import Deposit, Withdraw


def refused(*pairs: tuple[Command, str]) -> dict[str, Refused]:
    return {command.id: (command, Rejected(reason)) for command, reason in pairs}


def test_counts_add_up_until_they_are_drained() -> None:
    counts = RefusalCounts((Withdraw,), ("poor", "closed"), 10)
    counts.add(("account", "a"), refused((Withdraw("1", "a", 5), "poor")))
    counts.add(
        ("account", "a"),
        refused((Withdraw("2", "a", 5), "poor"), (Withdraw("3", "a", 5), "closed")),
    )
    counts.add(("account", "b"), refused((Withdraw("1", "b", 5), "poor")))
    assert counts.drain() == {
        ("account", "a"): {"poor": 2, "closed": 1},
        ("account", "b"): {"poor": 1},
    }
    assert counts.drain() == {}


def test_other_commands_and_other_reasons_take_no_room() -> None:
    counts = RefusalCounts((Withdraw,), ("poor",), 1)
    counts.add(("account", "x"), refused((Withdraw("1", "x", 5), "unknown")))
    counts.add(("account", "y"), refused((Deposit("1", "y", 5), "poor")))
    counts.add(("account", "z"), {})
    counts.add(("account", "a"), refused((Withdraw("1", "a", 5), "poor")))
    assert counts.drain() == {("account", "a"): {"poor": 1}}


def test_beyond_the_bound_new_aggregates_are_left_out_and_known_ones_go_on() -> None:
    counts = RefusalCounts((Withdraw,), ("poor",), 2)
    for name in "abcab":
        counts.add(("account", name), refused((Withdraw("1", name, 5), "poor")))
    assert counts.drain() == {("account", "a"): {"poor": 2}, ("account", "b"): {"poor": 2}}
