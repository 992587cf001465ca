"""Decide a whole batch in memory: one outcome a command, no I/O.

Commands are folded through the aggregate in arrival order, each against the state that the ones
before it left. The aggregate is then one batch ahead of the disk; nobody sees it until the commit
is durable, and it is thrown away and replayed if the commit fails.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Final, TypeAlias, cast

from engine.cqrs.command_side.repository import Kept, Resident
from engine.cqrs.messages import Answer, Ask, Command, Event, Found, Outcome, Rejected
from engine.errors import AggregateHalted, CommandFailed, CommandIdReused, StreamKey

Refused: TypeAlias = tuple[Command, Rejected]


class Refusals:
    """The newest refusals of a partition, so that a repeated command is refused alike.

    Refusals are not stored: they are forgotten at a restart, and when `window` newer ones came.
    Between `window` and twice as many are kept, in two generations, which costs no bookkeeping
    per entry. Like accepted ids, they belong to one stream.
    """

    def __init__(self, window: int) -> None:
        self._window = window
        self._count = 0
        self._young: dict[StreamKey, dict[str, Refused]] = {}
        self._old: dict[StreamKey, dict[str, Refused]] = {}

    def of(self, stream: StreamKey) -> tuple[Mapping[str, Refused], Mapping[str, Refused]]:
        """The refusals of one stream by command id: newer ones, older ones."""
        return self._young.get(stream, {}), self._old.get(stream, {})

    def remember(self, stream: StreamKey, refused: dict[str, Refused]) -> None:
        if not refused:
            return
        self._young.setdefault(stream, {}).update(refused)
        self._count += len(refused)
        if self._count >= self._window:
            self._old, self._young, self._count = self._young, {}, 0


class Decision:
    """What became of a batch: an outcome for each command, the new events, the new refusals.

    `first_version` is the version of the first event. `repeated` counts the commands that were
    answered as they had been the first time, `failed` those that got an error of their own,
    `asked` questions.
    """

    __slots__ = (
        "asked",
        "events",
        "failed",
        "first_version",
        "outcomes",
        "refused",
        "repeated",
        "resident",
    )

    def __init__(self, resident: Resident) -> None:
        self.resident = resident
        self.first_version = resident.version + 1
        self.outcomes: list[Outcome] = []
        self.events: list[Event] = []
        self.refused: dict[str, Refused] = {}
        self.repeated = 0
        self.failed = 0
        self.asked = 0


NOTHING_REFUSED: Final[Mapping[str, Refused]] = {}


def decide(
    resident: Resident,
    commands: Sequence[Command],
    refusals: Refusals,
    at_us: int,
    so_far: Decision | None = None,
    unwritten: Mapping[str, Refused] = NOTHING_REFUSED,
) -> Decision:
    """Answer `commands`, all at the time `at_us`, and move `resident` to the state after them.

    They are added to `so_far` where it is given. `unwritten` are the refusals of a batch of `resident`
    that is being written, which nobody was told of yet.

    A command whose `decide` raises fails alone, with CommandFailed. Raises AggregateHalted when
    `evolve` does: the state is then unusable and the caller must drop `resident`.
    """
    decision = so_far or Decision(resident)
    decided = len(decision.events)
    outcomes, events, refused = decision.outcomes, decision.events, decision.refused
    aggregate, answers, state = resident.aggregate, resident.answers, resident.state
    decide_one, evolve = aggregate.decide, aggregate.evolve
    young, old = refusals.of(resident.stream)
    declared = aggregate.declared
    for command in commands:
        command_id = command.id
        if (kept := answers.get(command_id)) is not None:
            if type(command) is Ask:
                look = aggregate.standing
                standing = look(state, command_id) if look is not None else None
                outcomes.append(_found(decision, _events_of(kept), standing))
            else:
                outcomes.append(_repeat(resident, command, kept, decision))
            continue
        before = (
            refused.get(command_id)
            or unwritten.get(command_id)
            or young.get(command_id)
            or old.get(command_id)
        )
        if type(command) is Ask:
            outcomes.append(_found(decision, before[1] if before is not None else None))
            continue
        if before is not None:
            outcomes.append(_refuse_again(command, before, decision))
            continue
        try:
            answer = decide_one(state, command, at_us)
            if isinstance(answer, Rejected):
                outcomes.append(answer)
                refused[command_id] = (command, answer)
                continue
            if not (
                len(answer) == 1
                and type(answer[0]) in declared
                and answer[0].command_id == command_id
            ):
                _check_events(declared, command_id, answer)
        except Exception as error:
            failure = CommandFailed(f"{type(command).__name__} {command.id!r}: {error!r}")
            failure.__cause__ = error
            decision.failed += 1
            outcomes.append(failure)
            continue
        outcomes.append(answer)
        try:
            for event in answer:
                state = evolve(state, event)
        except Exception as error:
            raise AggregateHalted(
                resident.stream, f"the event of {command_id!r} cannot be applied: {error!r}"
            ) from error
        events += answer
        # Nearly every command has one event, kept bare (see Kept).
        answers[command_id] = event if len(answer) == 1 else answer
    resident.state = state
    resident.version += len(events) - decided
    return decision


def _check_events(declared: frozenset[type[Event]], command_id: str, answer: Answer) -> None:
    """Raise TypeError for events that could not be read back, or would not be found again."""
    assert isinstance(answer, tuple)
    if not answer:
        raise TypeError("decide answered with no event and no Rejected")
    for event in answer:
        if type(event) not in declared:
            raise TypeError(f"{type(event).__name__} is not declared as an event of this aggregate")
        if event.command_id != command_id:
            raise TypeError(f"{type(event).__name__} carries the id of another command")


def _found(decision: Decision, answer: Answer | None, standing: object = None) -> Outcome:
    decision.asked += 1
    # It goes to whoever asked (CommandBus.ask) and to nobody else, who takes it for what it is.
    return cast(Outcome, Found(answer, standing))


def _events_of(kept: Kept) -> tuple[Event, ...]:
    return kept if isinstance(kept, tuple) else (kept,)


def _repeat(resident: Resident, command: Command, kept: Kept, decision: Decision) -> Outcome:
    events = _events_of(kept)
    first = events[0]
    if type(first) not in resident.aggregate.commands[type(command)] or any(
        getattr(command, name) != getattr(first, name)
        for name in _shared_fields(type(command), type(first))
    ):
        decision.failed += 1
        return CommandIdReused(command.id)
    decision.repeated += 1
    return events


def _refuse_again(command: Command, before: Refused, decision: Decision) -> Outcome:
    if before[0] != command:
        decision.failed += 1
        return CommandIdReused(command.id)
    decision.repeated += 1
    return before[1]


@cache
def _shared_fields(command: type[Command], event: type[Event]) -> tuple[str, ...]:
    """The fields an event took over from its command: what tells a retry from a reused id."""
    return tuple(name for name in command.__struct_fields__ if name in event.__struct_fields__)
