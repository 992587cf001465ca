"""The command side of a gateway: its partitions are elsewhere, and commands travel over the broker."""

from __future__ import annotations

import asyncio
import logging
import math
import uuid
from collections.abc import Callable, Collection, Mapping, Sequence
from itertools import count
from typing import Final

import msgspec
from nats.aio.msg import Msg

from engine.clock import Clock
from engine.cluster.broker import Broker
from engine.cluster.lane import Lane, Sent
from engine.cluster.membership import Members
from engine.cluster.places import PlacesIn
from engine.cluster.replies import Pieces
from engine.cluster.totals import Totals
from engine.cluster.wire import Wire, WireError
from engine.config import Settings
from engine.cqrs.aggregate import Registry
from engine.cqrs.command_side.command_bus import CommandBus
from engine.cqrs.command_side.live_rows import LiveRows
from engine.cqrs.command_side.port import BrokerState, Publishing, ServedPartition
from engine.cqrs.command_side.statistics import Counters, Statistics
from engine.cqrs.event_store import Source
from engine.cqrs.messages import Command
from engine.cqrs.partitioning import partition_of
from engine.errors import OutcomeUnknown, PartitionLost, SeckillError, StoreUnavailable, StreamKey

logger = logging.getLogger(__name__)


DRAIN_SECONDS_MAX: Final = 10.0
"""How long closing waits for replies; who waits longer asks another gateway by the command's id."""

LOOK_SECONDS: Final = 0.02


class Gateway:
    """A CommandSidePort. `live_rows` are fed by the owners."""

    def __init__(
        self,
        broker: Broker,
        wire: Wire,
        registry: Registry,
        settings: Settings,
        partitions: int,
        members: Members,
        live_rows: LiveRows,
        clock: Clock,
    ) -> None:
        self.live_rows = live_rows
        self.refusals: dict[StreamKey, dict[str, int]] = {}
        """What each aggregate refused, by reason, as its owner shows it."""
        self.own_statistics: Callable[[], Statistics] | None = None
        self.own_publishing: Callable[[], list[Publishing]] | None = None
        self._places = PlacesIn(broker, wire)
        self._pieces = Pieces()
        self._broker = broker
        self._wire = wire
        self._members = members
        # Of one life of this process: what is said to an earlier one is not heard.
        self.inbox = broker.subject("replies", uuid.uuid4().hex)
        cluster = settings.cluster
        self._told = Counters()
        self.lanes = [
            Lane(
                *(number, broker, wire, self.inbox, cluster.message_commands_max),
                *(cluster.message_delay_ms_max / 1_000, count(number, partitions).__next__, clock),
                self._told,
            )
            for number in range(partitions)
        ]
        queue = settings.queue
        self._clock = clock
        self._heartbeat_seconds = cluster.heartbeat_ms / 1_000
        self._patience = cluster.dead_after_ms / 1_000
        self._served_at = [-math.inf] * partitions
        self._totals = Totals(members)
        self.bus = CommandBus(
            *(registry, self.lanes, queue.depth_max, queue.deadline_ms, clock, self._told)
        )

    async def start(self) -> None:
        """Hear replies from now on. Raises BrokerUnavailable."""
        await self._broker.listen(self.inbox, self._replied)
        for number, lane in enumerate(self.lanes):
            lane.stopped = PartitionLost(f"nobody has shown partition {number} yet")
        self.look()

    def look(self) -> None:
        """Act on what the nodes show. Called after every heartbeat, and now and then."""
        now = self._clock.monotonic()
        # Who hears nothing knows of no owner, whoever it took for one.
        is_deaf = self._members.silent_seconds >= self._patience
        holdings = {} if is_deaf else self._members.holdings()
        lost, found_again = list[int](), list[int]()
        for number, lane in enumerate(self.lanes):
            found = holdings.get(number)
            if found is None:
                # While it goes from one owner to the next, its commands wait in the broker.
                if now - self._served_at[number] >= self._patience and lane.stopped is None:
                    lane.stopped = PartitionLost(f"nobody owns partition {number} now")
                    lost.append(number)
            else:
                if lane.stopped is not None:
                    found_again.append(number)
                lane.stopped = None
                self._served_at[number] = now
                lane.life = found[1].source.stream
                self._recover(lane, found[1].source, now)
        self._say(lost, found_again)

    def _say(self, lost: Sequence[int], found_again: Sequence[int]) -> None:
        if lost:
            logger.warning("nobody owns %s now: orders are refused", _named(lost))
        if found_again:
            logger.info("somebody owns %s now", _named(found_again))

    def _recover(self, lane: Lane, source: Source, now: float) -> None:
        """Send again what is decided, as its owner shows, without a reply: that is lost.

        The reply may be on its way when this is first seen, so a heartbeat is waited for.
        """
        for sent in list(lane.messages.values()):
            if not sent.sequence or not _is_over(sent, source):
                continue
            # Longer each time: replies that are only slow would be made slower.
            if now - sent.over_at >= self._heartbeat_seconds * 2 ** (sent.tries - 1):
                lane.send_again(sent)
            else:
                sent.over_at = min(sent.over_at, now)

    def stopped(self) -> list[SeckillError]:
        return [each.stopped for each in self.lanes if each.stopped is not None]

    def served(self) -> list[ServedPartition]:
        holdings = self._members.holdings()
        return [
            ServedPartition(number, node, held.epoch, held.position, held.queue_depth)
            for number, (node, held) in sorted(holdings.items())
            if number < len(self.lanes) and self.lanes[number].stopped is None
        ]

    def broker(self) -> BrokerState | None:
        return BrokerState(self._broker.connections, self._members.silent_seconds)

    def publishing(self) -> list[Publishing]:
        return [] if self.own_publishing is None else self.own_publishing()

    def statistics(self) -> Statistics:
        """Those of all engines together; of a node that takes no buyers, its own."""
        if self.own_statistics is not None:
            return self.own_statistics()
        # What was published waits at its owner, if there is one.
        unpublished = sum(each.queue_depth - each.unanswered for each in self.lanes)
        found = self._totals.sum(unpublished, self._told)
        depth = max(found.queue_depth, sum(each.queue_depth for each in self.lanes))
        return msgspec.structs.replace(found, queue_depth=depth)

    sees_all_waiting: Final = False

    async def waiting(
        self, stream: StreamKey, wanted: Collection[str]
    ) -> Mapping[str, tuple[int, Command]]:
        number = partition_of(stream[1], len(self.lanes))
        return await self._places.find(stream, number, self.lanes[number], wanted)

    def refused(self, stream: StreamKey) -> Mapping[str, int]:
        return self.refusals.get(stream, {})

    def may_know(self, stream: StreamKey, command_id: str) -> bool:  # noqa: ARG002
        """It cannot be told here, and only the owner may refuse."""
        return True

    async def drain(self) -> None:
        """Take no more, and wait for the replies to what was taken."""
        self.bus.close()
        give_up = self._clock.monotonic() + DRAIN_SECONDS_MAX
        while any(each.queue_depth for each in self.lanes):
            if self._clock.monotonic() >= give_up:
                return
            await self._clock.sleep(LOOK_SECONDS)

    async def close(self) -> None:
        """Answer whoever still waits. Idempotent."""
        self.bus.close()
        await asyncio.gather(*(each.close() for each in self.lanes))

    async def _replied(self, message: Msg) -> None:
        try:
            data = self._pieces.add(message.data)
            if data is None:
                return
            reply = self._wire.decode_reply(data)
            lane = self.lanes[reply.number % len(self.lanes)]
            expected = lane.commands_of(reply.number)
            if expected is None:
                return
        except WireError as error:
            logger.warning("a reply cannot be read: %s", error)
            return
        try:
            outcomes = self._wire.decode_outcomes(reply)
        except WireError as error:
            logger.warning("outcomes cannot be read, so they are unknown: %s", error)
            lane.fail(lane.messages[reply.number], lambda command: OutcomeUnknown(command.id))
            return
        if len(outcomes) == expected:
            lane.reply(reply.number, outcomes)
            return
        sent = lane.messages[reply.number]
        what = "the owner of the partition could not read it: it runs another version or settings"
        lane.fail(sent, lambda _: StoreUnavailable(what))


def _named(numbers: Sequence[int]) -> str:
    """Partitions in ascending order, those in a row as a range."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1][1:] = [number]
        else:
            runs.append([number])
    names = ", ".join("-".join(map(str, each)) for each in runs)
    return f"partition{'' if len(numbers) == 1 else 's'} {names}"


def _is_over(sent: Sent, source: Source) -> bool:
    if source.stream != sent.life:
        # It was in a stream that is no more.
        return bool(sent.life)
    return sent.sequence <= source.done or any(
        first <= sent.sequence <= last for first, last in source.ahead
    )
