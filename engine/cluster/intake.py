"""An owner's consumer of one partition: from the stream, by sequence, into the mailboxes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from typing import Final

from engine.clock import Clock
from engine.cluster.broker import Broker, StreamLife
from engine.cluster.deliveries import Deliveries, Delivery
from engine.cluster.wire import CommandMessage, Wire, WireError
from engine.cqrs.aggregate import Registry
from engine.cqrs.command_side.mailbox import Request
from engine.cqrs.command_side.partition import Partition
from engine.cqrs.messages import Command, Outcome
from engine.cqrs.partitioning import partition_of
from engine.errors import BrokerUnavailable, StreamKey

logger = logging.getLogger(__name__)

PULL_MESSAGES: Final = 64
PULL_SECONDS: Final = 4.0
SILENT_SECONDS_MAX: Final = 3.0
"""The broker shows every second that a pull is alive."""

UNDER_WAY_MAX: Final = 256
"""Messages taken in and not decided yet; the broker keeps the rest."""

AGAIN_SECONDS_MIN: Final = 0.1
AGAIN_SECONDS_MAX: Final = 2.0
FULL_SECONDS: Final = 0.002

CUT_ASKED_TIMES: Final = 3
CUT_SECONDS: Final = 1.0
"""A stream that has lost its end is believed when it says so for so long."""

Reply = Callable[[str, bytes], None]
"""Send bytes to an inbox, some time."""


class Intake:
    """Feeds `partition` with its commands. `queue_max` of them wait in it at most, about."""

    def __init__(
        self,
        number: int,
        partition: Partition,
        deliveries: Deliveries,
        broker: Broker,
        wire: Wire,
        registry: Registry,
        partitions: int,
        queue_max: int,
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
        self._queue_max = queue_max
        self._reply = reply
        self._clock = clock
        self._loop = asyncio.get_running_loop()

    async def run(self) -> None:
        """Read until cancelled, through whatever becomes of the broker."""
        wait = AGAIN_SECONDS_MIN
        while True:
            try:
                life = await find_end(self._broker, self._deliveries, self._clock)
                first = self._deliveries.begin(life.name, life.last)
                consumer = await self._broker.consume(self._number, first)
                try:
                    wait = AGAIN_SECONDS_MIN
                    while True:
                        await self._wait_for_room()
                        await consumer.pull(PULL_MESSAGES, PULL_SECONDS)
                        while (found := await consumer.next(SILENT_SECONDS_MAX)) is not None:
                            self.take(*found)
                finally:
                    await consumer.close()
            except BrokerUnavailable as error:
                logger.warning("partition %d reads no commands: %s", self._number, error)
            await self._clock.sleep(wait)
            wait = min(2 * wait, AGAIN_SECONDS_MAX)

    async def _wait_for_room(self) -> None:
        while (
            self._deliveries.under_way >= UNDER_WAY_MAX
            or self._partition.queue_depth >= self._queue_max
        ):
            await self._clock.sleep(FULL_SECONDS)

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
        if message.deadline_us < self._clock.wall_us():
            # Whoever sent it was told long ago that the outcome is not known, and may have gone.
            self._deliveries.add(Delivery(sequence, _nobody_waits))
            return
        try:
            groups, streams = self._decode(message)
        except WireError as error:
            logger.warning("message %d of partition %d: %s", sequence, self._number, error)
            nothing = partial(self._tell, message, [], [])
            self._deliveries.add(Delivery(sequence, nothing))
            return
        self._queue(sequence, message, groups, streams)

    def _decode(
        self, message: CommandMessage
    ) -> tuple[dict[StreamKey, list[Command]], list[StreamKey]]:
        """The commands by stream, and the stream of each of them.

        Raises WireError for what is not for this partition.
        """
        groups: dict[StreamKey, list[Command]] = {}
        streams: list[StreamKey] = []
        for run in message.runs:
            if run.aggregate_type not in self._registry.types:
                raise WireError(f"no aggregate type {run.aggregate_type!r} is known here")
            commands = self._wire.decode_run(run)
            ids = [each.aggregate_id for each in commands]
            keys = {each: (run.aggregate_type, each) for each in dict.fromkeys(ids)}
            group_of = {each: self._group(groups, key) for each, key in keys.items()}
            if len(group_of) == 1:
                group_of[ids[0]].extend(commands)
            else:
                for aggregate_id, command in zip(ids, commands, strict=True):
                    group_of[aggregate_id].append(command)
            streams += map(keys.__getitem__, ids)
        return groups, streams

    def _group(self, groups: dict[StreamKey, list[Command]], stream: StreamKey) -> list[Command]:
        found = groups.get(stream)
        if found is None:
            if partition_of(stream[1], self._partitions) != self._number:
                raise WireError(f"{stream[1]!r} is of another partition")
            found = groups[stream] = []
        return found

    def _queue(
        self,
        sequence: int,
        message: CommandMessage,
        groups: dict[StreamKey, list[Command]],
        streams: list[StreamKey],
    ) -> None:
        """`groups` are in the order in which their streams come first in `streams`."""
        now = self._clock.monotonic()
        deadline = now + (message.deadline_us - self._clock.wall_us()) / 1e6
        futures: list[asyncio.Future[list[Outcome]]] = []
        delivery = Delivery(sequence, partial(self._tell, message, streams, futures))
        delivery.unresolved = len(groups)
        self._deliveries.add(delivery)
        for stream, group in groups.items():
            future: asyncio.Future[list[Outcome]] = self._loop.create_future()
            future.add_done_callback(partial(self._resolved, delivery))
            futures.append(future)
            request = Request(group, future, now, deadline)
            delivery.requests.append(request)
            self._partition.submit(self._registry.types[stream[0]], stream, request)

    def _resolved(self, delivery: Delivery, _: asyncio.Future[list[Outcome]]) -> None:
        self._deliveries.resolved(delivery)

    def _tell(
        self,
        message: CommandMessage,
        streams: list[StreamKey],
        futures: list[asyncio.Future[list[Outcome]]],
    ) -> None:
        """Answer in the order of the commands."""
        if len(futures) == 1:
            outcomes = futures[0].result()
        else:
            of_stream = dict(
                zip(dict.fromkeys(streams), (iter(each.result()) for each in futures), strict=True)
            )
            outcomes = [next(of_stream[stream]) for stream in streams]
        self._reply(message.inbox, self._wire.encode_outcomes(message.number, outcomes))


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
