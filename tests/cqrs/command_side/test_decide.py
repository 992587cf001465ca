"""A batch is decided in order, each command on the last; a repeated one gets its first answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.cqrs.command_side.decide import Refusals, Refused, decide
from engine.cqrs.command_side.repository import Resident
from engine.cqrs.messages import Answer, Command, Event, Outcome, Rejected
from engine.errors import AggregateHalted, CommandFailed, CommandIdReused, StreamKey
from tests.cqrs.bank_account import (
    ACCOUNT,
    Account,
    Audit,
    Corrupt,
    Corrupted,
    Deposit,
    Deposited,
    FeeCharged,
    Incremented,
    Withdraw,
    Withdrawn,
)

STREAM = ("account", "a")
POOR = Rejected("insufficient_balance")

# Few ids, so that commands are repeated and ids are used again for other requests.
COMMANDS = st.lists(
    st.builds(
        lambda kind, number, amount: kind(f"{number}", "a", amount),
        st.sampled_from([Deposit, Withdraw]),
        st.integers(0, 9),
        st.integers(1, 9),
    ),
    max_size=20,
)


def account(*events: Event, stream: StreamKey = STREAM) -> Resident:
    resident = Resident(ACCOUNT, stream)
    resident.apply(events)
    return resident


def answers(resident: Resident, refusals: Refusals, *commands: Command) -> list[Outcome]:
    """Decide a batch and remember its refusals, as a published batch does."""
    decision = decide(resident, commands, refusals, 0)
    refusals.remember(resident.stream, decision.refused)
    return decision.outcomes


def comparable(outcomes: Sequence[Outcome]) -> list[object]:
    """Errors compare by identity; here their type and text matter."""
    return [(type(each), str(each)) if isinstance(each, Exception) else each for each in outcomes]


def test_each_command_is_decided_on_the_state_the_one_before_left() -> None:
    resident = account(Deposited("0", 5))
    commands = [Withdraw("1", "a", 5), Deposit("2", "a", 1), Withdraw("3", "a", 5)]
    decision = decide(resident, commands, Refusals(9), 0)
    withdrawn = (Withdrawn("3", 5), FeeCharged("3", 1))
    assert decision.outcomes == [POOR, (Deposited("2", 1),), withdrawn]
    assert decision.events == [Deposited("2", 1), *withdrawn]
    assert (decision.first_version, resident.version) == (2, 4)
    assert resident.state == Account(0)
    assert decision.refused == {"1": (commands[0], POOR)}
    assert (decision.repeated, decision.failed) == (0, 0)


def test_an_empty_batch_changes_nothing() -> None:
    resident = account(Deposited("0", 5))
    decision = decide(resident, [], Refusals(9), 0)
    assert (decision.outcomes, decision.events, decision.refused) == ([], [], {})
    assert (resident.version, resident.state) == (1, Account(5))


@given(commands=COMMANDS, cuts=st.sets(st.integers(0, 20)))
def test_answers_do_not_depend_on_where_batches_end(
    commands: list[Deposit | Withdraw], cuts: set[int]
) -> None:
    whole, cut, refusals = account(), account(), Refusals(100)
    expected = answers(whole, Refusals(100), *commands)
    edges = sorted({0, len(commands), *(each for each in cuts if each < len(commands))})
    outcomes = [
        outcome
        for start, stop in pairwise(edges)
        for outcome in answers(cut, refusals, *commands[start:stop])
    ]
    assert comparable(outcomes) == comparable(expected)
    assert (cut.state, cut.version, cut.answers) == (whole.state, whole.version, whole.answers)


@given(commands=COMMANDS)
def test_a_replay_of_the_events_leads_to_the_same_aggregate(
    commands: list[Deposit | Withdraw],
) -> None:
    decided = account()
    decision = decide(decided, commands, Refusals(100), 0)
    replayed = account(*decision.events)
    assert (replayed.state, replayed.version, replayed.answers) == (
        decided.state,
        decided.version,
        decided.answers,
    )


@pytest.mark.parametrize("same_batch", [True, False])
@pytest.mark.parametrize(
    "command",
    [Deposit("1", "a", 5), Withdraw("1", "a", 5), Withdraw("1", "a", 50)],
    ids=["one event", "two events", "refused"],
)
def test_a_repeated_command_gets_its_first_answer(command: Command, same_batch: bool) -> None:
    resident, refusals = account(Deposited("0", 10)), Refusals(9)
    # The balance in between would change the answer of a command that was decided again.
    between = Deposit("2", "a", 100)
    if same_batch:
        decision = decide(resident, [command, between, command], refusals, 0)
        first, _, again = decision.outcomes
    else:
        first, _ = answers(resident, refusals, command, between)
        decision = decide(resident, [command], refusals, 0)
        (again,) = decision.outcomes
        assert (decision.events, decision.refused) == ([], {})
    assert again == first
    assert (decision.repeated, decision.failed) == (1, 0)


@pytest.mark.parametrize("same_batch", [True, False])
@pytest.mark.parametrize(
    ("first", "balance"), [(Deposit("1", "a", 5), 15), (Withdraw("1", "a", 50), 10)]
)
@pytest.mark.parametrize(
    "other", [Deposit("1", "a", 6), Withdraw("1", "a", 5), Withdraw("1", "a", 51)]
)
def test_an_id_used_for_another_request_is_refused_and_changes_nothing(
    first: Command, balance: int, other: Command, same_batch: bool
) -> None:
    resident, refusals = account(Deposited("0", 10)), Refusals(9)
    if same_batch:
        decision = decide(resident, [first, other], refusals, 0)
    else:
        answers(resident, refusals, first)
        decision = decide(resident, [other], refusals, 0)
    error = decision.outcomes[-1]
    assert isinstance(error, CommandIdReused)
    assert error.command_id == "1"
    assert (decision.repeated, decision.failed) == (0, 1)
    assert resident.state == Account(balance)


def test_a_command_whose_decide_raises_fails_alone() -> None:
    resident = account()
    decision = decide(resident, [Audit("1", "a"), Deposit("2", "a", 5)], Refusals(9), 0)
    failure, accepted = decision.outcomes
    assert isinstance(failure, CommandFailed)
    assert isinstance(failure.__cause__, ZeroDivisionError)
    assert "Audit '1'" in str(failure)
    assert accepted == (Deposited("2", 5),)
    assert (decision.refused, decision.repeated, decision.failed) == ({}, 0, 1)
    assert list(resident.answers) == ["2"]


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ((), "no event"),
        ((Incremented("1"),), "Incremented is not declared"),
        ((Deposited("1", 5), Incremented("1")), "Incremented is not declared"),
        ((Deposited("2", 5),), "the id of another command"),
        ((Deposited("1", 5), FeeCharged("2", 1)), "the id of another command"),
    ],
)
def test_an_answer_that_could_not_be_read_back_fails_its_command_and_changes_nothing(
    answer: Answer, message: str
) -> None:
    resident = Resident(replace(ACCOUNT, decide=lambda state, command, at_us: answer), STREAM)
    decision = decide(resident, [Deposit("1", "a", 5)], Refusals(9), 0)
    (failure,) = decision.outcomes
    assert isinstance(failure, CommandFailed)
    assert message in str(failure)
    assert (decision.events, decision.failed) == ([], 1)
    assert (resident.state, resident.version, resident.answers) == (Account(0), 0, {})


@pytest.mark.parametrize("events", [1, 2])
def test_an_event_that_cannot_be_applied_halts_the_aggregate(events: int) -> None:
    def deposit_and_corrupt(state: Account, command: Command, at_us: int) -> Answer:
        return (Deposited(command.id, 1), Corrupted(command.id))[-events:]

    resident = Resident(replace(ACCOUNT, decide=deposit_and_corrupt), STREAM)
    with pytest.raises(AggregateHalted, match="event of '1'") as caught:
        decide(resident, [Corrupt("1", "a")], Refusals(9), 0)
    assert caught.value.stream == STREAM
    assert isinstance(caught.value.__cause__, ValueError)


def test_a_refusal_belongs_to_its_aggregate_alone() -> None:
    refusals = Refusals(9)
    assert answers(account(), refusals, Withdraw("1", "a", 5)) == [POOR]
    other = account(stream=("account", "b"))
    assert answers(other, refusals, Deposit("1", "b", 5)) == [(Deposited("1", 5),)]


def test_a_refusal_is_repeated_until_enough_newer_ones_came_and_then_decided_anew() -> None:
    resident, refusals, first = account(), Refusals(1), Withdraw("1", "a", 5)
    assert answers(resident, refusals, first) == [POOR]
    answers(resident, refusals, Deposit("2", "a", 50))
    assert answers(resident, refusals, first) == [POOR]
    answers(resident, refusals, Withdraw("3", "a", 500))
    assert answers(resident, refusals, first) == [(Withdrawn("1", 5), FeeCharged("1", 1))]


@given(window=st.integers(1, 6), streams=st.lists(st.sampled_from("abc"), max_size=40))
def test_the_newest_refusals_are_remembered_and_the_old_ones_take_no_room(
    window: int, streams: list[str]
) -> None:
    refusals = Refusals(window)
    for number, name in enumerate(streams):
        refused: dict[str, Refused] = {f"{number}": (Withdraw(f"{number}", name, 1), POOR)}
        refusals.remember(("account", name), refused)
    kept = [int(each) for name in "abc" for each in remembered(refusals, ("account", name))]
    total = len(streams)
    assert set(range(max(0, total - window), total)) <= set(kept)
    assert len(kept) <= 2 * window


@given(sizes=st.lists(st.integers(0, 5), max_size=12), window=st.integers(1, 6))
def test_a_batch_of_refusals_is_remembered_whole(sizes: list[int], window: int) -> None:
    refusals = Refusals(window)
    for batch, size in enumerate(sizes):
        ids = [f"{batch}-{n}" for n in range(size)]
        refusals.remember(STREAM, {each: (Withdraw(each, "a", 1), POOR) for each in ids})
        assert set(ids) <= set(remembered(refusals, STREAM))


def remembered(refusals: Refusals, stream: StreamKey) -> list[str]:
    return [each for generation in refusals.of(stream) for each in generation]
