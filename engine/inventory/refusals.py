"""Writes down how many orders each SKU refused, by reason: one event a SKU and interval.

    refusals, counted in memory --once an interval--> CountRefusals --> refusals-counted.1

A refusal itself is no event: a crowd of a million that is sold out would otherwise write a million
of them. What a crash loses is at most the last interval's counts (docs/decisions/0018).
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from engine.clock import Clock
from engine.cqrs.command_side.refusal_counts import RefusalCounts
from engine.cqrs.messages import Command, Outcome
from engine.errors import (
    SEND_AGAIN,
    EngineClosed,
    Overloaded,
    PartitionLost,
    SeckillError,
)
from engine.inventory.commands import CountRefusals, Reserve, ReserveLine

logger = logging.getLogger(__name__)

COUNTED_COMMANDS: Final = (Reserve, ReserveLine)
COUNTED_REASONS: Final = ("sold_out", "over_limit", "paused", "closed")
"""The fields of CountRefusals. An unknown SKU has no stream to write to."""

COMMANDS_AT_ONCE: Final = 1_000
TRIES_AT_CLOSE: Final = 3

ExecuteMany = Callable[[Sequence[Command]], Awaitable[list[Outcome]]]


class RefusalRecorder:
    """Records until cancelled or the engine closes; then `close` writes what is left."""

    def __init__(
        self,
        counts: RefusalCounts,
        execute_many: ExecuteMany,
        every_seconds: float,
        clock: Clock,
        at_once: int = COMMANDS_AT_ONCE,
        is_mine: Callable[[str], bool] = lambda _: False,
    ) -> None:
        """`at_once`: commands in one list, which may be no longer than the queue.

        A SKU whose partition is refused as lost, and that `is_mine` all the same, is only not
        reached now.
        """
        self._is_mine = is_mine
        self._at_once = at_once
        self._counts = counts
        self._execute_many = execute_many
        self._every_seconds = every_seconds
        self._clock = clock
        self._pending: list[CountRefusals] = []

    async def run(self) -> None:
        while True:
            await self._clock.sleep(self._every_seconds)
            try:
                await self.record()
            except EngineClosed as error:
                logger.info("refusals are recorded no more: %s", error)
                return
            except SeckillError as error:
                logger.warning("refusals wait: %s", error)

    async def record(self) -> bool:
        """Write the counts down; false when some wait for another try, and newer ones behind them.

        Those of a partition that was lost are given up: whoever owns it counts its own. Raises
        EngineClosed.
        """
        if not self._pending:
            self._pending = [
                CountRefusals(uuid.uuid4().hex, stream[1], **reasons)
                for stream, reasons in self._counts.drain().items()
            ]
        while self._pending:
            sent = self._pending[: self._at_once]
            try:
                outcomes = await self._execute_many(sent)
            except Overloaded as error:
                logger.info("refusals wait: %s", error)
                return False
            waiting = [
                command
                for command, outcome in zip(sent, outcomes, strict=True)
                if self._is_to_wait(command, outcome)
            ]
            self._pending[: len(sent)] = waiting
            # One line for each reason, not for each SKU.
            for reason in sorted(
                {str(each) for each in outcomes if isinstance(each, SeckillError)}
            ):
                logger.warning("refusals are not recorded now: %s", reason)
            if waiting:
                return False
        return True

    def _is_to_wait(self, command: CountRefusals, outcome: Outcome) -> bool:
        if isinstance(outcome, PartitionLost):
            return self._is_mine(command.aggregate_id)
        return isinstance(outcome, SEND_AGAIN)

    async def close(self) -> None:
        """Write what was counted by now, as far as a few tries go."""
        try:
            for _ in range(TRIES_AT_CLOSE):
                # The first success may have been that of commands from before.
                if await self.record() and await self.record():
                    return
        except SeckillError as error:
            logger.info("the last refusals are not recorded: %s", error)
