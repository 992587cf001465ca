"""Rules as examples: given these events, when these commands come, then these answers.

given(STOCK, SaleOpened("c1", stock=1, limit_per_buyer=0)).when(
    Reserve("c2", "PHONE", "alice", 1),
    Reserve("c3", "PHONE", "bob", 1),
).then(
    Reserved("c2", "alice", 1),
    "sold_out",
)
"""

from __future__ import annotations

from typing import Any, Generic, TypeVar

import msgspec

from engine.cqrs.aggregate import AggregateType
from engine.cqrs.messages import Answer, Command, Event, Rejected

State = TypeVar("State")


def given(aggregate: AggregateType[State], *events: Event) -> Scenario[State]:
    """Start from the state that `events` lead to."""
    state = aggregate.initial()
    for event in events:
        state = aggregate.evolve(state, event)
    return Scenario(aggregate, state)


class Scenario(Generic[State]):
    """One aggregate and the answers it gave. `state` is the one after everything so far."""

    def __init__(self, aggregate: AggregateType[State], state: State) -> None:
        self.state = state
        self.answers: list[Answer] = []
        self._aggregate = aggregate

    def when(self, *commands: Command, at_us: int = 0) -> Scenario[State]:
        """Decide `commands` in order at one time, each on the state that the ones before it left.

        Raises AssertionError when `decide` changes the state, answers with nothing, or answers
        with an event that the aggregate type does not declare for the command.
        """
        for command in commands:
            before = msgspec.msgpack.encode(self.state)
            answer = self._aggregate.decide(self.state, command, at_us)
            name = type(command).__name__
            if msgspec.msgpack.encode(self.state) != before:
                raise AssertionError(f"decide changed the state while it answered {name}")
            self.answers.append(answer)
            if isinstance(answer, Rejected):
                continue
            declared = self._aggregate.commands[type(command)]
            if not answer or type(answer[0]) not in declared:
                allowed = ", ".join(each.__name__ for each in declared)
                raise AssertionError(f"{name} must be answered with {allowed}, not {answer!r}")
            for event in answer:
                self.state = self._aggregate.evolve(self.state, event)
        return self

    def then(self, *expected: Event | Rejected | str) -> Scenario[State]:
        """Compare all answers so far: events one by one, a refusal whole or by its reason.

        Raises AssertionError naming the first difference.
        """
        found = [each for answer in self.answers for each in _flat(answer)]
        for number, (wanted, got) in enumerate(zip(expected, found, strict=False), 1):
            same = _reason(got) == wanted if isinstance(wanted, str) else got == wanted
            if not same:
                raise AssertionError(f"answer {number}: expected {wanted!r}, got {got!r}")
        if len(expected) != len(found):
            raise AssertionError(
                f"expected {len(expected)} answers and got {len(found)}: {found!r}"
            )
        return self

    def then_state(self, **expected: Any) -> Scenario[State]:
        """Compare attributes of the state. Raises AssertionError naming those that differ."""
        found = {name: getattr(self.state, name) for name in expected}
        if found != expected:
            raise AssertionError(f"expected the state {expected!r}, got {found!r}")
        return self


def _flat(answer: Answer) -> tuple[Event, ...] | tuple[Rejected]:
    return (answer,) if isinstance(answer, Rejected) else answer


def _reason(answer: Event | Rejected) -> str | None:
    return answer.reason if isinstance(answer, Rejected) else None
