"""The messages of the core: commands go in, events are kept, a refusal is a value."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import msgspec

from engine.errors import InvalidCommand, SeckillError

ID_LENGTH_MAX = 64
"""Characters in a command, aggregate or buyer id.

A UUID has 36 and a ULID 26. The bound keeps the key columns of every store short and one order's
memory predictable.
"""


class Command(msgspec.Struct, frozen=True, gc=False):
    """A request to one aggregate, named in the imperative.

    `id` is made by the client and kept for retries: a repeated id gets the first answer.
    Structs without cyclic references are kept out of the garbage collector (`gc=False`), so that
    millions of them cost it nothing.
    """

    id: str
    aggregate_id: str

    def check(self) -> None:
        """Raise InvalidCommand when a field is malformed. Subclasses extend it."""
        check_id("command id", self.id)
        check_id("aggregate id", self.aggregate_id)


class Event(msgspec.Struct, frozen=True, gc=False, tag_field="type"):
    """A fact about one aggregate, named in the past. It carries the id of its command."""

    command_id: str


class Rejected(msgspec.Struct, frozen=True, gc=False):
    """A business "no": a value, never an exception. It changes nothing and is not stored."""

    reason: str
    detail: str = ""


Answer: TypeAlias = tuple[Event, ...] | Rejected
"""What `decide` returns: one event or more, or a refusal."""

Outcome: TypeAlias = Answer | SeckillError
"""What became of one command of a list: an answer, or the error it would have raised alone."""


class Ask(Command, frozen=True, gc=False):
    """Asks what became of the command `id`.

    It stands in the queue like a command, so that what came before it is decided and durable when
    it is answered. No aggregate decides it, and it changes nothing.
    """


class Found(msgspec.Struct, frozen=True):
    """What an Ask found: the answer its command got, None when it is not known here.

    `standing` is what the aggregate says of the command's effect now, as its type defines it.
    """

    answer: Answer | None
    standing: object = None


Upcaster: TypeAlias = Callable[[dict[str, Any]], dict[str, Any]]
"""Takes an event's fields of an old schema version and returns them one version higher.

It must set `type` to the newer tag; upcasters are chained until the tag is a current one.
"""


class Commit(msgspec.Struct, frozen=True):
    """The events that one batch appends to one aggregate.

    `first_version` is the version of the first event; a stream's versions count its events from 1.
    """

    aggregate_type: str
    aggregate_id: str
    first_version: int
    events: Sequence[Event]

    @property
    def last_version(self) -> int:
        return self.first_version + len(self.events) - 1


def check_id(what: str, value: object) -> None:
    """Raise InvalidCommand unless `value` is a printable string of 1..ID_LENGTH_MAX characters.

    Printable also keeps lone surrogates out, which JSON cannot carry. A space at the end is
    refused, because databases compare as if it were not there.
    """
    if type(value) is not str:
        raise InvalidCommand(f"{what} must be a string, got {type(value).__name__}")
    if not 0 < len(value) <= ID_LENGTH_MAX:
        raise InvalidCommand(
            f"{what} must have 1 to {ID_LENGTH_MAX} characters, got {len(value):,}"
        )
    if not value.isprintable():
        raise InvalidCommand(f"{what} must be printable text, got {value!a}")
    if value[-1] == " ":
        raise InvalidCommand(f"{what} must not end with a space, got {value!r}")


def check_count(what: str, value: object, least: int, most: int) -> None:
    """Raise InvalidCommand unless `value` is a whole number from `least` to `most`."""
    if type(value) is not int:
        raise InvalidCommand(f"{what} must be a whole number, got {value!r}")
    if not least <= value <= most:
        raise InvalidCommand(f"{what} must be from {least:,} to {most:,}, got {value:,}")
