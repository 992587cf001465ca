"""A commit as messages for other systems: one, or several where the broker takes no such long one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final
from urllib.parse import quote

import msgspec

from engine.cqrs.codec import checksum, name_commit
from engine.cqrs.event_store import StoredCommit
from engine.errors import CorruptEvent

MESSAGE_ID: Final = "Nats-Msg-Id"
PARTITION: Final = "Seckill-Partition"
POSITION: Final = "Seckill-Position"
AGGREGATE_TYPE: Final = "Seckill-Aggregate-Type"
AGGREGATE_ID: Final = "Seckill-Aggregate-Id"
"""As in a URL: what is not a letter, a digit or one of _.-~ is percent-encoded, so that any id may
be a header."""
FIRST_VERSION: Final = "Seckill-First-Version"
LAST_VERSION: Final = "Seckill-Last-Version"
COMMITTED_AT_US: Final = "Seckill-Committed-At-Us"
PART: Final = "Seckill-Part"
PARTS: Final = "Seckill-Parts"

HEADER_BYTES_MAX: Final = 1_024
"""Beside type and id of the aggregate: ours and those that JetStream wants are below 700 bytes."""


class MessageTooLong(Exception):
    """One event alone is longer than the broker takes."""


class EventMessage(msgspec.Struct, frozen=True):
    """What is published of a commit: a JSON array of events, and headers that say which."""

    headers: dict[str, str]
    payload: bytes


def messages_of(commit: StoredCommit, bytes_max: int) -> list[EventMessage]:
    """The messages of a commit, each of at most `bytes_max` with its headers.

    The payload of a single one is the stored JSON, byte by byte. Several hold what is between its
    brackets in their order, and their versions are those of their own events.

    Raises MessageTooLong, CorruptEvent when the events do not match their checksum.
    """
    if checksum(commit.events) != commit.checksum:
        raise CorruptEvent(f"{name_commit(commit)}: its checksum does not match its events")
    names = {
        AGGREGATE_TYPE: quote(commit.aggregate_type, safe=""),
        AGGREGATE_ID: quote(commit.aggregate_id, safe=""),
    }
    room = bytes_max - HEADER_BYTES_MAX - sum(len(name) for name in names.values())
    if len(commit.events) <= room:
        return [_message(commit, names, commit.first_version, commit.last_version, commit.events)]
    pieces = _pieces(commit, room)
    messages: list[EventMessage] = []
    version = commit.first_version
    for part, events in enumerate(pieces, 1):
        last = version + len(events) - 1
        payload = b"[" + b",".join(events) + b"]"
        message = _message(commit, names, version, last, payload)
        message.headers[MESSAGE_ID] += f":{part}"
        message.headers[PART] = str(part)
        message.headers[PARTS] = str(len(pieces))
        messages.append(message)
        version = last + 1
    return messages


def position_in(headers: Mapping[str, str] | None) -> int | None:
    """The position that a message of the stream names; None for one that is not ours."""
    position = (headers or {}).get(POSITION, "")
    return int(position) if position.isascii() and position.isdigit() else None


def is_of(commit: StoredCommit, headers: Mapping[str, str]) -> bool:
    """Whether the last message of a commit was made of this one."""
    return (
        headers.get(AGGREGATE_TYPE) == quote(commit.aggregate_type, safe="")
        and headers.get(AGGREGATE_ID) == quote(commit.aggregate_id, safe="")
        and headers.get(LAST_VERSION) == str(commit.last_version)
        and headers.get(COMMITTED_AT_US) == str(commit.committed_at_us)
    )


def _message(
    commit: StoredCommit, names: dict[str, str], first: int, last: int, payload: bytes
) -> EventMessage:
    return EventMessage(
        {
            MESSAGE_ID: f"{commit.partition}:{commit.position}",
            PARTITION: str(commit.partition),
            POSITION: str(commit.position),
            **names,
            FIRST_VERSION: str(first),
            LAST_VERSION: str(last),
            COMMITTED_AT_US: str(commit.committed_at_us),
        },
        payload,
    )


def _pieces(commit: StoredCommit, room: int) -> list[list[bytes]]:
    """The events as they are stored, cut into groups that are arrays of at most `room` bytes."""
    pieces: list[list[bytes]] = []
    length = room
    for number, raw in enumerate(msgspec.json.decode(commit.events, type=list[msgspec.Raw])):
        event = bytes(raw)
        if len(event) + 2 > room:
            raise MessageTooLong(
                f"{name_commit(commit)}: its event of version {commit.first_version + number} has "
                f"{len(event):,} bytes, and the broker takes {room:,}; raise its max_payload"
            )
        # Each with the comma before it, the first one with its two brackets.
        if length + 1 + len(event) > room:
            pieces.append([])
            length = 1
        pieces[-1].append(event)
        length += 1 + len(event)
    return pieces
