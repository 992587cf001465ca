"""What an engine needs of its command side, wherever the partitions are."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Protocol

import msgspec

from engine.cqrs.command_side.command_bus import CommandBus
from engine.cqrs.command_side.live_rows import LiveRows
from engine.cqrs.command_side.statistics import Statistics
from engine.cqrs.messages import Command
from engine.errors import SeckillError, StreamKey


class ServedPartition(msgspec.Struct, frozen=True):
    """A partition that takes commands: who owns it (empty: this process), with which epoch, how many
    commits it has, and how many commands wait in it."""

    partition: int
    owner: str
    epoch: int
    position: int
    queue_depth: int


class BrokerState(msgspec.Struct, frozen=True):
    """How this process hears its brokers: how often it was connected to one, and for how long it has
    heard nothing, not even itself."""

    connections: int
    silent_seconds: float


class Publishing(msgspec.Struct, frozen=True):
    """How far the events of a partition are published for other systems: how many commits are still
    to be (None: it could not be found out yet), and why nothing is published now, empty when all is
    well."""

    partition: int
    behind: int | None
    trouble: str


class CommandSidePort(Protocol):
    """`CommandSide` owns every partition; the one of a gateway sends to who does."""

    @property
    def bus(self) -> CommandBus: ...

    @property
    def live_rows(self) -> LiveRows: ...

    def stopped(self) -> list[SeckillError]:
        """The reasons of the partitions that take no commands now."""

    def served(self) -> list[ServedPartition]:
        """The partitions that take commands now, in their order."""

    def broker(self) -> BrokerState | None:
        """None where commands need no broker."""

    def publishing(self) -> list[Publishing]:
        """The partitions whose events are published by this process, in their order."""

    def statistics(self) -> Statistics: ...

    @property
    def sees_all_waiting(self) -> bool:
        """Whether `waiting` finds everything that waits, whatever is wanted."""

    async def waiting(
        self, stream: StreamKey, wanted: Collection[str]
    ) -> Mapping[str, tuple[int, Command]]:
        """The commands of an aggregate that wait, by id, those `wanted` at least: 0 while it is being
        written, else its place from 1."""

    def refused(self, stream: StreamKey) -> Mapping[str, int]:
        """What an aggregate refused, by reason."""

    def may_know(self, stream: StreamKey, command_id: str) -> bool:
        """False only if the command was surely never queued, or was refused long ago."""
