"""How a process manager's reaction sends commands: until each is answered, or out of reach."""

from __future__ import annotations

import logging
import math
import uuid
from collections.abc import Awaitable, Callable
from typing import Final, TypeAlias

from engine.clock import Clock
from engine.cqrs.messages import Answer, Command
from engine.cqrs.partitioning import partition_of
from engine.errors import SEND_AGAIN, EngineClosed, PartitionLost, StreamKey

logger = logging.getLogger(__name__)

NAMESPACE: Final = uuid.UUID("5ec1c111-0000-4000-8000-000000000000")
"""Of derived command ids; any constant will do, as long as it stays the same."""

RETRY_SECONDS: Final = 0.2

PATIENCE_SECONDS: Final = 5.0
"""How long a command to another partition is sent again before that counts as out of reach."""

Execute: TypeAlias = Callable[[Command], Awaitable[Answer]]


class Waits(Exception):
    """The partition that a command is for is out of reach now. The text says why."""


class Reach:
    """Which other partitions are out of reach of those that react to the events of partition `own`.

    One that is, is not asked by everybody: only by whoever probes, and until the first one fails.
    """

    def __init__(self, own: int, partitions: int) -> None:
        self._own = own
        self._partitions = partitions
        self._lost: dict[int, str] = {}
        self._probed: set[int] = set()

    def begin_probing(self) -> None:
        """Each partition that is out of reach may be asked again."""
        self._probed.clear()

    def is_elsewhere(self, command: Command) -> bool:
        return self._partition_of(command) != self._own

    def check(self, command: Command, *, is_probe: bool) -> None:
        """Raises Waits when its partition is out of reach and is not to be asked now."""
        number = self._partition_of(command)
        if number in self._lost and (not is_probe or number in self._probed):
            raise Waits(self._lost[number])

    def lost(self, command: Command, error: Exception, *, is_probe: bool) -> Waits:
        """Note that it could not be delivered; returns what to raise."""
        number = self._partition_of(command)
        if is_probe:
            self._probed.add(number)
        if number not in self._lost:
            logger.warning("partition %d is out of reach of %d: %s", number, self._own, error)
        self._lost[number] = str(error)
        return Waits(str(error))

    def found(self, command: Command) -> None:
        """Note that it was answered."""
        if self._lost and self._lost.pop(number := self._partition_of(command), None) is not None:
            logger.info("partition %d is in reach of %d again", number, self._own)

    def _partition_of(self, command: Command) -> int:
        return partition_of(command.aggregate_id, self._partitions)


class Send:
    """Sends the commands of one reaction, until each of them is answered."""

    def __init__(
        self,
        execute: Execute,
        manager: str,
        stream: StreamKey,
        version: int,
        clock: Clock,
        reach: Reach | None = None,
        *,
        is_probe: bool = False,
    ) -> None:
        """`stream` and `version` name the event that is reacted to. Without a `reach` every command is
        sent again without end; one that is a probe asks once, also where nobody was in reach."""
        self._execute = execute
        self._seed = f"{manager}/{stream[0]}/{stream[1]}/{version}"
        self._clock = clock
        self._reach = reach
        self._is_probe = is_probe

    def id(self, target: str, number: int = 0) -> str:
        """The id of the command to `target`: the same whenever this event is reacted to."""
        return uuid.uuid5(NAMESPACE, f"{self._seed}/{target}/{number}").hex

    async def __call__(self, command: Command) -> Answer:
        """Execute a command. Raises what no repetition would cure, Waits, and PartitionLost and
        EngineClosed of its own partition."""
        reach = self._reach
        if reach is None or not reach.is_elsewhere(command):
            return await self._until_answered(command, math.inf)
        reach.check(command, is_probe=self._is_probe)
        patience = 0.0 if self._is_probe else PATIENCE_SECONDS
        try:
            answer = await self._until_answered(command, self._clock.monotonic() + patience)
        except (*SEND_AGAIN, PartitionLost, EngineClosed) as error:
            raise reach.lost(command, error, is_probe=self._is_probe) from error
        reach.found(command)
        return answer

    async def _until_answered(self, command: Command, give_up_at: float) -> Answer:
        while True:
            try:
                return await self._execute(command)
            except SEND_AGAIN as error:
                if self._clock.monotonic() >= give_up_at:
                    raise
                logger.info("%s is sent again: %s", type(command).__name__, error)
                await self._clock.sleep(RETRY_SECONDS)
