"""The door: commands are checked, admitted or refused, and routed to their partition."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Final, Protocol, cast

from engine.clock import Clock
from engine.cqrs.aggregate import AggregateType, Registry
from engine.cqrs.command_side.mailbox import Request
from engine.cqrs.command_side.statistics import Counters
from engine.cqrs.messages import Answer, Ask, Command, Found, Outcome
from engine.cqrs.partitioning import partition_of
from engine.errors import (
    EngineClosed,
    InvalidCommand,
    Overloaded,
    SeckillError,
    StreamKey,
)

RETRY_AFTER_SECONDS: Final = 0.1
"""Hint for a refused caller: a full queue of 65,536 commands is worked off in about that time."""

TIMEOUT_MS_MAX: Final = 600_000


class Home(Protocol):
    """Where the commands of one partition wait: the partition itself, or the way to its owner."""

    @property
    def stopped(self) -> SeckillError | None:
        """Why it takes no more commands; None while it does."""

    @property
    def queue_depth(self) -> int: ...

    def submit(self, aggregate: AggregateType[Any], stream: StreamKey, request: Request) -> None:
        """Queue a request, whose bounds the caller has checked."""


class CommandBus:
    """Takes commands for every aggregate type of a registry.

    `depth_max` bounds the commands waiting in one partition; beyond it they are refused at once.
    `deadline_ms` is how long a caller waits that names no time of its own.
    """

    def __init__(
        self,
        registry: Registry,
        partitions: Sequence[Home],
        depth_max: int,
        deadline_ms: int,
        clock: Clock,
        counters: Counters,
    ) -> None:
        self._registry = registry
        self._partitions = partitions
        self._depth_max = depth_max
        self._deadline_seconds = deadline_ms / 1_000
        self._clock = clock
        self._counters = counters
        self._closed = False
        # Asking for the running loop costs a system call up to Python 3.11: once, not per order.
        self._loop = asyncio.get_running_loop()

    async def execute(self, command: Command, *, timeout_ms: int | None = None) -> Answer:
        """Execute one command and return its events, or Rejected, once that is durable.

        Raises InvalidCommand, Overloaded, EngineClosed, DeadlineExceeded, CommandIdReused,
        CommandFailed, AggregateHalted, PartitionLost, StoreUnavailable: it changed nothing.
        Raises OutcomeUnknown when it may or may not be done: repeat it with the same id.
        Cancelling the call gives up waiting; a command already in flight may still be executed.
        """
        outcome = (await self.submit(command, timeout_ms=timeout_ms))[0]
        if isinstance(outcome, SeckillError):
            raise outcome
        return outcome

    def submit(
        self, command: Command, *, timeout_ms: int | None = None
    ) -> asyncio.Future[list[Outcome]]:
        """Queue one command; the future is its outcome, in a list of one, errors standing in it.

        Raises what `execute` raises at the door: InvalidCommand, Overloaded, EngineClosed and
        PartitionLost. Cancelling the future gives up waiting.
        """
        command.check()
        aggregate = self._registry.type_of(command)
        aggregate_id = command.aggregate_id
        seconds = self._deadline_seconds if timeout_ms is None else self._seconds(timeout_ms)
        partition = self._partitions[partition_of(aggregate_id, len(self._partitions))]
        self._check_home(partition)
        now = self._clock.monotonic()
        future: asyncio.Future[list[Outcome]] = self._loop.create_future()
        request = Request((command,), future, now, now + seconds)
        partition.submit(aggregate, (aggregate.name, aggregate_id), request)
        return future

    async def execute_many(
        self, commands: Sequence[Command], *, timeout_ms: int | None = None
    ) -> list[Outcome]:
        """Execute a list of commands and return one outcome each, in their order.

        Commands of one aggregate are decided in list order; each succeeds or fails alone, and an
        error that `execute` would have raised stands in the list instead, such as that of a
        partition that takes no commands. Raises InvalidCommand (naming the index), Overloaded and,
        of an engine that closes, EngineClosed for the whole list: then none was queued.
        Cancelling the call takes back what is still queued; what is in flight is executed.
        """
        groups = self._group(commands)
        seconds = self._deadline_seconds if timeout_ms is None else self._seconds(timeout_ms)
        homes, outcomes = self._admit_groups(groups)
        now = self._clock.monotonic()
        requests: dict[StreamKey, Request] = {}
        for stream, home in homes.items():
            future: asyncio.Future[list[Outcome]] = self._loop.create_future()
            request = requests[stream] = Request(groups[stream], future, now, now + seconds)
            home.submit(self._registry.types[stream[0]], stream, request)
        try:
            for stream, each in requests.items():
                outcomes[stream] = await each.future
        except asyncio.CancelledError:
            for request in requests.values():
                request.future.cancel()
            raise
        if len(outcomes) == 1:
            return next(iter(outcomes.values()))
        answers = {stream: iter(each) for stream, each in outcomes.items()}
        type_of = self._registry.type_of
        return [next(answers[type_of(each).name, each.aggregate_id]) for each in commands]

    async def ask(
        self, aggregate: str, aggregate_id: str, command_id: str, *, timeout_ms: int | None = None
    ) -> Found:
        """Tell what became of a command that was sent to an aggregate of the type named `aggregate`.

        Commands that are queued or being committed are waited for. Raises as `execute` does;
        OutcomeUnknown and DeadlineExceeded mean that it is not clear yet.
        """
        question = Ask(command_id, aggregate_id)
        question.check()
        seconds = self._deadline_seconds if timeout_ms is None else self._seconds(timeout_ms)
        partition = self._partitions[partition_of(aggregate_id, len(self._partitions))]
        self._check_home(partition)
        now = self._clock.monotonic()
        future: asyncio.Future[list[Outcome]] = self._loop.create_future()
        request = Request((question,), future, now, now + seconds)
        partition.submit(self._registry.types[aggregate], (aggregate, aggregate_id), request)
        outcome = (await future)[0]
        if isinstance(outcome, SeckillError):
            raise outcome
        return cast(Found, outcome)

    def close(self) -> None:
        """Refuse what comes from now on."""
        self._closed = True

    def _seconds(self, timeout_ms: int) -> float:
        if not 0 < timeout_ms <= TIMEOUT_MS_MAX:
            raise InvalidCommand(
                f"timeout_ms must be above 0 and at most {TIMEOUT_MS_MAX:,}, got {timeout_ms}"
            )
        return timeout_ms / 1_000

    def _group(self, commands: Sequence[Command]) -> dict[StreamKey, list[Command]]:
        """Check every command and gather them by stream, keeping their order."""
        if len(commands) > self._depth_max:
            raise InvalidCommand(
                f"a list may hold at most {self._depth_max:,} commands, got {len(commands):,}"
            )
        groups: dict[StreamKey, list[Command]] = {}
        last_type: type[Command] | None = None
        last_id = ""
        group: list[Command] = []
        for index, command in enumerate(commands):
            try:
                command.check()
                if type(command) is not last_type or command.aggregate_id != last_id:
                    stream = (self._registry.type_of(command).name, command.aggregate_id)
                    group = groups.setdefault(stream, [])
                    last_type, last_id = type(command), command.aggregate_id
            except InvalidCommand as error:
                raise InvalidCommand(f"command {index} of the list: {error}") from None
            group.append(command)
        return groups

    def _admit_groups(
        self, groups: dict[StreamKey, list[Command]]
    ) -> tuple[dict[StreamKey, Home], dict[StreamKey, list[Outcome]]]:
        """Admit all of a list or nothing of it, beside what goes to a partition that is stopped.

        Returns where the admitted ones go, and the outcomes of the others.
        """
        self._check_open()
        counts: dict[Home, int] = {}
        homes: dict[StreamKey, Home] = {}
        outcomes: dict[StreamKey, list[Outcome]] = {}
        for stream, group in groups.items():
            home = self._partitions[partition_of(stream[1], len(self._partitions))]
            stopped = home.stopped
            if stopped is not None:
                outcomes[stream] = [type(stopped)(str(stopped)) for _ in group]
                continue
            counts[home] = counts.get(home, 0) + len(group)
            homes[stream] = home
        for home, count in counts.items():
            self._check_room(home, count)
        for refused in outcomes.values():
            self._counters.count_told(refused)
        return homes, outcomes

    def _check_open(self) -> None:
        if self._closed:
            raise EngineClosed("the engine is closing; the command was not executed")

    def _check_home(self, partition: Home) -> None:
        self._check_open()
        stopped = partition.stopped
        if stopped is not None:
            self._counters.count_told([stopped])
            raise type(stopped)(str(stopped))
        self._check_room(partition, 1)

    def _check_room(self, partition: Home, count: int) -> None:
        if partition.queue_depth + count > self._depth_max:
            self._counters.overloaded += count
            raise Overloaded(partition.queue_depth, self._depth_max, RETRY_AFTER_SECONDS)
