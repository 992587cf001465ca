"""Aggregates in memory: replayed from their events, helped by snapshots."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from types import GenericAlias
from typing import Any, TypeAlias, Union

import msgspec

from engine.cqrs.aggregate import AggregateType
from engine.cqrs.codec import Codec, checksum
from engine.cqrs.event_store import EventStore, StoredSnapshot
from engine.cqrs.messages import Event
from engine.errors import AggregateHalted, CorruptEvent, StreamKey

logger = logging.getLogger(__name__)

REPLAY_PAGE_COMMITS = 64
"""Commits read at once while replaying. At 8,190 events each that is about 40 MB of JSON."""

Kept: TypeAlias = Event | tuple[Event, ...]
"""The events of one accepted command; a lone one is kept bare, which saves 64 bytes an order."""


class Resident:
    """One aggregate in memory.

    `version` counts its events. `answers` maps the id of every command that led to events to those
    events, so that a repeated command gets its first answer. `snapshot_version` is the version of
    the newest stored snapshot, 0 for none.
    """

    __slots__ = ("aggregate", "answers", "snapshot_version", "state", "stream", "version")

    def __init__(self, aggregate: AggregateType[Any], stream: StreamKey) -> None:
        self.aggregate = aggregate
        self.stream = stream
        self.state: Any = aggregate.initial()
        self.version = 0
        self.answers: dict[str, Kept] = {}
        self.snapshot_version = 0

    def apply(self, events: tuple[Event, ...]) -> None:
        """Fold stored events in."""
        state, evolve, answers = self.state, self.aggregate.evolve, self.answers
        for event in events:
            state = evolve(state, event)
            kept = answers.setdefault(event.command_id, event)
            if kept is not event:
                earlier = kept if isinstance(kept, tuple) else (kept,)
                answers[event.command_id] = (*earlier, event)
        self.state = state
        self.version += len(events)


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
        self._snapshots = {
            name: _SnapshotFormat(aggregate) for name, aggregate in aggregates.items()
        }

    async def load(self, aggregate: AggregateType[Any], stream: StreamKey) -> Resident:
        """Replay one aggregate: its newest trustworthy snapshot and every event after it.

        Raises AggregateHalted when a stored event cannot be trusted or applied, StoreUnavailable
        when the store cannot be read now.
        """
        resident = await self._load_snapshot(aggregate, stream) or Resident(aggregate, stream)
        codec = self._codecs[aggregate.name]
        while commits := await self._store.read_stream(
            stream, resident.version, REPLAY_PAGE_COMMITS
        ):
            for commit in commits:
                if commit.first_version != resident.version + 1:
                    raise AggregateHalted(
                        stream,
                        f"events {resident.version + 1}..{commit.first_version - 1} are missing",
                    )
                try:
                    resident.apply(codec.decode(commit))
                except CorruptEvent as error:
                    raise AggregateHalted(stream, str(error)) from error
                except Exception as error:
                    raise AggregateHalted(
                        stream, f"events from version {commit.first_version} on: {error!r}"
                    ) from error
                # A long replay must not keep the event loop from serving other aggregates.
                await asyncio.sleep(0)
        return resident

    def snapshot_is_due(self, resident: Resident) -> bool:
        """Tell whether enough events came since the newest snapshot.

        The stream must have doubled, so that all snapshots together cost a constant per event.
        """
        fresh = resident.version - resident.snapshot_version
        least = self._snapshot_events_min
        return bool(least) and fresh >= max(least, resident.snapshot_version)

    async def save_snapshot(self, resident: Resident) -> None:
        """Store a snapshot. The caller promises that every event of `resident` is durable.

        A snapshot only saves time, so nothing that goes wrong with it is an error.
        """
        name, aggregate_id = resident.stream
        version = resident.version
        try:
            state = self._snapshots[name].encode(resident)
            code_version = resident.aggregate.snapshot_version
            await self._store.save_snapshot(
                StoredSnapshot(name, aggregate_id, version, code_version, state, checksum(state))
            )
        except Exception as error:
            logger.warning("no snapshot of %s %r: %r", name, aggregate_id, error)
        resident.snapshot_version = version

    async def _load_snapshot(
        self, aggregate: AggregateType[Any], stream: StreamKey
    ) -> Resident | None:
        snapshot = await self._store.load_snapshot(stream)
        if snapshot is None or snapshot.code_version != aggregate.snapshot_version:
            return None
        if checksum(snapshot.state) != snapshot.checksum:
            logger.warning("snapshot of %s %r ignored: its checksum is wrong", *stream)
            return None
        resident = Resident(aggregate, stream)
        try:
            self._snapshots[aggregate.name].decode_into(resident, snapshot.state)
        except msgspec.DecodeError as error:
            logger.warning("snapshot of %s %r ignored: %s", *stream, error)
            return None
        resident.snapshot_version = resident.version
        return resident


class _SnapshotFormat:
    """A resident as MessagePack: its state and its answers, in the order they were given."""

    def __init__(self, aggregate: AggregateType[Any]) -> None:
        event: Any = Union[aggregate.events]
        kept: Any = event | GenericAlias(tuple, (event, ...))
        self._encoder = msgspec.msgpack.Encoder()
        self._decoder = msgspec.msgpack.Decoder[Any](
            GenericAlias(tuple, (int, aggregate.state, GenericAlias(list, (kept,))))
        )

    def encode(self, resident: Resident) -> bytes:
        # The version is inside, so that the checksum covers it too.
        kept = list(resident.answers.values())
        return self._encoder.encode((resident.version, resident.state, kept))

    def decode_into(self, resident: Resident, data: bytes) -> None:
        resident.version, resident.state, kept = self._decoder.decode(data)
        resident.answers = {
            (each[0] if isinstance(each, tuple) else each).command_id: each for each in kept
        }
