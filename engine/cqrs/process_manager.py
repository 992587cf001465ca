"""Process managers: reactions to events that send commands. They keep no state of their own.

    commits after the checkpoint -> react(event) sends commands, awaits answers -> checkpoint

The checkpoint moves once everything sent was answered, so a reaction runs at least once, and again
after a crash. What it sends must therefore do no harm twice: ids are derived from the event, the
manager, the target and a number (`Send.id`), so that a command sent again is answered as before.

An event that cannot be reacted to is laid aside, as a dead letter with what follows in its stream, and
holds nobody else up. One that waits for another partition is reacted to again beside the loop.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, TypeAlias

from engine.clock import Clock
from engine.cqrs.codec import name_commit
from engine.cqrs.event_store import StoredCommit
from engine.cqrs.messages import Event
from engine.cqrs.query_side.projection import RecordedCommit
from engine.cqrs.query_side.read_model import WAITS, DeadLetter, Progress, ReadStore, Step
from engine.cqrs.query_side.subscription import Subscription
from engine.cqrs.send import RETRY_SECONDS, Execute, Reach, Send, Waits
from engine.errors import EngineClosed, PartitionLost, StoreUnavailable, StreamKey

logger = logging.getLogger(__name__)

LOST_RETRY_SECONDS: Final = 1.0

ASIDE_SECONDS_MIN: Final = 1.0
ASIDE_SECONDS_MAX: Final = 15.0
"""Between two looks at what waits for another partition: twice as long every time, while none of it
could go on."""

STREAMS_AT_ONCE: Final = 256
"""Of letters that are looked at: live orders share the queues with them."""

React: TypeAlias = Callable[[str, Event, Send], Coroutine[Any, Any, None]]
"""React to an event of the aggregate with that id."""


@dataclass(frozen=True)
class ProcessManager:
    """Reacts to the events of some types. `name` is stored with its checkpoint.

    Events of one aggregate are reacted to in order, those of several aggregates at once. An event
    whose reaction raises becomes a dead letter, with what follows in its stream. Letters are reacted
    to again, in their order, at every start and when the progress has another revision; those that
    wait for another partition also by themselves.
    """

    name: str
    aggregate_type: str
    events: tuple[type[Event], ...]
    react: React


class Look(NamedTuple):
    """Letters that are reacted to again beside the loop; the task says what is left of them."""

    letters: Sequence[DeadLetter]
    task: asyncio.Task[list[DeadLetter]]


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
        self._reach = Reach(subscription.partition, partitions)
        self._revision: int | None = None
        """Of the progress when all letters were reacted to last."""
        self._look_at = math.inf
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
        look: Look | None = None
        if progress.revision != self._revision and letters:
            # All at every start, and when somebody asks: their cause may be mended.
            look = self._begin_look(letters)
        else:
            self._revision = progress.revision
            self._look_soon(letters)
        try:
            while True:
                self.position = progress.position
                if look is not None and look.task.done():
                    progress, letters = await self._end_look(look, generation, progress, letters)
                    look = None
                elif look is None and self._clock.monotonic() >= self._look_at:
                    look = self._begin_look(waiting(letters))
                page = await self._subscription.wait_once(progress.position)
                if page:
                    dead = await self._react_to(page, {each.stream for each in letters})
                    reached = Progress(page[-1].position, progress.revision)
                    await self._advance(generation, progress, reached, dead)
                    progress, letters = reached, [*letters, *dead]
                    self._look_soon(dead)
                elif await self._views.progress(name, generation, partition) != progress:
                    # Somebody asked for the letters to be reacted to again, or skipped some.
                    return
        finally:
            if look is not None:
                look.task.cancel()
                await asyncio.gather(look.task, return_exceptions=True)

    async def _advance(
        self,
        generation: int,
        progress: Progress,
        reached: Progress,
        letters: Sequence[DeadLetter],
        settled: Sequence[int] = (),
    ) -> None:
        place = (self.manager.name, generation, self._subscription.partition)
        step = Step(*place, progress, reached, letters=letters, settled=settled)
        if not await self._views.advance(step):
            raise StoreUnavailable("the checkpoint was moved by somebody else")

    # -- letters

    def _begin_look(self, letters: Sequence[DeadLetter]) -> Look:
        self._look_at = math.inf
        return Look(letters, asyncio.create_task(self._look(letters)))

    async def _look(self, letters: Sequence[DeadLetter]) -> list[DeadLetter]:
        """React to letters again; return those that are left, with their reasons now."""
        self._reach.begin_probing()
        streams = list(_by_stream(letters).values())
        left: list[DeadLetter] = []
        for first in range(0, len(streams), STREAMS_AT_ONCE):
            some = [each for own in streams[first : first + STREAMS_AT_ONCE] for each in own]
            page = [(await self._subscription.read(each.position - 1, 1))[0] for each in some]
            left += await self._react_to(page, set(), is_probe=True)
        return left

    async def _end_look(
        self, look: Look, generation: int, progress: Progress, letters: Sequence[DeadLetter]
    ) -> tuple[Progress, list[DeadLetter]]:
        """Write down what a look has settled; returns the progress and all letters then."""
        left = look.task.result()
        changed = [each for each in left if each not in look.letters]
        gone = {each.position for each in look.letters} - {each.position for each in left}
        reached = progress
        if gone or changed:
            # Raised only when one was settled: two loops would else call each other for ever.
            reached = Progress(progress.position, progress.revision + bool(gone))
            settled = [*gone, *(each.position for each in changed)]
            await self._advance(generation, progress, reached, changed, settled)
        self._revision = reached.revision
        since = [each for each in letters if each not in look.letters]
        letters = sorted([*left, *since], key=lambda each: each.position)
        self._aside_seconds = (
            ASIDE_SECONDS_MIN if gone else min(2 * self._aside_seconds, ASIDE_SECONDS_MAX)
        )
        self._look_soon(letters)
        return reached, letters

    def _look_soon(self, letters: Sequence[DeadLetter]) -> None:
        """See that those that wait for another partition are looked at."""
        if waiting(letters):
            self._look_at = min(self._look_at, self._clock.monotonic() + self._aside_seconds)

    # -- reactions

    async def _react_to(
        self, page: Sequence[StoredCommit], blocked: set[StreamKey], *, is_probe: bool = False
    ) -> list[DeadLetter]:
        """React to a page, one task a stream; return what could not be."""
        streams: dict[StreamKey, list[StoredCommit]] = {}
        for commit in page:
            if commit.aggregate_type == self.manager.aggregate_type:
                streams.setdefault(commit.stream, []).append(commit)
        answers = await asyncio.gather(
            *(
                self._react_in_order(own, stream in blocked, is_probe)
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
        self, commits: Sequence[StoredCommit], blocked: bool, is_probe: bool
    ) -> list[DeadLetter]:
        dead: list[DeadLetter] = []
        for commit in commits:
            reason = ""
            if not blocked:
                try:
                    await self._react_to_commit(self._subscription.decode(commit), is_probe)
                    continue
                except (PartitionLost, EngineClosed):
                    raise
                except Waits as error:
                    logger.info("%s: %s waits: %s", self.manager.name, name_commit(commit), error)
                    reason = f"{WAITS}{error}"
                except Exception as error:
                    logger.exception(
                        "%s cannot react to %s", self.manager.name, name_commit(commit)
                    )
                    reason = repr(error)
                blocked = True
            place = (commit.partition, commit.position)
            dead.append(DeadLetter(*place, commit.aggregate_type, commit.aggregate_id, reason))
        return dead

    async def _react_to_commit(self, commit: RecordedCommit, is_probe: bool) -> None:
        """React to the events of one commit, in order."""
        for version, event in enumerate(commit.events, commit.first_version):
            if isinstance(event, self.manager.events):
                send = Send(
                    self._execute,
                    self.manager.name,
                    commit.stream,
                    version,
                    self._clock,
                    self._reach,
                    is_probe=is_probe,
                )
                await self.manager.react(commit.aggregate_id, event, send)


def waiting(letters: Sequence[DeadLetter]) -> list[DeadLetter]:
    """Those of streams that go on by themselves: the first one waits for another partition, or was not
    tried yet."""
    return [
        each
        for own in _by_stream(letters).values()
        for each in own
        if not own[0].reason or own[0].is_waiting
    ]


def _by_stream(letters: Sequence[DeadLetter]) -> dict[StreamKey, list[DeadLetter]]:
    found: dict[StreamKey, list[DeadLetter]] = {}
    for each in letters:
        found.setdefault(each.stream, []).append(each)
    return found
