"""A partition of ours: taken over, worked on, given back or lost."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from engine.clock import Clock
from engine.cluster.broker import Broker
from engine.cluster.deliveries import Deliveries
from engine.cluster.intake import Intake, Limits, Reply, find_end
from engine.cluster.membership import Holding
from engine.cluster.wire import Wire
from engine.cqrs.aggregate import Registry
from engine.cqrs.command_side.command_source import CommandSource
from engine.cqrs.command_side.partition_maker import Owned, PartitionMaker
from engine.cqrs.event_store import Lease
from engine.errors import BrokerUnavailable, StoreError

logger = logging.getLogger(__name__)

DRAIN_SECONDS_MAX: Final = 10.0
"""How long a partition that is given back may take to finish what it has; the next owner does the
rest."""

AWAY_SECONDS_MAX: Final = 5.0
"""For how long the database may be away from an owner before another node may try: longer than a
server takes to start again."""

FORGET_SECONDS: Final = 5.0
"""How often the broker is told to forget what is decided."""


class Owner:
    """The right to one partition and the work on it. Made by `take`."""

    def __init__(
        self, number: int, owned: Owned, deliveries: Deliveries, broker: Broker, clock: Clock
    ) -> None:
        self.number = number
        self.partition = owned.partition
        self.residents = owned.residents
        self._committer = owned.committer
        self._deliveries = deliveries
        self._broker = broker
        self._clock = clock
        self._tasks: list[asyncio.Task[None]] = []
        self._loop_task: asyncio.Task[None] | None = None

    @classmethod
    async def take(
        cls,
        number: int,
        maker: PartitionMaker,
        broker: Broker,
        prepare: Callable[[int], Awaitable[None]],
        clock: Clock,
    ) -> Owner:
        """Become the owner, whoever is it now; `prepare` is awaited before anything is decided.

        Raises BrokerUnavailable and StoreError: then nobody was disturbed, or it is tried again. Raises
        OlderStream for a stream that must not feed it: whoever owned it takes it back.
        """
        # Who cannot reach the leader of the stream could read no commands, and disturbs nobody.
        await broker.life()
        made: list[Deliveries] = []

        def source_from(lease: Lease) -> CommandSource:
            made.append(Deliveries(lease.source, lambda: owned.partition.nudge()))  # noqa: PLW0108 -- made below
            return made[0]

        owned = await maker.acquire(number, source_from)
        # Asked after the last of what an owner before may have decided: until now it could go on.
        life = await find_end(broker, made[0], clock)
        made[0].begin(life.name, life.last)
        await prepare(number)
        return cls(number, owned, made[0], broker, clock)

    def start(
        self,
        wire: Wire,
        registry: Registry,
        partitions: int,
        limits: Limits,
        reply: Reply,
        lost: Callable[[Owner], None],
    ) -> None:
        """Work on it; `lost` is called when that ends by itself."""
        intake = Intake(
            *(self.number, self.partition, self._deliveries, self._broker, wire, registry),
            *(partitions, limits, reply, self._clock),
        )
        loop = asyncio.create_task(self.partition.run(), name=f"partition-{self.number}")
        loop.add_done_callback(lambda _: lost(self))
        self._loop_task = loop
        reading = asyncio.create_task(intake.run(), name=f"intake-{self.number}")
        # A partition whose commands nobody reads would be shown as owned, and be dead.
        reading.add_done_callback(lambda task: self._stopped_reading(task, lost))
        self._tasks = [
            reading,
            asyncio.create_task(self._forget(), name=f"forget-{self.number}"),
        ]

    def _stopped_reading(self, task: asyncio.Task[None], lost: Callable[[Owner], None]) -> None:
        if task.cancelled():
            return
        error = task.exception()
        logger.error("partition %d: its commands are not read", self.number, exc_info=error)
        lost(self)

    @property
    def received(self) -> tuple[str, int]:
        """Up to which message of which life of the stream everything has arrived here."""
        return self._deliveries.source.stream, self._deliveries.received

    def holding(self) -> Holding:
        """What others are shown of it."""
        lease = self._committer.lease
        depth = self.partition.queue_depth
        return Holding(self.number, lease.epoch, lease.position, self._deliveries.source, depth)

    @property
    def is_cut_off(self) -> bool:
        """Whether its database has been away for long, as far as it was needed."""
        since = self._committer.waits_since
        return since is not None and self._clock.monotonic() - since >= AWAY_SECONDS_MAX

    async def give_back(self) -> None:
        """Take no more, finish what is here, and leave the rest to the next one. Idempotent."""
        await self._stop_reading()
        if self._loop_task is not None:
            self.partition.drain()
            await asyncio.wait((self._loop_task,), timeout=DRAIN_SECONDS_MAX)
        await self.drop()

    async def drop(self) -> None:
        """End it at once: what was not answered is the next owner's. Idempotent."""
        await self._stop_reading()
        if self._loop_task is not None:
            self._loop_task.cancel()
            await asyncio.gather(self._loop_task, return_exceptions=True)

    async def _stop_reading(self) -> None:
        for each in self._tasks:
            each.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []

    async def _forget(self) -> None:
        """Keep the stream short. Whatever goes wrong with it, the broker forgets by age."""
        before = 0
        while True:
            await self._clock.sleep(FORGET_SECONDS)
            source = self._deliveries.source
            if source.done == before:
                continue
            try:
                await self._broker.remove_up_to(self.number, source.done)
                before = source.done
            except (BrokerUnavailable, StoreError) as error:
                logger.debug("partition %d: nothing was forgotten: %s", self.number, error)
