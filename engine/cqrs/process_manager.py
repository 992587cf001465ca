"""Process managers: reactions to events that send commands. They keep no state of their own.

    commits after the checkpoint -> react(event) sends commands, awaits answers -> checkpoint

The checkpoint moves once everything sent was answered, so a reaction runs at least once, and again
after a crash. What it sends must therefore do no harm twice: ids are derived from the event, the
manager, the target and a number (`Send.id`), so that a command sent again is answered as before.
"""

from __future__ import annotations

import asyncio
import logging
import math
import uuid
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from engine.clock import Clock
from engine.cqrs.codec import name_commit
from engine.cqrs.event_store import StoredCommit
from engine.cqrs.messages import Answer, Command, Event
from engine.cqrs.partitioning import partition_of
from engine.cqrs.query_side.projection import RecordedCommit
from engine.cqrs.query_side.read_model import DeadLetter, Progress, ReadStore, Step
from engine.cqrs.query_side.subscription import Subscription
from engine.errors import (
    SEND_AGAIN,
    EngineClosed,
    PartitionLost,
    StoreUnavailable,
    StreamKey,
)

logger = logging.getLogger(__name__)

NAMESPACE: Final = uuid.UUID("5ec1c111-0000-4000-8000-000000000000")
"""Of derived command ids; any constant will do, as long as it stays the same."""

RETRY_SECONDS: Final = 0.2
LOST_RETRY_SECONDS: Final = 1.0

PATIENCE_SECONDS: Final = 10.0
"""How long a command to another partition is sent again before its event is laid aside."""

ASIDE_SECONDS_MIN: Final = 1.0
ASIDE_SECONDS_MAX: Final = 15.0
"""How long events are laid aside: twice as long every time, while none of them could go on."""

WAITS: Final = "waits: "
"""How the reason of a dead letter begins whose event was laid aside; it goes on by itself."""

Execute: TypeAlias = Callable[[Command], Awaitable[Answer]]


class Waits(Exception):
    """A partition that a command is for cannot be reached now. The text says why."""


class Send:
    """What a reaction sends commands with, until each of them is answered."""

    def __init__(
        self,
        execute: Execute,
        manager: str,
        stream: StreamKey,
        version: int,
        clock: Clock,
        is_elsewhere: Callable[[Command], bool] = lambda _: False,
        patience_seconds: float = PATIENCE_SECONDS,
    ) -> None:
        """`stream` and `version` name the event that is reacted to. A command that `is_elsewhere` is
        sent again for `patience_seconds`, any other without end."""
        self._execute = execute
        self._seed = f"{manager}/{stream[0]}/{stream[1]}/{version}"
        self._clock = clock
        self._is_elsewhere = is_elsewhere
        self._patience_seconds = patience_seconds

    def id(self, target: str, number: int = 0) -> str:
        """The id of the command to `target`: the same whenever this event is reacted to."""
        return uuid.uuid5(NAMESPACE, f"{self._seed}/{target}/{number}").hex

    async def __call__(self, command: Command) -> Answer:
        """Execute a command. Raises what no repetition would cure, PartitionLost, and Waits."""
        is_elsewhere = self._is_elsewhere(command)
        give_up = self._clock.monotonic() + self._patience_seconds if is_elsewhere else math.inf
        while True:
            try:
                return await self._execute(command)
            except SEND_AGAIN as error:
                if self._clock.monotonic() >= give_up:
                    raise Waits(str(error)) from error
                logger.info("%s is sent again: %s", type(command).__name__, error)
                await self._clock.sleep(RETRY_SECONDS)
            except PartitionLost as error:
                if is_elsewhere:
                    raise Waits(str(error)) from error
                raise


React: TypeAlias = Callable[[str, Event, Send], Coroutine[Any, Any, None]]
"""React to an event of the aggregate with that id."""


@dataclass(frozen=True)
class ProcessManager:
    """Reacts to the events of some types. `name` is stored with its checkpoint.

    Events of one aggregate are reacted to in order, those of several aggregates at once. An event
    whose reaction raises becomes a dead letter, with what follows in its stream. Letters are reacted
    to again, in their order, at every start and when the progress has another revision; those that
    wait for another partition also by themselves, so that nobody else waits for it.
    """

    name: str
    aggregate_type: str
    events: tuple[type[Event], ...]
    react: React


class ManagerLoop:
    """Runs one process manager over one partition, until cancelled."""

    def __init__(
        self,
        manager: ProcessManager,
        subscription: Subscription,
        views: ReadStore,
        execute: Execute,
        partitions: int,
        clock: Clock,
    ) -> None:
        self.manager = manager
        self._subscription = subscription
        self._views = views
        self._execute = execute
        self._partitions = partitions
        self._clock = clock
        self._revision: int | None = None
        """Of the progress when all letters were reacted to last."""
        self._aside_seconds = ASIDE_SECONDS_MIN
        self.position = 0

    async def run(self) -> None:
        while True:
            try:
                await self._follow()
            except StoreUnavailable as error:
                logger.warning("%s waits: %s", self.manager.name, error)
                await self._clock.sleep(RETRY_SECONDS)
            except (PartitionLost, EngineClosed) as error:
                # Whoever took the partition over reacts now. If nobody did, others of this loop's
                # aggregates need it all the same.
                logger.info("%s waits: %s", self.manager.name, error)
                await self._clock.sleep(LOST_RETRY_SECONDS)

    async def _follow(self) -> None:
        name, partition = self.manager.name, self._subscription.partition
        generation = await self._views.prepare(name, (), self._partitions)
        progress = await self._views.progress(name, generation, partition)
        assert progress is not None, "a manager is never rebuilt"
        letters = await self._views.dead_letters(name, generation, partition)
        waiting = {each.stream for each in letters if each.reason.startswith(WAITS)}
        # All at every start, and when somebody asks: their cause may be mended.
        is_asked = progress.revision != self._revision
        again = [each for each in letters if is_asked or each.stream in waiting]
        if again:
            page = [(await self._subscription.read(each.position - 1, 1))[0] for each in again]
            # Who was waited for in vain is asked once: the events behind would wait as well.
            left = await self._react_to(page, set(), 0)
            # Raised only when one was settled: two loops would else call each other for ever.
            fewer = len(left) < len(again)
            reached = Progress(progress.position, progress.revision + fewer)
            settled = [each.position for each in page]
            step = Step(
                name, generation, partition, progress, reached, letters=left, settled=settled
            )
            if not await self._views.advance(step):
                raise StoreUnavailable("the checkpoint was moved by somebody else")
            progress = reached
            letters = [*(each for each in letters if each not in again), *left]
            self._aside_seconds = (
                ASIDE_SECONDS_MIN if fewer else min(2 * self._aside_seconds, ASIDE_SECONDS_MAX)
            )
        self._revision = progress.revision
        blocked = {each.stream for each in letters}
        look_again_at = self._next_look(letters)
        while self._clock.monotonic() < look_again_at:
            self.position = progress.position
            page = await self._subscription.wait_once(progress.position)
            if not page:
                if await self._views.progress(name, generation, partition) != progress:
                    # Somebody asked for the letters to be reacted to again, or skipped some.
                    return
                continue
            dead = await self._react_to(page, blocked)
            reached = Progress(page[-1].position, progress.revision)
            step = Step(name, generation, partition, progress, reached, letters=dead)
            if not await self._views.advance(step):
                raise StoreUnavailable("the checkpoint was moved by somebody else")
            blocked |= {each.stream for each in dead}
            look_again_at = min(look_again_at, self._next_look(dead))
            progress = reached

    def _next_look(self, letters: Sequence[DeadLetter]) -> float:
        """When to react to letters that wait for another partition."""
        if any(each.reason.startswith(WAITS) for each in letters):
            return self._clock.monotonic() + self._aside_seconds
        return math.inf

    async def _react_to(
        self,
        page: Sequence[StoredCommit],
        blocked: set[StreamKey],
        patience_seconds: float = PATIENCE_SECONDS,
    ) -> list[DeadLetter]:
        """React to a page, one task a stream; return what could not be."""
        streams: dict[StreamKey, list[StoredCommit]] = {}
        for commit in page:
            if commit.aggregate_type == self.manager.aggregate_type:
                streams.setdefault(commit.stream, []).append(commit)
        answers = await asyncio.gather(
            *(
                self._react_in_order(own, stream in blocked, patience_seconds)
                for stream, own in streams.items()
            ),
            return_exceptions=True,
        )
        dead: list[DeadLetter] = []
        for answer in answers:
            if isinstance(answer, BaseException):
                raise answer
            dead += answer
        return sorted(dead, key=lambda each: each.position)

    async def _react_in_order(
        self, commits: Sequence[StoredCommit], blocked: bool, patience_seconds: float
    ) -> list[DeadLetter]:
        dead: list[DeadLetter] = []
        for commit in commits:
            reason = ""
            if not blocked:
                try:
                    await self._react_to_commit(self._subscription.decode(commit), patience_seconds)
                    continue
                except (PartitionLost, EngineClosed):
                    raise
                except Waits as error:
                    logger.info("%s: %s waits: %s", self.manager.name, name_commit(commit), error)
                    reason = f"{WAITS}{error}"
                    blocked = True
                except Exception as error:
                    logger.exception(
                        "%s cannot react to %s", self.manager.name, name_commit(commit)
                    )
                    reason = repr(error)
                    blocked = True
            place = (commit.partition, commit.position)
            dead.append(DeadLetter(*place, commit.aggregate_type, commit.aggregate_id, reason))
        return dead

    async def _react_to_commit(self, commit: RecordedCommit, patience_seconds: float) -> None:
        """React to the events of one commit, in order."""
        for version, event in enumerate(commit.events, commit.first_version):
            if isinstance(event, self.manager.events):
                send = Send(
                    *(self._execute, self.manager.name, commit.stream, version, self._clock),
                    *(self._is_elsewhere, patience_seconds),
                )
                await self.manager.react(commit.aggregate_id, event, send)

    def _is_elsewhere(self, command: Command) -> bool:
        number = partition_of(command.aggregate_id, self._partitions)
        return number != self._subscription.partition
