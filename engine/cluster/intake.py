"""An owner's consumer of one partition: from the stream, by sequence, into the mailboxes."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Final, NamedTuple, TypeAlias

from engine.clock import Clock
from engine.cluster.broker import Broker, StreamLife
from engine.cluster.deliveries import Deliveries, Delivery
from engine.cluster.doubt import unless_surely_nothing
from engine.cluster.wire import CommandMessage, Wire, WireError
from engine.cqrs.aggregate import Registry
from engine.cqrs.command_side.mailbox import Request
from engine.cqrs.command_side.partition import Partition
from engine.cqrs.messages import Command, Outcome
from engine.cqrs.partitioning import partition_of
from engine.errors import BrokerUnavailable, DeadlineExceeded, StreamKey

logger = logging.getLogger(__name__)

PULL_MESSAGES: Final = 64
PULL_SECONDS: Final = 4.0
SILENT_SECONDS_MAX: Final = 3.0
"""The broker shows every second that a pull is alive."""

UNDER_WAY_MAX: Final = 1_024
"""Messages taken in and not decided yet; the broker keeps the rest. A source may name so many ranges."""

AGAIN_SECONDS_MIN: Final = 0.1
AGAIN_SECONDS_MAX: Final = 2.0
FULL_SECONDS: Final = 0.002

CUT_ASKED_TIMES: Final = 3
CUT_SECONDS: Final = 1.0
"""A stream that has lost its end is believed when it says so for so long."""

SAY_SECONDS: Final = 10.0

LATE: Final = "the deadline had passed when the command arrived; it was not executed"

GroupKey: TypeAlias = tuple[StreamKey, int, int]
"""Stream, deadline, and a number that keeps commands in their order."""

Reply = Callable[[str, bytes], None]
"""Send bytes to an inbox, some time."""


class Limits(NamedTuple):
    """`queue_max` commands wait in a partition at most, or one message beyond.

    A gateway puts at most `message_commands_max` of them into one.
    """

    queue_max: int
    message_commands_max: int


class Intake:
    """Feeds `partition` with its commands."""

    def __init__(
        self,
        number: int,
        partition: Partition,
        deliveries: Deliveries,
        broker: Broker,
        wire: Wire,
        registry: Registry,
        partitions: int,
        limits: Limits,
        reply: Reply,
        clock: Clock,
    ) -> None:
        self._number = number
        self._partition = partition
        self._deliveries = deliveries
        self._broker = broker
        self._wire = wire
        self._registry = registry
        self._partitions = partitions
        self._limits = limits
        self._reply = reply
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._known_end: int | None = None
        """Where the stream ended when it was first read here: an earlier owner may have read so far."""
        self._late = LateCommands(number, clock)

    async def run(self) -> None:
        """Read until cancelled, through whatever becomes of the broker. Raises OlderStream."""
        wait = AGAIN_SECONDS_MIN
        while True:
            try:
                life = await find_end(self._broker, self._deliveries, self._clock)
                if self._known_end is None:
                    self._known_end = life.last
                first = self._deliveries.begin(life.name, life.last)
                consumer = await self._broker.consume(self._number, first)
                try:
                    if (await self._broker.life()).name != life.name:
                        # Its sequences would be taken for those of the other one, for good.
                        raise BrokerUnavailable("the stream was made anew meanwhile")
                    wait = AGAIN_SECONDS_MIN
                    while True:
                        await consumer.pull(await self._wait_for_room(), PULL_SECONDS)
                        while (found := await consumer.next(SILENT_SECONDS_MAX)) is not None:
                            self.take(*found)
                finally:
                    await consumer.close()
            except BrokerUnavailable as error:
                logger.warning("partition %d reads no commands: %s", self._number, error)
            await self._clock.sleep(wait)
            wait = min(2 * wait, AGAIN_SECONDS_MAX)

    async def _wait_for_room(self) -> int:
        """Until there is some; returns how many messages may be asked for."""
        queue_max, message_commands_max = self._limits
        while (
            self._deliveries.under_way >= UNDER_WAY_MAX or self._partition.queue_depth >= queue_max
        ):
            await self._clock.sleep(FULL_SECONDS)
        room = queue_max - self._partition.queue_depth
        return max(1, min(PULL_MESSAGES, room // message_commands_max))

    def take(self, sequence: int, data: bytes) -> None:
        """Queue what a message holds, once."""
        if not self._deliveries.receive(sequence):
            return
        try:
            message = self._wire.decode_message(data)
        except WireError as error:
            logger.warning("message %d of partition %d: %s", sequence, self._number, error)
            self._deliveries.add(Delivery(sequence, _nobody_waits))
            return
        now_us = self._clock.wall_us()
        if all(run.deadline_us < now_us for run in message.runs):
            # Whoever sent it was told long ago that the outcome is not known, and may have gone.
            self._late.note(now_us - max((run.deadline_us for run in message.runs), default=now_us))
            self._deliveries.add(Delivery(sequence, _nobody_waits))
            return
        try:
            groups, keys = self._decode(message)
        except WireError as error:
            logger.warning("message %d of partition %d: %s", sequence, self._number, error)
            # No outcomes say that nothing happened. Where an owner of another version may have executed
            # it, no reply says nothing: it is sent again, and the answer to that is known for doubtful.
            nothing = partial(self._tell, sequence, message, [], {})
            tell = _nobody_waits if self._was_tried(sequence) else nothing
            self._deliveries.add(Delivery(sequence, tell))
            return
        self._queue(sequence, message, groups, keys)

    def _decode(
        self, message: CommandMessage
    ) -> tuple[dict[GroupKey, list[Command]], list[GroupKey]]:
        """The commands by stream and deadline, and the group of each of them.

        Raises WireError for what is not for this partition.
        """
        groups: dict[GroupKey, list[Command]] = {}
        of_each: list[GroupKey] = []
        turn, before = 0, 0
        for run in message.runs:
            if run.aggregate_type not in self._registry.types:
                raise WireError(f"no aggregate type {run.aggregate_type!r} is known here")
            if run.deadline_us != before:
                # Never together with an earlier one of the same time: others came in between.
                turn, before = turn + 1, run.deadline_us
            commands = self._wire.decode_run(run)
            ids = [each.aggregate_id for each in commands]
            keys = {
                each: ((run.aggregate_type, each), run.deadline_us, turn)
                for each in dict.fromkeys(ids)
            }
            group_of = {each: self._group(groups, key) for each, key in keys.items()}
            if len(group_of) == 1:
                group_of[ids[0]].extend(commands)
            else:
                for aggregate_id, command in zip(ids, commands, strict=True):
                    group_of[aggregate_id].append(command)
            of_each += map(keys.__getitem__, ids)
        return groups, of_each

    def _group(self, groups: dict[GroupKey, list[Command]], key: GroupKey) -> list[Command]:
        found = groups.get(key)
        if found is None:
            aggregate_id = key[0][1]
            if partition_of(aggregate_id, self._partitions) != self._number:
                raise WireError(f"{aggregate_id!r} is of another partition")
            found = groups[key] = []
        return found

    def _queue(
        self,
        sequence: int,
        message: CommandMessage,
        groups: dict[GroupKey, list[Command]],
        of_each: list[GroupKey],
    ) -> None:
        now, now_us = self._clock.monotonic(), self._clock.wall_us()
        futures: dict[GroupKey, asyncio.Future[list[Outcome]]] = {}
        delivery = Delivery(sequence, partial(self._tell, sequence, message, of_each, futures))
        delivery.unresolved = len(groups)
        for key, group in groups.items():
            stream, deadline_us, _ = key
            future: asyncio.Future[list[Outcome]] = self._loop.create_future()
            future.add_done_callback(partial(self._resolved, delivery))
            futures[key] = future
            request = Request(group, future, now, now + (deadline_us - now_us) / 1e6)
            delivery.requests.append(request)
        self._deliveries.add(delivery)
        for (stream, deadline_us, _), request in zip(groups, delivery.requests, strict=True):
            if deadline_us < now_us:
                request.answer(0, [DeadlineExceeded(LATE) for _ in request.commands])
            else:
                self._partition.submit(self._registry.types[stream[0]], stream, request)

    def _was_tried(self, sequence: int) -> bool:
        """Whether an owner before may have executed a part of that message."""
        return self._known_end is None or sequence <= self._known_end

    def _resolved(self, delivery: Delivery, _: asyncio.Future[list[Outcome]]) -> None:
        self._deliveries.resolved(delivery)

    def _tell(
        self,
        sequence: int,
        message: CommandMessage,
        of_each: list[GroupKey],
        futures: Mapping[GroupKey, asyncio.Future[list[Outcome]]],
    ) -> None:
        """Answer in the order of the commands."""
        if len(futures) == 1:
            outcomes = next(iter(futures.values())).result()
        else:
            results = {key: iter(each.result()) for key, each in futures.items()}
            outcomes = [next(results[key]) for key in of_each]
        if self._was_tried(sequence):
            # An owner before may have executed a part of it: an error says nothing of that.
            outcomes = [unless_surely_nothing(each) for each in outcomes]
        self._reply(message.inbox, self._wire.encode_outcomes(message.number, outcomes))


class LateCommands:
    """Says in the log, now and then, that commands come after their deadline."""

    def __init__(self, partition: int, clock: Clock) -> None:
        self._partition = partition
        self._clock = clock
        self._messages = 0
        self._said_at = -math.inf

    def note(self, late_us: int) -> None:
        self._messages += 1
        now = self._clock.monotonic()
        if now - self._said_at >= SAY_SECONDS:
            self._said_at = now
            logger.warning(
                "partition %d: %d %s came after the deadline of every command, the last time by "
                "%.1f s: the wait was too long, or the clock of a gateway is behind",
                *(self._partition, self._messages),
                *("message" if self._messages == 1 else "messages", late_us / 1e6),
            )
            self._messages = 0


async def find_end(broker: Broker, deliveries: Deliveries, clock: Clock) -> StreamLife:
    """Where the stream ends now. Raises BrokerUnavailable.

    A broker that led it until a moment ago, and was stopped meanwhile, may say where it ended then. Who
    believes that executes again what buyers were told was refused.
    """
    life = await broker.life()
    for _ in range(CUT_ASKED_TIMES):
        if not deliveries.is_cut(life.name, life.last):
            break
        await clock.sleep(CUT_SECONDS)
        life = await broker.life()
    return life


def _nobody_waits() -> None:
    pass
