"""A projection turns commits into the rows of a read model. Pure: it reads nothing else."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec

from engine.cqrs.messages import Event
from engine.cqrs.query_side.read_model import ReadTable, Write
from engine.errors import StreamKey


class RecordedCommit(msgspec.Struct, frozen=True):
    """A commit with its events decoded and lifted to the newest schema version."""

    partition: int
    position: int
    aggregate_type: str
    aggregate_id: str
    first_version: int
    committed_at_us: int
    events: tuple[Event, ...]

    @property
    def stream(self) -> StreamKey:
        return (self.aggregate_type, self.aggregate_id)


@dataclass(frozen=True)
class Projection:
    """A read model and the function that feeds it.

    `name` is stored with its checkpoint. It sees the commits of `aggregate_types`, those of one
    stream in order, those of different streams in no promised order. `project` may raise: that
    commit and what follows in its stream become dead letters, everything else goes on.
    """

    name: str
    aggregate_types: frozenset[str]
    tables: tuple[ReadTable, ...]
    project: Callable[[RecordedCommit], Sequence[Write]]
