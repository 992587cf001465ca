"""What a snapshot is made of, as bytes: the state, and the ids of every command answered by then.

The state is written anew with each snapshot, the ids once: span by span, never changed. An answer is
not in it; it is in the events, which are read when its id comes again. The head names every piece
with its checksum, so a piece that is missing, stale or damaged is found before it is trusted.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from itertools import chain
from types import GenericAlias
from typing import Any, Final, TypeAlias

import msgspec

from engine.cqrs.aggregate import AggregateType
from engine.cqrs.codec import checksum
from engine.cqrs.event_store import ALL_PARTS, SnapshotPart
from engine.cqrs.messages import Event

SPAN_EVENTS_MAX: Final = 8_192
"""Events of a span, unless a single commit has more: what is read when one of its ids comes again."""

PART_BYTES_MAX: Final = 1 << 20
PAGE_PARTS: Final = 16
"""Parts read at once, so that a load holds 16 MiB of them at most."""

Written: TypeAlias = tuple[int, Sequence[Event]]
"""The events of one commit, with the version of the first."""

ReadParts: TypeAlias = Callable[[int, int], Awaitable[list[SnapshotPart]]]


class UnusableSnapshot(Exception):
    """A snapshot that is not whole. The message says what is wrong."""


class Blob(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Bytes kept in `parts` parts that follow one another, with the crc32c of all."""

    first_part: int
    parts: int
    checksum: int


class IdSpan(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The command ids of whole commits."""

    first_version: int
    last_version: int
    ids: Blob


class Head(msgspec.Struct, frozen=True, array_like=True):
    """What a snapshot consists of. The next piece will be numbered `next_part`."""

    version: int
    next_part: int
    state: Blob
    state_bytes: int
    spans: tuple[IdSpan, ...]

    @property
    def replaced(self) -> tuple[int, int]:
        """The parts that the next snapshot replaces."""
        return (self.state.first_part, self.state.first_part + self.state.parts)


_ENCODER: Final = msgspec.msgpack.Encoder()
_HEADS: Final = msgspec.msgpack.Decoder(Head)
_IDS: Final = msgspec.msgpack.Decoder(list[str])


class SnapshotFormat:
    """Encodes and decodes the snapshots of one aggregate type."""

    def __init__(self, aggregate: AggregateType[Any], part_bytes_max: int) -> None:
        self._states = msgspec.msgpack.Decoder[Any](GenericAlias(tuple, (int, aggregate.state)))
        self._part_bytes_max = max(1, min(PART_BYTES_MAX, part_bytes_max))

    def encode(
        self, version: int, state: object, unsaved: Iterable[Written], before: Head | None
    ) -> tuple[Head, list[SnapshotPart], tuple[int, int]]:
        """The head, the parts to add and the numbers to remove, beginning from the one `before`."""
        pieces = _Pieces(before.next_part if before else 0, self._part_bytes_max)
        new = [
            IdSpan(first, last, pieces.add(_ENCODER.encode(ids)))
            for first, last, ids in _spans(unsaved)
        ]
        # The version is inside too: a state of another snapshot would else pass for this one's.
        encoded = _ENCODER.encode((version, state))
        blob = pieces.add(encoded)
        spans = (*(before.spans if before else ()), *new)
        head = Head(version, pieces.next_part, blob, len(encoded), spans)
        return head, pieces.parts, before.replaced if before else ALL_PARTS

    def decode_state(self, head: Head, data: bytes) -> Any:
        """Raises UnusableSnapshot, msgspec.DecodeError."""
        version, state = self._states.decode(data)
        if version != head.version:
            raise UnusableSnapshot(f"its state is of version {version}")
        return state


def encode_head(head: Head) -> bytes:
    return _ENCODER.encode(head)


def decode_head(data: bytes, version: int) -> Head:
    """Raises UnusableSnapshot when its spans are not all events up to `version`, msgspec.DecodeError."""
    head = _HEADS.decode(data)
    next_version = 1
    for span in head.spans:
        if not next_version == span.first_version <= span.last_version:
            raise UnusableSnapshot(f"it does not know the ids from version {next_version} on")
        next_version = span.last_version + 1
    if not next_version - 1 == head.version == version:
        raise UnusableSnapshot(f"it knows the ids up to version {next_version - 1} of {version}")
    return head


def decode_ids(data: bytes) -> list[str]:
    """Raises msgspec.DecodeError."""
    return _IDS.decode(data)


async def read_blobs(read: ReadParts, blobs: Iterable[Blob]) -> AsyncIterator[bytes]:
    """The contents of `blobs`, which come in the order of their numbers.

    `read(from_number, limit)` reads parts. Raises UnusableSnapshot when one is missing or damaged.
    """
    found: dict[int, bytes] = {}
    for blob in blobs:
        end = blob.first_part + blob.parts
        pieces: list[bytes] = []
        for number in range(blob.first_part, end):
            if number not in found:
                found = {part.number: part.data for part in await read(number, PAGE_PARTS)}
            if number not in found:
                raise UnusableSnapshot(f"its part {number} is missing")
            pieces.append(found[number])
        data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        if checksum(data) != blob.checksum:
            raise UnusableSnapshot(
                f"the checksum of its parts {blob.first_part}..{end - 1} is wrong"
            )
        yield data


class _Pieces:
    """Cuts blobs into parts and numbers them."""

    def __init__(self, next_part: int, part_bytes_max: int) -> None:
        self.next_part = next_part
        self.parts: list[SnapshotPart] = []
        self._part_bytes_max = part_bytes_max

    def add(self, data: bytes) -> Blob:
        first = self.next_part
        size = self._part_bytes_max
        for start in range(0, len(data), size):
            self.parts.append(SnapshotPart(self.next_part, data[start : start + size]))
            self.next_part += 1
        return Blob(first, self.next_part - first, checksum(data))


def _spans(commits: Iterable[Written]) -> Iterator[tuple[int, int, list[str]]]:
    """Group commits: first version, last version, and the ids of the commands of each group."""
    group: list[Written] = []
    events = 0
    for commit in chain(commits, (None,)):
        if group and (commit is None or events + len(commit[1]) > SPAN_EVENTS_MAX):
            first = group[0][0]
            ids = [event.command_id for _, each in group for event in each]
            yield first, first + events - 1, ids
            group, events = [], 0
        if commit is not None:
            group.append(commit)
            events += len(commit[1])
