"""What travels over the broker, as msgpack: commands to an owner, outcomes back.

    CommandMessage  [inbox, number, deadline_us, [[kind, aggregate type, [command, ...]], ...]]
    OutcomeMessage  [number, plain, [outcome, ...]]   in the order of the commands

A run holds commands of one kind that follow one another, so that the order of arrival is kept and one
pass of C code decodes them. So it does with outcomes that are all events or refusals, which is `plain`;
among others each has a number that tells what it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from types import GenericAlias
from typing import Any, Final, TypeAlias, Union

import msgspec

from engine.cqrs.aggregate import Registry
from engine.cqrs.messages import Answer, Ask, Command, Found, Outcome, Rejected
from engine.errors import (
    AggregateHalted,
    CommandFailed,
    CommandIdReused,
    DeadlineExceeded,
    EngineClosed,
    InvalidCommand,
    OutcomeUnknown,
    PartitionLost,
    SeckillError,
    StoreUnavailable,
)

Addressed: TypeAlias = tuple[str, int, Sequence[Command]]
"""The aggregate type, by name, a deadline in microseconds since 1970 UTC, and commands for it."""


class WireError(ValueError):
    """A message that this program cannot read. The text says why."""


class Run(msgspec.Struct, frozen=True, array_like=True):
    """`deadline_us` since 1970 UTC: nobody waits after it, so it is not executed."""

    kind: str
    aggregate_type: str
    deadline_us: int
    commands: msgspec.Raw


class CommandMessage(msgspec.Struct, frozen=True, array_like=True):
    inbox: str
    number: int
    runs: list[Run]
    store: str


class OutcomeMessage(msgspec.Struct, frozen=True, array_like=True):
    number: int
    plain: bool
    outcomes: msgspec.Raw


class _Failed(msgspec.Struct, frozen=True, array_like=True, tag=2):
    kind: str
    arguments: tuple[str, ...]


class _Refused(msgspec.Struct, frozen=True, array_like=True, tag=1):
    reason: str
    detail: str


_WORDS: Final = {
    kind.__name__: kind
    for kind in (
        CommandFailed,
        DeadlineExceeded,
        EngineClosed,
        InvalidCommand,
        PartitionLost,
        StoreUnavailable,
    )
}
"""Errors that are made of their text alone."""

_OF_COMMAND: Final = {kind.__name__: kind for kind in (CommandIdReused, OutcomeUnknown)}
"""Errors that are made of a command id."""

UNREADABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What damaged bytes raise."""

_PLAIN: Final = frozenset({tuple, Rejected})

_ENCODER: Final = msgspec.msgpack.Encoder()


class Wire:
    """Encodes and decodes for the commands and events of a registry."""

    def __init__(self, registry: Registry, store: str = "") -> None:
        """`store` is the identity of the one that is sold from. Raises ValueError when two commands
        share a name."""
        self._store = store
        kinds: list[type[Command]] = [Ask]
        kinds += [kind for each in registry.types.values() for kind in each.commands]
        self._commands = {
            kind.__name__: msgspec.msgpack.Decoder[Any](GenericAlias(list, (kind,)))
            for kind in kinds
        }
        if len(self._commands) != len(kinds):
            raise ValueError(f"two commands share a name: {sorted(k.__name__ for k in kinds)}")
        events = tuple(dict.fromkeys(e for each in registry.types.values() for e in each.events))
        answer = GenericAlias(tuple, (Union[events], ...))
        self._done = _shape("Done", 0, events=answer)
        standings = {e.standing_type for e in registry.types.values() if e.standing is not None}
        if len(standings) > 1:
            raise ValueError("standings of more than one type could not be told apart")
        standing = next(iter(standings), None)
        self._found = _shape(
            "Found", 3, events=answer | None, refused=_Refused | None, standing=standing
        )
        self._outcomes = msgspec.msgpack.Decoder[Any](
            GenericAlias(list, (Union[self._done, _Refused, _Failed, self._found],))
        )
        self._plain = msgspec.msgpack.Decoder[Any](GenericAlias(list, (answer | Rejected,)))
        self._messages = msgspec.msgpack.Decoder(CommandMessage)
        self._replies = msgspec.msgpack.Decoder(OutcomeMessage)

    def encode_commands(self, inbox: str, number: int, parts: Sequence[Addressed]) -> bytes:
        return _ENCODER.encode(CommandMessage(inbox, number, self.runs_of(parts), self._store))

    def runs_of(self, parts: Sequence[Addressed]) -> list[Run]:
        return [
            Run(kind.__name__, name, deadline_us, msgspec.Raw(_ENCODER.encode(commands)))
            for name, deadline_us, kind, commands in _split(parts)
        ]

    def decode_message(self, data: bytes) -> CommandMessage:
        """The message, its commands still encoded. Raises WireError, also when it is for another store."""
        try:
            message = self._messages.decode(data)
        except UNREADABLE as error:
            raise WireError(f"no message of commands: {error}") from error
        if message.store != self._store:
            raise WireError("it is for another store: give each its own cluster.prefix")
        return message

    def decode_run(self, run: Run) -> list[Command]:
        """Raises WireError: a newer program sent it, or it is damaged."""
        decoder = self._commands.get(run.kind)
        if decoder is None:
            raise WireError(f"the command {run.kind} is not known here")
        try:
            commands: list[Command] = decoder.decode(run.commands)
        except UNREADABLE as error:
            raise WireError(f"no {run.kind}: {error}") from error
        return commands

    def encode_outcomes(self, number: int, outcomes: Sequence[Outcome | Found]) -> bytes:
        plain = _PLAIN.issuperset(map(type, outcomes))
        encoded = _ENCODER.encode(outcomes if plain else [self._to_wire(each) for each in outcomes])
        return _ENCODER.encode(OutcomeMessage(number, plain, msgspec.Raw(encoded)))

    def decode_reply(self, data: bytes) -> OutcomeMessage:
        """The reply, its outcomes still encoded. Raises WireError."""
        try:
            return self._replies.decode(data)
        except UNREADABLE as error:
            raise WireError(f"no message of outcomes: {error}") from error

    def decode_outcomes(self, reply: OutcomeMessage) -> list[Any]:
        """Outcomes; a Found for each Ask, its standing as plain values. Raises WireError."""
        try:
            if reply.plain:
                plain: list[Any] = self._plain.decode(reply.outcomes)
                return plain
            return [self._from_wire(each) for each in self._outcomes.decode(reply.outcomes)]
        except UNREADABLE as error:
            raise WireError(f"no outcomes: {error}") from error

    def _to_wire(self, outcome: Outcome | Found) -> Any:
        if type(outcome) is tuple:
            return self._done(outcome)
        if isinstance(outcome, Rejected):
            return _Refused(outcome.reason, outcome.detail)
        if isinstance(outcome, Found):
            answer = outcome.answer
            if isinstance(answer, Rejected):
                return self._found(None, _Refused(answer.reason, answer.detail), None)
            return self._found(answer, None, outcome.standing)
        assert isinstance(outcome, SeckillError)
        return _Failed(*_describe(outcome))

    def _from_wire(self, found: Any) -> Outcome | Found:
        if isinstance(found, self._done):
            events: Answer = found.events
            return events
        if isinstance(found, _Refused):
            return Rejected(found.reason, found.detail)
        if isinstance(found, _Failed):
            return _make_error(found)
        refused = found.refused
        if refused is not None:
            return Found(Rejected(refused.reason, refused.detail), None)
        return Found(found.events, found.standing)


def _split(
    parts: Sequence[Addressed],
) -> Iterator[tuple[str, int, type[Command], Sequence[Command]]]:
    """Commands of one kind that follow one another, with what their parts have in common."""
    for (name, deadline_us), group in groupby(parts, key=lambda part: part[:2]):
        commands = [each for part in group for each in part[2]]
        if len(set(map(type, commands))) == 1:
            # Nearly always, and much faster than looking at each.
            yield name, deadline_us, type(commands[0]), commands
            continue
        for kind, run in groupby(commands, key=type):
            yield name, deadline_us, kind, list(run)


def _shape(name: str, tag: int, **fields: Any) -> Any:
    """A struct whose field types are known only once there is a registry."""
    return msgspec.defstruct(name, list(fields.items()), frozen=True, array_like=True, tag=tag)


def _describe(error: SeckillError) -> tuple[str, tuple[str, ...]]:
    if isinstance(error, CommandIdReused | OutcomeUnknown):
        return type(error).__name__, (error.command_id,)
    if isinstance(error, AggregateHalted):
        return AggregateHalted.__name__, (*error.stream, error.reason)
    if type(error).__name__ in _WORDS:
        return type(error).__name__, (str(error),)
    # Of a kind that is met inside only: what it says of the command is not known here.
    return OutcomeUnknown.__name__, ("",)


def _make_error(found: _Failed) -> SeckillError:
    kind, arguments = found.kind, found.arguments
    if kind in _WORDS and len(arguments) == 1:
        return _WORDS[kind](arguments[0])
    if kind in _OF_COMMAND and len(arguments) == 1:
        return _OF_COMMAND[kind](arguments[0])
    if kind == AggregateHalted.__name__ and len(arguments) == 3:
        return AggregateHalted((arguments[0], arguments[1]), arguments[2])
    raise WireError(f"the error {kind} is not known here")
