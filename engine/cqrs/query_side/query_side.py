"""The query side of one process, put together: a loop for each projection and partition.

What is done to a projection while it is live is here too: rebuilding it beside itself, and dealing
with its dead letters. Any process may do that; the one that projects notices by the checkpoint.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Coroutine,
    Iterable,
    Mapping,
    Sequence,
)
from typing import Any, Final, TypeVar

import msgspec

from engine.clock import Clock
from engine.cqrs.aggregate import Registry
from engine.cqrs.codec import Codec
from engine.cqrs.event_store import EventReader
from engine.cqrs.long_task import say_why
from engine.cqrs.process_manager import ManagerLoop, ProcessManager
from engine.cqrs.query_side.dead_letters import hand_back, settle
from engine.cqrs.query_side.inline import InlineProjections
from engine.cqrs.query_side.projection import Projection
from engine.cqrs.query_side.projector import Projector
from engine.cqrs.query_side.read_model import DeadLetter, ReadStore
from engine.cqrs.query_side.subscription import Feed, Subscription
from engine.cqrs.send import Execute
from engine.errors import ConfigError, StoreUnavailable

logger = logging.getLogger(__name__)

T = TypeVar("T")

CATCH_UP_SECONDS: Final = 0.02


class Lag(msgspec.Struct, frozen=True):
    """How far behind the events one projection or process manager is in one partition.

    `commits` behind the newest; `seconds` since the oldest of them was written, 0 when there is none.
    """

    name: str
    partition: int
    position: int
    commits: int
    seconds: float
    dead_letters: int


class QuerySide:
    """Feeds read models and process managers. Nothing runs before `start`."""

    def __init__(
        self,
        reader: EventReader,
        registry: Registry,
        places: Mapping[Projection, ReadStore],
        feed: Feed,
        clock: Clock,
    ) -> None:
        """`places` names every projection and the store of its rows."""
        self._reader = reader
        self._codecs = {
            name: Codec(each.events, each.upcasters) for name, each in registry.types.items()
        }
        self._places = {each.name: (each, views) for each, views in places.items()}
        self._clock = clock
        self._feed = feed
        self._subscriptions = [self.subscribe(number) for number in range(reader.partitions)]
        self._managers: dict[str, ReadStore] = {}
        self._tasks: dict[int | None, list[asyncio.Task[None]]] = {}

    def subscribe(self, partition: int) -> Subscription:
        """The events of a partition, for one who follows them: it keeps a pace of its own."""
        return Subscription(self._reader, self._codecs, partition, self._feed, self._clock)

    def start(
        self, work: Coroutine[Any, Any, None], name: str, partition: int | None = None
    ) -> None:
        """Run something until `close`, or until its partition is left."""
        task = asyncio.create_task(work, name=name)
        task.add_done_callback(say_why)
        self._tasks.setdefault(partition, []).append(task)

    def start_projection(
        self, projection: Projection, partitions: Iterable[int] | None = None
    ) -> None:
        """Follow the events with it, in every partition or in these."""
        for number in self._numbers(partitions):
            projector = self._projector(projection.name, self.subscribe(number))
            self.start(projector.run(), f"{projection.name}-{number}", number)

    def start_manager(
        self,
        manager: ProcessManager,
        execute: Execute,
        views: ReadStore,
        partitions: Iterable[int] | None = None,
    ) -> None:
        """React to the events with it, in every partition or in these."""
        self.add_manager(manager, views)
        for number in self._numbers(partitions):
            subscription = self.subscribe(number)
            loop = ManagerLoop(
                manager, subscription, views, execute, len(self._subscriptions), self._clock
            )
            self.start(loop.run(), f"{manager.name}-{number}", number)

    async def leave(self, partition: int) -> None:
        """Stop what follows one partition; what was cut off is done again by whoever goes on."""
        await _stop(self._tasks.pop(partition, []))

    def _numbers(self, partitions: Iterable[int] | None) -> Iterable[int]:
        return range(len(self._subscriptions)) if partitions is None else partitions

    def add_manager(self, manager: ProcessManager, views: ReadStore) -> None:
        """Know where a manager keeps its checkpoint and letters, without running it."""
        self._managers[manager.name] = views

    def is_manager(self, name: str) -> bool:
        """Tell whether that is a process manager: its letters are reacted to where it runs."""
        return name in self._managers

    def inline(self, partition: int, projections: Sequence[Projection]) -> InlineProjections | None:
        """What the writer of a partition does in its transactions; None for nothing."""
        subscription = self._subscriptions[partition]
        projectors = [self._projector(each.name, subscription) for each in projections]
        return InlineProjections(subscription, projectors) if projectors else None

    async def lag(self) -> list[Lag]:
        """How far behind everything is that has a checkpoint.

        Partitions whose database is down are left out. Raises StoreUnavailable when all are.
        """
        return [lag async for lag in self._where_it_answers(self._lag)]

    async def _lag(
        self, name: str, generation: int, views: ReadStore, subscription: Subscription
    ) -> Lag:
        number = subscription.partition
        letters = await views.dead_letters(name, generation, number)
        progress = await views.progress(name, generation, number)
        position = progress.position if progress is not None else 0
        newest = await self._reader.read_position(number)
        behind = await subscription.read(position, 1) if newest > position else []
        age_us = self._clock.wall_us() - behind[0].committed_at_us if behind else 0
        commits, seconds = max(0, newest - position), max(0.0, age_us / 1_000_000)
        return Lag(name, number, position, commits, seconds, len(letters))

    async def _where_it_answers(
        self, ask: Callable[[str, int, ReadStore, Subscription], Awaitable[T]]
    ) -> AsyncIterator[T]:
        """Ask about every checkpoint of every partition; those of a database that is down are left
        out. Raises StoreUnavailable when all are."""
        answered, failed = False, None
        for name, views in self._with_checkpoints():
            generation = await self._live(name)
            for subscription in self._subscriptions:
                try:
                    answer = await ask(name, generation, views, subscription)
                except StoreUnavailable as error:
                    failed = error
                    continue
                answered = True
                yield answer
        if failed is not None and not answered:
            raise failed

    async def check_not_ahead(self) -> None:
        """Raise ConfigError when a checkpoint is beyond the newest event: it is of another store.

        Whatever is behind such a checkpoint would never be seen again.
        """
        async for _ in self._where_it_answers(self._check_not_ahead):
            pass

    async def _check_not_ahead(
        self, name: str, generation: int, views: ReadStore, subscription: Subscription
    ) -> None:
        number = subscription.partition
        # Before the newest position, so that a writer cannot come between the two.
        progress = await views.progress(name, generation, number)
        newest = await self._reader.read_position(number)
        if progress is not None and progress.position > newest:
            raise ConfigError(
                f"{name} is at position {progress.position:,} of partition {number}, and the "
                f"events end at {newest:,}: the store was replaced or restored; remove its "
                "read models (beside a SQLite file sale.db: sale-views.db with its -wal and "
                "-shm), and they are built again"
            )

    async def caught_up(self) -> None:
        """Return once everything has seen what was committed before the call.

        Raises StoreUnavailable.
        """
        newest = [await self._reader.read_position(each.partition) for each in self._subscriptions]
        for name, views in self._with_checkpoints():
            for each in self._subscriptions:
                while (
                    await self._lag(name, await self._live(name), views, each)
                ).position < newest[each.partition]:
                    await self._clock.sleep(CATCH_UP_SECONDS)

    async def rebuild(self, name: str) -> None:
        """Build a projection anew beside the live one, then swap. Reading goes on meanwhile.

        Raises ConfigError for an unknown name, StoreUnavailable.
        """
        projection, views = self._place(name)
        generation = await views.draft(name, projection.tables, len(self._subscriptions))
        projectors = [self._projector(name, each) for each in self._subscriptions]
        for each in projectors:
            await each.catch_up(generation)
        await views.promote(name, generation)
        # An inline projection is fed by the next transaction only: what came meanwhile is due now.
        await asyncio.gather(*(each.catch_up(generation) for each in projectors))

    async def dead_letters(self, name: str) -> list[DeadLetter]:
        """What a projection or manager could not take in; partitions whose database is down are left
        out. Raises ConfigError, StoreUnavailable when all are."""
        views = self._views(name)
        return await views.dead_letters(name, await self._live(name))

    async def retry(self, name: str, *, skip: bool = False) -> int:
        """Take a projection's dead letters in, without the poisoned ones themselves when `skip`.

        Those of a process manager are handed back to the engine that runs it, in whatever process,
        or to the next one. Returns how many are left. Raises ConfigError for an unknown name, and
        StoreUnavailable when some partitions could not be reached, after all others.
        """
        views = self._views(name)
        generation = await self._live(name)
        failed: StoreUnavailable | None = None
        for subscription in self._subscriptions:
            try:
                if self.is_manager(name):
                    await hand_back(name, generation, subscription.partition, views, skip=skip)
                else:
                    projection, _ = self._place(name)
                    await settle(projection, generation, subscription, views, skip=skip)
            except StoreUnavailable as error:
                # Partitions may live in several databases, and those of another one have their turn.
                failed = error
        if failed is not None:
            raise failed
        return len(await views.dead_letters(name, generation))

    async def close(self) -> None:
        """Stop everything. Idempotent; what was cut off is done again at the next start."""
        await _stop([task for tasks in self._tasks.values() for task in tasks])

    def _with_checkpoints(self) -> list[tuple[str, ReadStore]]:
        """Every projection and process manager, with the store of its checkpoint."""
        projections = [(name, views) for name, (_, views) in self._places.items()]
        return [*projections, *self._managers.items()]

    def _views(self, name: str) -> ReadStore:
        if name not in self._managers and name not in self._places:
            known = ", ".join([*self._places, *self._managers]) or "none"
            raise ConfigError(f"nothing is called {name!r} here; there is: {known}")
        return self._managers.get(name) or self._places[name][1]

    def _place(self, name: str) -> tuple[Projection, ReadStore]:
        if name not in self._places:
            known = ", ".join(self._places) or "none"
            raise ConfigError(f"there is no projection {name!r}; there is: {known}")
        return self._places[name]

    def _projector(self, name: str, subscription: Subscription) -> Projector:
        projection, views = self._places[name]
        return Projector(projection, subscription, views, len(self._subscriptions), self._clock)

    async def _live(self, name: str) -> int:
        if name in self._managers:
            return await self._managers[name].prepare(name, (), len(self._subscriptions))
        projection, views = self._places[name]
        return await views.prepare(name, projection.tables, len(self._subscriptions))


async def _stop(tasks: Sequence[asyncio.Task[None]]) -> None:
    for each in tasks:
        each.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
