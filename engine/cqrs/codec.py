"""Events to JSON and back: a type tag with its schema version, upcasters, checksums.

A commit's events are a JSON array of objects whose `type` is `<name>.<schema version>`, such as
`reserved.1`. Old shapes are never rewritten in the store; an upcaster lifts them when they are
read. The crc32c of the bytes is stored beside them and checked first (Castagnoli's polynomial,
RFC 3720 appendix B.4, which the processor computes at gigabytes a second).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import GenericAlias
from typing import Any, Union, cast

import google_crc32c
import msgspec

from engine.cqrs.event_store import StoredCommit
from engine.cqrs.messages import Event, Upcaster
from engine.errors import CorruptEvent


class Codec:
    """Encodes and decodes the events of one aggregate type."""

    def __init__(
        self, events: Sequence[type[Event]], upcasters: Mapping[str, Upcaster] | None = None
    ) -> None:
        """Raise ValueError when two events share a tag or an upcaster lifts a current one."""
        self._upcasters = dict(upcasters or {})
        self._tags = [_tag(event) for event in events]
        if len(set(self._tags)) != len(self._tags):
            raise ValueError(f"two events share a type tag: {sorted(self._tags)}")
        for tag in self._upcasters:
            if tag in self._tags:
                raise ValueError(f"{tag} is a current event; it needs no upcaster")
        self._encoder = msgspec.json.Encoder()
        self._shape: Any = GenericAlias(tuple, (Union[tuple(events)], ...))
        self._decoder = msgspec.json.Decoder[Any](self._shape)

    def encode(self, events: Sequence[Event]) -> bytes:
        return self._encoder.encode(events)

    def decode(self, commit: StoredCommit) -> tuple[Event, ...]:
        """Raises CorruptEvent naming the commit when checksum, JSON, type or count is wrong."""
        if google_crc32c.value(commit.events) != commit.checksum:
            raise CorruptEvent(f"{name_commit(commit)}: its checksum does not match its events")
        try:
            events: tuple[Event, ...] = self._decode(commit.events)
        except (msgspec.DecodeError, KeyError, TypeError, ValueError) as error:
            raise CorruptEvent(f"{name_commit(commit)}: {error}") from error
        if len(events) != commit.last_version - commit.first_version + 1:
            raise CorruptEvent(
                f"{name_commit(commit)}: {len(events)} events where versions "
                f"{commit.first_version}..{commit.last_version} were stored"
            )
        return events

    def _decode(self, data: bytes) -> tuple[Event, ...]:
        if not self._upcasters:
            return cast(tuple[Event, ...], self._decoder.decode(data))
        try:
            return cast(tuple[Event, ...], self._decoder.decode(data))
        except msgspec.ValidationError:
            lifted = [self._lift(fields) for fields in msgspec.json.decode(data)]
            return cast(tuple[Event, ...], msgspec.convert(lifted, self._shape))

    def _lift(self, fields: dict[str, Any]) -> dict[str, Any]:
        seen = set[str]()
        while (upcast := self._upcasters.get(tag := fields["type"])) is not None:
            if tag in seen:
                raise ValueError(f"the upcaster of {tag} does not lead to a newer type")
            seen.add(tag)
            fields = upcast(fields)
        return fields


def checksum(data: bytes) -> int:
    """The crc32c of `data`."""
    return int(google_crc32c.value(data))


def name_commit(commit: StoredCommit) -> str:
    """Name a commit the way an operator finds it in the store."""
    return (
        f"commit at position {commit.position} of partition {commit.partition} "
        f"({commit.aggregate_type} {commit.aggregate_id!r}, "
        f"versions {commit.first_version}..{commit.last_version})"
    )


def _tag(event: type[Event]) -> str:
    tag = event.__struct_config__.tag
    if not isinstance(tag, str) or not tag.rpartition(".")[2].isdigit():
        raise ValueError(
            f"{event.__name__} needs a tag of the form name.version, such as 'reserved.1'"
        )
    return tag
