"""The helper for rule examples works for any aggregate, and notices what breaks the contract."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest

from engine.cqrs.aggregate import AggregateType
from engine.cqrs.messages import Answer, Command, Event, Rejected
from engine.testing.given_when_then import given


class Count(msgspec.Struct):
    value: int = 0


class Add(Command, frozen=True):
    by: int


class Added(Event, frozen=True, tag="added.1"):
    by: int


class Praised(Event, frozen=True, tag="praised.1"):
    pass


def decide(_: Count, command: Command, at_us: int) -> Answer:
    assert isinstance(command, Add)
    if command.by < 0:
        return Rejected("negative", "only up")
    added = Added(command.id, command.by)
    return (added, Praised(command.id)) if command.by > 9 else (added,)


def evolve(state: Count, event: Event) -> Count:
    return Count(state.value + event.by) if isinstance(event, Added) else state


def counter(decide: Callable[[Count, Command, int], Answer] = decide) -> AggregateType[Count]:
    return AggregateType("counter", Count, {Add: (Added,)}, Count, decide, evolve)


def test_answers_are_compared_in_order_events_one_by_one_refusals_by_reason() -> None:
    scenario = given(counter(), Added("c0", 5)).when(
        Add("c1", "x", 1), Add("c2", "x", -1), Add("c3", "x", 10)
    )
    scenario.then(Added("c1", 1), "negative", Added("c3", 10), Praised("c3"))
    scenario.then(Added("c1", 1), Rejected("negative", "only up"), Added("c3", 10), Praised("c3"))
    scenario.then_state(value=16)


def test_nothing_asked_is_nothing_answered() -> None:
    given(counter(), Added("c0", 5)).then().then_state(value=5)


@pytest.mark.parametrize(
    ("expected", "message"),
    [
        ((), "expected 0 answers and got 2"),
        ((Added("c1", 1),), "expected 1 answers and got 2"),
        ((Added("c1", 1), "negative", "negative"), "expected 3 answers and got 2"),
        ((Added("c1", 2), "negative"), "answer 1: expected Added.*by=2.*got Added.*by=1"),
        (("negative", "negative"), "answer 1: expected 'negative', got Added"),
        ((Added("c1", 1), "too_much"), "answer 2: expected 'too_much', got Rejected"),
        ((Added("c1", 1), Rejected("negative")), "answer 2: expected Rejected.*detail=''"),
    ],
)
def test_a_difference_is_named(expected: tuple[Event | str, ...], message: str) -> None:
    scenario = given(counter()).when(Add("c1", "x", 1), Add("c2", "x", -1))
    with pytest.raises(AssertionError, match=message):
        scenario.then(*expected)


def test_a_state_that_differs_is_named() -> None:
    with pytest.raises(AssertionError, match=r"expected the state {'value': 2}, got {'value': 1}"):
        given(counter(), Added("c0", 1)).then_state(value=2)


def test_a_decide_that_changes_the_state_is_caught() -> None:
    def impure(state: Count, command: Command, at_us: int) -> Answer:
        state.value += 1
        return Rejected("no")

    with pytest.raises(AssertionError, match="decide changed the state while it answered Add"):
        given(counter(impure)).when(Add("c1", "x", 1))


@pytest.mark.parametrize("answer", [(), (Praised("c1"),)])
def test_an_answer_the_type_does_not_declare_is_caught(answer: Answer) -> None:
    with pytest.raises(AssertionError, match="Add must be answered with Added"):
        given(counter(lambda state, command, at_us: answer)).when(Add("c1", "x", 1))
