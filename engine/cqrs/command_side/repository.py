"""Aggregates in memory: replayed from their events, helped by snapshots."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import msgspec

from engine.cqrs.aggregate import AggregateType
from engine.cqrs.codec import Codec, checksum
from engine.cqrs.command_side.snapshots import (
    Head,
    SnapshotFormat,
    UnusableSnapshot,
    Written,
    decode_head,
    decode_ids,
    encode_head,
    read_blobs,
)
from engine.cqrs.event_store import EventStore, StoredSnapshot
from engine.cqrs.messages import Command, Event
from engine.errors import AggregateHalted, CorruptEvent, StreamKey

if TYPE_CHECKING:
    from engine.cqrs.command_side.past_ids import PastIds

logger = logging.getLogger(__name__)

REPLAY_PAGE_COMMITS = 64
"""Commits read at once while replaying. At 8,190 events each that is about 40 MB of JSON."""

STATE_BYTES_AN_EVENT: Final = 64
"""Bytes of state a snapshot may write for each event since the last one. A state that grows with its
stream, such as one with a limit per buyer, is so written a constant number of times at most."""

CLOSING_SHARE: Final = 10
"""A snapshot is due at closing after this fraction of the events it is due after (1/10)."""

Kept: TypeAlias = Event | tuple[Event, ...]
"""The events of one accepted command; a lone one is kept bare, which saves 64 bytes an order."""


class Resident:
    """One aggregate in memory.

    `version` counts its events; `durable_version` those of them that are surely stored. `answers`
    maps the id of every command that led to events to those events, so that a repeated command
    gets its first answer; ids from before the snapshot it was loaded from are in `past`, and their
    answers come here when they are asked for. `snapshot_version` is the version up to which a
    snapshot was tried last, 0 for never; `saved` is the newest one, `unsaved` the commits since,
    None where no snapshots are kept.
    """

    __slots__ = (
        "aggregate",
        "answers",
        "durable_version",
        "past",
        "saved",
        "snapshot_version",
        "state",
        "stream",
        "unsaved",
        "version",
    )

    def __init__(
        self, aggregate: AggregateType[Any], stream: StreamKey, *, snapshots: bool = True
    ) -> None:
        self.aggregate = aggregate
        self.stream = stream
        self.state: Any = aggregate.initial()
        self.version = 0
        self.durable_version = 0
        self.answers: dict[str, Kept] = {}
        self.past: PastIds | None = None
        self.snapshot_version = 0
        self.saved: Head | None = None
        self.unsaved: list[Written] | None = [] if snapshots else None

    def apply(self, events: tuple[Event, ...]) -> None:
        """Fold stored events in."""
        state, evolve = self.state, self.aggregate.evolve
        for event in events:
            state = evolve(state, event)
        self.remember(events)
        self.state = state
        self.version += len(events)
        self.note_durable(self.version - len(events) + 1, events)

    def has_past(self, command_ids: Sequence[str]) -> bool:
        """Whether one of them has an answer that is to be read first."""
        return self.past is not None and bool(self.past.find(command_ids))

    def remember(self, events: Sequence[Event]) -> None:
        """Keep stored events as the answers to their commands."""
        answers = self.answers
        for event in events:
            kept = answers.setdefault(event.command_id, event)
            if kept is not event:
                earlier = kept if isinstance(kept, tuple) else (kept,)
                answers[event.command_id] = (*earlier, event)

    def note_durable(self, first_version: int, events: Sequence[Event]) -> None:
        """Note that a commit of this aggregate is stored."""
        self.durable_version = first_version + len(events) - 1
        if self.unsaved is not None and events:
            self.unsaved.append((first_version, events))


class Repository:
    """Loads aggregates from the event store and stores their snapshots."""

    def __init__(
        self,
        store: EventStore,
        aggregates: Mapping[str, AggregateType[Any]],
        codecs: Mapping[str, Codec],
        snapshot_events_min: int,
    ) -> None:
        self._store = store
        self._codecs = codecs
        self._snapshot_events_min = snapshot_events_min
        # A MySQL store writes a part as twice as many hexadecimal digits.
        part_bytes_max = store.commit_bytes_max // 4
        self._formats = {
            name: SnapshotFormat(aggregate, part_bytes_max)
            for name, aggregate in aggregates.items()
        }

    async def load(self, aggregate: AggregateType[Any], stream: StreamKey) -> Resident:
        """Replay one aggregate: its newest trustworthy snapshot and every event after it.

        Raises AggregateHalted when a stored event cannot be trusted or applied, StoreUnavailable
        when the store cannot be read now.
        """
        resident = await self._load_snapshot(aggregate, stream) or self._new(aggregate, stream)
        async for first_version, events in self._read(aggregate, stream, resident.version):
            try:
                resident.apply(events)
            except Exception as error:
                raise AggregateHalted(
                    stream, f"events from version {first_version} on: {error!r}"
                ) from error
            # A long replay must not keep the event loop from serving other aggregates.
            await asyncio.sleep(0)
        return resident

    async def recall(self, resident: Resident, commands: Sequence[Command]) -> None:
        """Bring the answers of those `commands` back that came before the snapshot.

        Raises AggregateHalted and StoreUnavailable as `load` does.
        """
        if (past := resident.past) is None:
            return
        for span in past.find([command.id for command in commands]):
            found: list[Event] = []
            async for _, events in self._read(
                resident.aggregate, resident.stream, span.first_version - 1, span.last_version
            ):
                found += events
            # All or none: a span of which half was kept could not be read again.
            resident.remember(found)
            past.forget(span)

    def snapshot_is_due(self, resident: Resident, *, closing: bool = False) -> bool:
        """Tell whether enough events came since the newest snapshot, fewer when the engine closes."""
        fresh = resident.version - resident.snapshot_version
        least = self._snapshot_events_min
        if not least:
            return False
        if closing:
            return fresh >= max(1, least // CLOSING_SHARE)
        state_bytes = resident.saved.state_bytes if resident.saved else 0
        return fresh >= max(least, state_bytes // STATE_BYTES_AN_EVENT)

    async def save_due(
        self, residents: Iterable[Resident | None], *, closing: bool = False
    ) -> None:
        """Store the snapshots that are due."""
        for resident in residents:
            if resident is not None and self.snapshot_is_due(resident, closing=closing):
                await self.save_snapshot(resident)

    async def save_snapshot(self, resident: Resident) -> None:
        """Store a snapshot, if every event of `resident` is durable.

        A snapshot only saves time, so nothing that goes wrong with it is an error.
        """
        name, aggregate_id = resident.stream
        version = resident.version
        try:
            if resident.durable_version != version or resident.unsaved is None:
                raise UnusableSnapshot("the aggregate is ahead of what is stored")
            head, parts, replaced = self._formats[name].encode(
                version, resident.state, resident.unsaved, resident.saved
            )
            code_version = resident.aggregate.snapshot_version
            data = encode_head(head)
            await self._store.save_snapshot(
                StoredSnapshot(name, aggregate_id, version, code_version, data, checksum(data)),
                parts,
                replaced,
            )
            resident.saved, resident.unsaved = head, []
        except Exception as error:
            logger.warning("no snapshot of %s %r: %r", name, aggregate_id, error)
        resident.snapshot_version = version

    def _new(self, aggregate: AggregateType[Any], stream: StreamKey) -> Resident:
        return Resident(aggregate, stream, snapshots=bool(self._snapshot_events_min))

    async def _read(
        self,
        aggregate: AggregateType[Any],
        stream: StreamKey,
        after_version: int,
        last_version: int | None = None,
    ) -> AsyncIterator[tuple[int, tuple[Event, ...]]]:
        """The commits of a stream after a version up to another: first version and events."""
        codec, version = self._codecs[aggregate.name], after_version
        while commits := await self._store.read_stream(stream, version, REPLAY_PAGE_COMMITS):
            for commit in commits:
                if commit.first_version != version + 1:
                    raise AggregateHalted(
                        stream, f"events {version + 1}..{commit.first_version - 1} are missing"
                    )
                try:
                    yield commit.first_version, codec.decode(commit)
                except CorruptEvent as error:
                    raise AggregateHalted(stream, str(error)) from error
                version = commit.last_version
                if version == last_version:
                    return

    async def _load_snapshot(
        self, aggregate: AggregateType[Any], stream: StreamKey
    ) -> Resident | None:
        snapshot = await self._store.load_snapshot(stream)
        if snapshot is None:
            return None
        try:
            return await self._decode(aggregate, stream, snapshot)
        except (UnusableSnapshot, msgspec.DecodeError, ValueError) as error:
            logger.warning("snapshot of %s %r ignored: %s", *stream, error)
            return None

    async def _decode(
        self, aggregate: AggregateType[Any], stream: StreamKey, snapshot: StoredSnapshot
    ) -> Resident:
        if snapshot.code_version != aggregate.snapshot_version:
            raise UnusableSnapshot(f"it is of code version {snapshot.code_version}")
        if checksum(snapshot.state) != snapshot.checksum:
            raise UnusableSnapshot("its checksum is wrong")
        head = decode_head(snapshot.state, snapshot.version)

        read = partial(self._store.read_snapshot_parts, stream)
        resident, past = self._new(aggregate, stream), await asyncio.to_thread(_new_past_ids)
        async for data in read_blobs(read, [head.state]):
            resident.state = self._formats[aggregate.name].decode_state(head, data)
        spans = iter(head.spans)
        async for data in read_blobs(read, [span.ids for span in head.spans]):
            span = next(spans)
            past.add(span.first_version, span.last_version, decode_ids(data))
        await asyncio.to_thread(past.seal)
        resident.version = resident.durable_version = resident.snapshot_version = head.version
        resident.saved, resident.past = head, past
        return resident


def _new_past_ids() -> PastIds:
    # It needs numpy, which takes longer to import than the engine; who loads no snapshot need not.
    from engine.cqrs.command_side.past_ids import PastIds

    return PastIds()
