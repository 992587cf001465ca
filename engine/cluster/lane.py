"""The gateway's queue for one partition: commands are merged into messages and published in order."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain
from typing import Any, Final

from engine.clock import Clock, Timer
from engine.cluster.broker import DUPLICATE_SECONDS, Broker, BrokerFull
from engine.cluster.doubt import named, unless_surely_nothing
from engine.cluster.wire import Addressed, Wire
from engine.cqrs.aggregate import AggregateType
from engine.cqrs.command_side.alarm import Alarm
from engine.cqrs.command_side.expiry import expire_in_flight, expire_queued, next_deadline
from engine.cqrs.command_side.mailbox import Fifo, Request, Slice
from engine.cqrs.command_side.statistics import Counters
from engine.cqrs.messages import Command, Outcome, Rejected
from engine.errors import (
    BrokerUnavailable,
    EngineClosed,
    InvalidCommand,
    OutcomeUnknown,
    Overloaded,
    SeckillError,
    StreamKey,
)

logger = logging.getLogger(__name__)

IN_FLIGHT_MAX: Final = 2
"""Messages of a lane that the broker has not acknowledged; what comes meanwhile is merged. Each costs
the broker a sync to disk on every replica, so few large ones go further than many small ones."""

FULL_IN_FLIGHT_MAX: Final = 16
"""The same while a full message waits: merging could make it no larger."""

HEADER_BYTES: Final = 1_024
"""Of a message, beside its commands: its id and the name of the stream."""

AGAIN_SECONDS: Final = 0.2
PUBLISH_SECONDS_MAX: Final = DUPLICATE_SECONDS / 2
"""A message is published again for so long, and not as long as it might be stored twice."""


ANSWERS: Final = frozenset({tuple, Rejected})


class Sent:
    """A message on its way. `sequence` is its place in that `life` of the stream, 0 until it is known.

    `over_at` is when its owner was first seen to show it as decided while its reply was missing. It is
    the `tries`th message for these commands, after those of the ones before.
    """

    __slots__ = ("life", "number", "over_at", "sequence", "slices", "tries")

    def __init__(self, number: int, slices: list[Slice], life: str, tries: int = 1) -> None:
        self.number = number
        self.slices = slices
        self.life = life
        self.sequence = 0
        self.over_at = math.inf
        self.tries = tries

    @property
    def is_wanted(self) -> bool:
        """Whether anybody still waits for it."""
        return any(not request.future.done() for request, _, _ in self.slices)


class Lane:
    """Publishes for one partition; replies come to `reply`. `messages` are under way, by number."""

    def __init__(
        self,
        number: int,
        broker: Broker,
        wire: Wire,
        inbox: str,
        commands_max: int,
        delay_seconds: float,
        next_number: Callable[[], int],
        clock: Clock,
        told: Counters,
    ) -> None:
        self._partition = number
        self._broker = broker
        self._wire = wire
        self._inbox = inbox
        self._commands_max = commands_max
        self._delay = delay_seconds
        self._next_number = next_number
        self._clock = clock
        self._told = told
        self._loop = asyncio.get_running_loop()
        self._queue = Fifo()
        self._deadline = Alarm(clock, self._expire)
        self._timer: Timer | None = None
        self._is_split = False
        self._soon = False
        self._closed = False
        self._publishing: set[asyncio.Task[None]] = set()
        self.messages: dict[int, Sent] = {}
        self.unanswered = 0
        """Commands in messages under way."""
        self.life = ""
        """The life of the stream, as the owner shows it."""
        self.stopped: SeckillError | None = None
        """Why no commands are taken: nobody owns the partition."""

    @property
    def queue_depth(self) -> int:
        """Commands that wait here, or for their reply."""
        return self._queue.depth + self.unanswered

    def submit(self, aggregate: AggregateType[Any], stream: StreamKey, request: Request) -> None:  # noqa: ARG002
        """Have a request published, whose bounds the caller has checked."""
        request.aggregate_type = aggregate.name
        self._queue.put(request)
        self._wake()
        if request.deadline < self._deadline.at:
            self._deadline.set(request.deadline)

    def _wake(self) -> None:
        if self._soon:
            return
        if not self._delay or self._queue.depth >= self._commands_max:
            # Whoever comes within this turn of the event loop goes with the same message.
            self._soon = True
            self._loop.call_soon(self._flush)
        elif self._timer is None:
            self._timer = self._clock.call_later(self._delay, self._due)

    def _due(self) -> None:
        self._timer = None
        self._flush()

    def _flush(self) -> None:
        self._soon = False
        while (
            not self._closed and self._queue.queue and len(self._publishing) < self._in_flight_max
        ):
            if slices := self._queue.take(self._commands_max):
                self._send(slices)
            queue = self._queue.queue
            self._is_split = bool(queue) and queue[0][1] > 0

    @property
    def _in_flight_max(self) -> int:
        if self._is_split:
            # A list of one caller goes message after message: should one fail to arrive, those behind
            # it would else be decided before it.
            return 1
        is_full = self._queue.depth >= self._commands_max
        return FULL_IN_FLIGHT_MAX if is_full else IN_FLIGHT_MAX

    def _send(self, slices: list[Slice], tries: int = 1) -> None:
        """Publish slices as one message; of what would be too large, the first part that fits.

        The rest waits, when nobody has seen it yet. What was tried before goes at once, in parts:
        whatever waits is told at its deadline that it was not executed.
        """
        parts = [slices]
        while parts:
            part = parts.pop()
            if not self._publish_whole(part, tries):
                first, rest = _halves(part, _count(part) // 2)
                parts += [rest, first]
            elif tries == 1:
                self._queue.put_back(chain.from_iterable(reversed(parts)))
                return

    def _publish_whole(self, slices: list[Slice], tries: int) -> bool:
        """Publish slices as one message, or answer a single command that fits into none.

        False when there are several and they do not fit.
        """
        sent = Sent(self._next_number(), slices, self.life, tries)
        deadline = max(request.deadline for request, _, _ in slices)
        count = _count(slices)
        bytes_max = self._broker.message_bytes_max - HEADER_BYTES
        try:
            data = self._wire.encode_commands(self._inbox, sent.number, self._parts_of(slices))
            error = f"it has {len(data):,} bytes, and at most {bytes_max:,} can be sent"
        except (TypeError, ValueError, OverflowError) as found:
            # What its type does not allow, or no message can hold: only that command shall fail.
            data, error = b"", repr(found)
        if 0 < len(data) <= bytes_max:
            self.messages[sent.number] = sent
            self.unanswered += count
            task = self._loop.create_task(self._publish(sent, data, deadline))
            self._publishing.add(task)
            task.add_done_callback(self._published)
        elif count > 1:
            return False
        else:
            self._answer(sent, [InvalidCommand(f"the command cannot be sent: {error}")])
        return True

    def _parts_of(self, slices: list[Slice]) -> list[Addressed]:
        now, now_us = self._clock.monotonic(), self._clock.wall_us()
        parts: list[Addressed] = []
        for request, start, stop in slices:
            left_us = int((request.deadline - now) * 1e6)
            deadline_us = _rounded_down(now_us + left_us, left_us)
            parts.append((request.aggregate_type, deadline_us, request.commands[start:stop]))
        return parts

    def _published(self, task: asyncio.Task[None]) -> None:
        self._publishing.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("partition %d: publishing failed", self._partition, exc_info=error)
        if self._queue.queue:
            self._wake()

    async def _publish(self, sent: Sent, data: bytes, deadline: float) -> None:
        # Not of the command ids alone: the same command through another gateway is another message,
        # which gets a reply of its own.
        message_id = f"{self._inbox}.{sent.number}"
        give_up = min(deadline, self._clock.monotonic() + PUBLISH_SECONDS_MAX)
        may_be_stored = False
        while sent.number in self.messages:
            try:
                sent.sequence = await self._broker.publish(self._partition, data, message_id)
                return
            except BrokerFull as error:
                if not may_be_stored:
                    self.fail(sent, partial(_overloaded, self.queue_depth))
                    logger.warning("partition %d: %s", self._partition, error)
                    return
            except BrokerUnavailable as error:
                may_be_stored = True
                logger.debug("partition %d: %s", self._partition, error)
            if self._clock.monotonic() >= give_up or not sent.is_wanted:
                self.fail(sent, lambda command: OutcomeUnknown(command.id))
                return
            await self._clock.sleep(AGAIN_SECONDS)

    def reply(self, number: int, outcomes: list[Outcome]) -> bool:
        """Hand the outcomes of a message to its callers; false when nobody waits for it any more."""
        sent = self._take(number)
        if sent is None:
            return False
        self._answer(sent, outcomes)
        return True

    def _answer(self, sent: Sent, outcomes: list[Outcome]) -> None:
        has_errors = not ANSWERS.issuperset(map(type, outcomes))
        if has_errors:
            commands = (
                each
                for request, start, stop in sent.slices
                for each in request.commands[start:stop]
            )
            make = named if sent.tries == 1 else unless_surely_nothing
            outcomes = [
                make(outcome, command.id)
                for command, outcome in zip(commands, outcomes, strict=True)
            ]
        first = 0
        for request, start, stop in sent.slices:
            last = first + stop - start
            if has_errors and not request.future.done():
                self._told.count_told(outcomes[first:last])
            request.answer(start, outcomes[first:last])
            first = last

    def fail(self, sent: Sent, make_error: Callable[[Command], SeckillError]) -> None:
        """Answer a whole message with errors; of commands that were tried before, that is unknown."""
        if self._take(sent.number) is not None:
            commands = [
                each
                for request, start, stop in sent.slices
                for each in request.commands[start:stop]
            ]
            self._answer(sent, [make_error(each) for each in commands])

    def send_again(self, sent: Sent) -> None:
        """Publish the commands of a message as a new one: its own reply is lost."""
        if self._take(sent.number) is None:
            return
        slices = [each for each in sent.slices if not each[0].future.done()]
        if slices:
            self._send(slices, sent.tries + 1)

    def _expire(self) -> None:
        """Answer whoever waited too long: what was published may be done by now, or done yet."""
        now = self._clock.monotonic()
        self._told.unknown += expire_in_flight(self.messages.values(), now)
        self._told.expired += expire_queued(self._queue, now)
        self._queue.drop_finished()
        for sent in [each for each in self.messages.values() if not each.is_wanted]:
            self._take(sent.number)
        self._deadline.set(next_deadline(self.messages.values(), [self._queue]))

    async def close(self) -> None:
        """Publish nothing more, and answer whoever still waits. Idempotent."""
        self._closed = True
        self._deadline.set(math.inf)
        if self._timer is not None:
            self._timer.cancel()
        for task in list(self._publishing):
            task.cancel()
        await asyncio.gather(*self._publishing, return_exceptions=True)
        for sent in list(self.messages.values()):
            self.fail(sent, lambda command: OutcomeUnknown(command.id))
        for request, start, stop in self._queue.take(self._queue.depth):
            what = "the gateway is closed; the command was not executed"
            request.answer(start, [EngineClosed(what) for _ in range(start, stop)])

    def under_way(self, stream: StreamKey, life: str, received: int) -> Iterator[Command]:
        """Commands for one aggregate that are on their way to the owner, oldest first.

        What it has `received`, of that life of the stream, has arrived.
        """
        sent = (
            each
            for message in self.messages.values()
            if not (message.life == life and 0 < message.sequence <= received)
            for each in message.slices
        )
        for request, start, stop in chain(sent, self._queue.queue):
            if request.aggregate_type == stream[0] and not request.future.done():
                for command in request.commands[start:stop]:
                    if command.aggregate_id == stream[1]:
                        yield command

    def commands_of(self, number: int) -> int | None:
        """How many commands a message under way has."""
        sent = self.messages.get(number)
        return None if sent is None else _count(sent.slices)

    def _take(self, number: int) -> Sent | None:
        sent = self.messages.pop(number, None)
        if sent is not None:
            self.unanswered -= _count(sent.slices)
        return sent


def _count(slices: list[Slice]) -> int:
    """How many commands."""
    return sum(stop - start for _, start, stop in slices)


def _halves(slices: list[Slice], first: int) -> tuple[list[Slice], list[Slice]]:
    """The slices of the `first` commands, and of the rest."""
    fifo = Fifo()
    fifo.put_back(slices)
    return fifo.take(first), fifo.take(fifo.depth)


def _overloaded(depth: int, _: Command) -> SeckillError:
    return Overloaded(depth, depth, AGAIN_SECONDS)


def _rounded_down(deadline_us: int, left_us: int) -> int:
    """A deadline that many commands share: earlier by a thirty-second of what is left, at most."""
    step = max(1_000, 1 << max(0, (left_us // 32).bit_length() - 1))
    return deadline_us - deadline_us % step
