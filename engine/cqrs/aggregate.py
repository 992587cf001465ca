"""An aggregate type is three pure functions; the registry knows them all.

    initial()                     -> the state before any event
    decide(state, command, at_us) -> one event or more, or Rejected; changes nothing, reads nothing else
    evolve(state, event)          -> the state after the event; may change it in place

`at_us` is when the batch is decided, microseconds since 1970 UTC, the same for all of it: the only
clock a rule may look at. What it means for later belongs into the event.

The shape is the Decider of functional event sourcing (emmett: decide / evolve / initialState).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Generic, TypeVar

from engine.cqrs.event_store import RowChange, Table
from engine.cqrs.messages import Answer, Command, Commit, Event, Upcaster
from engine.errors import InvalidCommand

State = TypeVar("State")


@dataclass(frozen=True)
class AggregateType(Generic[State]):
    """One kind of aggregate.

    `name` is stored with every commit and must never change. `commands` maps each command type to
    every event its answer may hold; by them a repeated command id is told from a reused one:
    a field of the first event that has the name of a command's field must hold that field's value.
    `snapshot_version` is raised whenever the shape or meaning of the state changes: older
    snapshots are then ignored. `standing` tells what the effect of an accepted command, named by its
    id, is now; it is what an Ask gets beside the events, and of `standing_type`. `upcasters` lift events of older schema versions by their tag.
    """

    name: str
    state: type[State]
    commands: Mapping[type[Command], tuple[type[Event], ...]]
    initial: Callable[[], State]
    decide: Callable[[State, Command, int], Answer]
    evolve: Callable[[State, Event], State]
    snapshot_version: int = 1
    standing: Callable[[State, str], object] | None = None
    standing_type: Any = None
    upcasters: Mapping[str, Upcaster] = field(default_factory=dict)

    @cached_property
    def declared(self) -> frozenset[type[Event]]:
        """Every event type of this aggregate, to look one up."""
        return frozenset(self.events)

    @property
    def events(self) -> tuple[type[Event], ...]:
        """Every event type of this aggregate, once."""
        return tuple(dict.fromkeys(event for events in self.commands.values() for event in events))


@dataclass(frozen=True)
class InlineProjection:
    """A read model kept in the command's own transaction (strongly consistent).

    `changes` turns a commit into guarded row changes, without reading anything.
    """

    aggregate_type: str
    tables: tuple[Table, ...]
    changes: Callable[[Commit], tuple[RowChange, ...]]


class Registry:
    """Finds the aggregate type of a command. Built once, then read only."""

    def __init__(
        self,
        types: Iterable[AggregateType[Any]],
        projections: Iterable[InlineProjection] = (),
    ) -> None:
        self.types: dict[str, AggregateType[Any]] = {}
        self.projections: dict[str, InlineProjection] = {}
        self._by_command: dict[type[Command], AggregateType[Any]] = {}
        for aggregate in types:
            self._add(aggregate)
        for projection in projections:
            if projection.aggregate_type not in self.types:
                raise ValueError(f"projection of unknown type {projection.aggregate_type!r}")
            if projection.aggregate_type in self.projections:
                raise ValueError(f"{projection.aggregate_type!r} has two inline projections")
            self.projections[projection.aggregate_type] = projection

    def _add(self, aggregate: AggregateType[Any]) -> None:
        if aggregate.name in self.types:
            raise ValueError(f"two aggregate types are named {aggregate.name!r}")
        self.types[aggregate.name] = aggregate
        for command in aggregate.commands:
            if command in self._by_command:
                raise ValueError(f"{command.__name__} belongs to two aggregate types")
            self._by_command[command] = aggregate

    @property
    def tables(self) -> tuple[Table, ...]:
        """Every table the inline projections keep."""
        return tuple(table for each in self.projections.values() for table in each.tables)

    def type_of(self, command: Command) -> AggregateType[Any]:
        """Raises InvalidCommand for a command that no aggregate type takes."""
        try:
            return self._by_command[type(command)]
        except KeyError:
            name = type(command).__name__
            raise InvalidCommand(f"{name} is no command of this engine") from None
