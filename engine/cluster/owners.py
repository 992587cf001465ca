"""The partitions of one engine node: which to take, which to give back."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from functools import partial
from typing import Any, Final

from engine.clock import Clock
from engine.cluster.broker import Broker
from engine.cluster.intake import Limits, Reply
from engine.cluster.lives import OlderStream
from engine.cluster.membership import Holding, Members, best_able
from engine.cluster.owner import Owner
from engine.cluster.wire import Wire
from engine.cqrs.aggregate import Registry
from engine.cqrs.command_side.partition_maker import PartitionMaker
from engine.cqrs.event_store import PartitionPlace
from engine.errors import Fenced, SeckillError, StoreError, StoreUnavailable

logger = logging.getLogger(__name__)

AGAIN_SECONDS: Final = 1.0
"""Before a partition is tried again that could not be taken, or was lost."""

UNABLE_SECONDS: Final = 10.0
"""How long a partition whose database this node does not reach is left to others before it looks
whether that answers: each way costs a take-over."""

PLACES_SECONDS: Final = 5.0
"""How often the store is asked whose its partitions are: who commits nothing is told by nobody else."""


class Owners:
    """Takes what this node is best for, and gives back what another one is."""

    def __init__(
        self,
        node: str,
        partitions: int,
        members: Members,
        maker: PartitionMaker,
        broker: Broker,
        wire: Wire,
        registry: Registry,
        limits: Limits,
        prepare: Callable[[int], Awaitable[None]],
        follow: Callable[[int], None],
        leave: Callable[[int], Awaitable[None]],
        reply: Reply,
        changed: Callable[[], None],
        clock: Clock,
        release_seconds: float,
        read_places: Callable[[], Awaitable[Sequence[PartitionPlace]]],
    ) -> None:
        """`prepare` is awaited before a partition works, `follow` called when it does, `leave` awaited
        before it is given back; `changed` is called when there is news.

        A partition that another node still shows as its own is taken from it after `release_seconds`.
        `read_places` tells where every partition lives; it may raise StoreUnavailable.
        """
        self._node = node
        self._partitions = partitions
        self._members = members
        self._maker = maker
        self._broker = broker
        self._wire = wire
        self._registry = registry
        self._limits = limits
        self._prepare = prepare
        self._follow = follow
        self._leave = leave
        self._reply = reply
        self._changed = changed
        self._clock = clock
        self._release_seconds = release_seconds
        self._read_places = read_places
        self.owned: dict[int, Owner] = {}
        self._busy: dict[int, asyncio.Task[None]] = {}
        self._taking: set[asyncio.Task[None]] = set()
        self._leaving: set[int] = set()
        self._not_before: dict[int, float] = {}
        self._wanted_since: dict[int, float] = {}
        self._look_at: dict[int, float] = {}
        """Partitions that were left to others, and when it is looked whether they could be taken."""
        self._older: dict[int, OlderStream] = {}
        """Partitions that a newer stream fed than the one that is here."""

    def holds(self) -> tuple[Holding, ...]:
        return tuple(each.holding() for each in self.owned.values())

    def cannot(self) -> tuple[int, ...]:
        """Partitions that another node should own now: their database is not reached here, or a newer
        stream fed them."""
        cut_off = (number for number, each in self.owned.items() if each.is_cut_off)
        return tuple(sorted({*self._look_at, *cut_off}))

    def look(self) -> None:
        """Begin what is due. Does not wait for it."""
        now = self._clock.monotonic()
        for number, at in self._look_at.items():
            if now >= at and number not in self._busy:
                self._taking.add(self._begin(number, self._reach(number)))
        holdings = self._members.holdings()
        # Whatever was heard of late: who looks is alive.
        cannot = {each.node: each.cannot for each in self._members.engines()}
        cannot[self._node] = self.cannot()
        for number in range(self._partitions):
            if number in self._busy:
                continue
            best = best_able(cannot, number)
            if number in self.owned:
                self._check_epoch(number, holdings.get(number))
                owner = self.owned.get(number)
                # Who is cut off could finish nothing. It is taken by force, or kept when the others
                # do not reach the database either: then nothing in memory is lost.
                is_free = owner is not None and not owner.is_cut_off
                if is_free and best != self._node and self._may_try(number, now):
                    self._begin(number, self._give_back(number))
            elif best == self._node and self._may_try(number, now):
                holder = holdings.get(number)
                since = self._wanted_since.setdefault(number, now)
                if (
                    holder is None
                    or holder[0] == self._node
                    or now - since >= self._release_seconds
                ):
                    self._taking.add(self._begin(number, self._take(number)))
            else:
                self._wanted_since.pop(number, None)

    def _may_try(self, number: int, now: float) -> bool:
        """Whether it is not a moment ago that this failed."""
        return now >= self._not_before.get(number, 0.0)

    async def give_back_all(self) -> None:
        """Finish what is under way and own nothing any more."""
        for task in self._taking:
            task.cancel()
        # What is given back or dropped has tasks that end only with it.
        await asyncio.gather(*self._busy.values(), return_exceptions=True)
        for number in list(self.owned):
            self._begin(number, self._give_back(number))
        while self._busy:
            await asyncio.gather(*self._busy.values(), return_exceptions=True)

    def _check_epoch(self, number: int, holder: tuple[str, Holding] | None) -> None:
        """Drop what another node took while this one was not heard: the database says so next."""
        owner = self.owned[number]
        if (
            holder is not None
            and holder[0] != self._node
            and holder[1].epoch > owner.holding().epoch
        ):
            self._lost(owner, f"{holder[0]} has it, with epoch {holder[1].epoch}")

    async def watch(self) -> None:
        """Drop what the store gives to somebody else, now and then, until it is cancelled."""
        doubted: dict[int, int] = {}
        while True:
            await self._clock.sleep(AGAIN_SECONDS if doubted else PLACES_SECONDS)
            try:
                places = await self._read_places()
            except StoreUnavailable as error:
                logger.debug("the places of the partitions cannot be read: %s", error)
                continue
            except Exception:
                logger.exception("the places of the partitions cannot be read")
                continue
            doubted = self._check_places(places, doubted)

    def _check_places(
        self, places: Sequence[PartitionPlace], doubted: dict[int, int]
    ) -> dict[int, int]:
        """Drop what was `doubted` and is so still; returns the epochs of what is to be looked at again.

        Once is not enough: an owner that takes its partition back raises the epoch itself, and learns
        of it a moment later than the store.
        """
        found = {}
        for place in places:
            number = place.partition
            if (owner := self.owned.get(number)) is None:
                continue
            epoch = owner.holding().epoch
            # After `claim` it lives where it was going: the rest of the move concerns no owner.
            is_leaving = place.moving_to not in ("", place.database)
            if place.epoch <= epoch and not is_leaving:
                continue
            if doubted.get(number) != epoch:
                found[number] = epoch
            elif is_leaving:
                self._lost(owner, f"it is being moved to {place.moving_to}")
            else:
                self._lost(owner, f"its epoch is {place.epoch} and ours was {epoch}")
        return found

    def _begin(self, number: int, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work, name=f"owner-{number}")
        self._busy[number] = task
        task.add_done_callback(partial(self._ended, number))
        return task

    def _ended(self, number: int, task: asyncio.Task[None]) -> None:
        self._taking.discard(task)
        if self._busy.get(number) is task:
            del self._busy[number]
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("partition %d: its owner failed", number, exc_info=error)
            self._not_before[number] = self._clock.monotonic() + AGAIN_SECONDS
        self._changed()

    async def _take(self, number: int) -> None:
        self._not_before[number] = self._clock.monotonic() + AGAIN_SECONDS
        try:
            await self._check_stream(number)
            owner = await Owner.take(number, self._maker, self._broker, self._prepare, self._clock)
        except OlderStream as error:
            self._refuse(number, error)
            return
        except SeckillError as error:
            logger.warning("partition %d cannot be taken now: %s", number, error)
            if isinstance(error, StoreError) and not isinstance(error, Fenced):
                self._leave_to_others(number)
            return
        except Exception:
            logger.exception("partition %d cannot be taken", number)
            self._leave_to_others(number)
            return
        for each in (self._wanted_since, self._not_before, self._look_at, self._older):
            each.pop(number, None)
        self.owned[number] = owner
        owner.start(
            *(self._wire, self._registry, self._partitions, self._limits, self._reply),
            self._lost,
        )
        self._follow(number)
        holding = owner.holding()
        logger.info("partition %d is ours: epoch %d", number, holding.epoch)

    def _refuse(self, number: int, error: OlderStream) -> None:
        before = self._older.get(number)
        if before is None or before.life != error.life:
            logger.error("partition %d is not taken: %s", number, error)
        self._older[number] = error
        self._leave_to_others(number)

    def _leave_to_others(self, number: int) -> None:
        self._look_at[number] = self._clock.monotonic() + UNABLE_SECONDS

    async def _check_stream(self, number: int) -> None:
        """Raises OlderStream while the stream is the one with which it was refused.

        Finding that out anew would take the partition from its owner each time.
        """
        refused = self._older.get(number)
        if refused is not None and (await self._broker.life()).name == refused.life:
            raise OlderStream(refused.life, refused.newer)

    async def _reach(self, number: int) -> None:
        """Look whether a partition could be taken before it is asked back from whoever has it now."""
        try:
            await self._maker.reach(number)
            await self._check_stream(number)
        except SeckillError as error:
            logger.debug("partition %d stays with others: %s", number, error)
            self._leave_to_others(number)
        else:
            self._look_at.pop(number, None)

    async def _give_back(self, number: int) -> None:
        owner = self.owned.get(number)
        if owner is None:
            # Lost before this began.
            return
        self._leaving.add(number)
        try:
            await self._leave(number)
            await owner.give_back()
        finally:
            self._leaving.discard(number)
        # Shown as ours until it is not written any more: who takes it next need not fence us.
        self.owned.pop(number, None)
        logger.info("partition %d is given back", number)

    def _lost(self, owner: Owner, reason: str = "") -> None:
        """It ended by itself: another node took it, or something is wrong with it."""
        number = owner.number
        if self.owned.get(number) is not owner or number in self._leaving:
            return
        logger.warning("partition %d is lost: %s", number, reason or owner.partition.stopped)
        del self.owned[number]
        self._not_before[number] = self._clock.monotonic() + AGAIN_SECONDS
        if owner.is_cut_off:
            self._leave_to_others(number)
        self._begin(number, self._drop(owner))

    async def _drop(self, owner: Owner) -> None:
        await self._leave(owner.number)
        await owner.drop()
