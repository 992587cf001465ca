"""How the audit reads stored events: a whole commit at once, or one by one when that fails."""

from __future__ import annotations

from collections.abc import Callable
from types import GenericAlias
from typing import Any, Final, Generic, TypeVar

import msgspec

UNREADABLE: Final = (msgspec.DecodeError, ValueError, RecursionError)

E = TypeVar("E")


class AnyEvent(msgspec.Struct, gc=False):
    """What an event of any aggregate type has."""

    type: str
    command_id: str


class Format(Generic[E]):
    """Decodes the JSON events of one kind."""

    def __init__(self, event: Any) -> None:
        self._all = msgspec.json.Decoder[list[E]](GenericAlias(list, (event,)))
        self._one = msgspec.json.Decoder[E](event)

    def decode(
        self, data: bytes, first_version: int, fail: Callable[[str], None]
    ) -> list[E | None] | None:
        """Return the events of a commit, with None for an unreadable one; None without a list.

        `fail` is told what is wrong, in words that follow the name of the commit.
        """
        events: list[E | None] = []
        try:
            events += self._all.decode(data)
        except UNREADABLE as error:
            # One event of an unknown type must not hide the others.
            try:
                parts = msgspec.json.decode(data, type=list[msgspec.Raw])
            except UNREADABLE:
                fail(f": {error}")
                return None
            for version, part in enumerate(parts, first_version):
                try:
                    events.append(self._one.decode(part))
                except UNREADABLE as fault:
                    fail(f", version {version}: {fault}")
                    events.append(None)
        return events
