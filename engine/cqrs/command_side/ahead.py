"""Decide a full batch while the one before it is being written.

A database that works off a transaction leaves this process nothing to do. What waits for the same
aggregate can be decided then, on the state which that transaction will leave (docs/decisions/0030).

It is in flight like the batch before it: nobody is answered before its own events are durable. When the
transaction before it fails, or when it cannot be decided, it is queued again as if nothing had been.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Iterable, Sequence
from typing import Any, Final, TypeVar

from engine.clock import Clock
from engine.cqrs.command_side.batch import Batch, BatchLimits, close_batch
from engine.cqrs.command_side.mailbox import Mailbox
from engine.cqrs.command_side.repository import Repository
from engine.cqrs.command_side.rounds import Decider, Round

T = TypeVar("T")

logger = logging.getLogger(__name__)

COMMANDS_MIN: Final = 250
"""From here on it pays; at 50 and 100 no difference was shown (docs/decisions/0030)."""


class Ahead:
    """The round of one partition that is decided while another one is written, if there is one."""

    def __init__(
        self, decider: Decider, repository: Repository, clock: Clock, *, is_on: bool
    ) -> None:
        self._is_on = is_on
        self._decider = decider
        self._repository = repository
        self._clock = clock
        self._round: Round | None = None
        self._has_touched = False

    @property
    def batches(self) -> Sequence[Batch]:
        """None or one."""
        return () if self._round is None else self._round.batches

    def begin(self, written: Round, limits: BatchLimits, turns: Iterable[Mailbox]) -> int:
        """Take the batch that can be decided while `written` is written, if there is one.

        It has to be a full batch of the one aggregate that is written, and nobody else may have a turn.
        Returns how many commands left the mailbox.
        """
        if not self._is_on or limits.size_max < COMMANDS_MIN:
            return 0
        if len(written.batches) != 1 or not written.commits:
            return 0
        ((batch, decision),) = written.decided
        mailbox = batch.mailbox
        before = mailbox.depth
        if before < limits.size_max or any(each is not mailbox for each in turns):
            return 0
        if self._repository.snapshot_is_due(decision.resident):
            # It is taken when everything is durable.
            return 0
        taken = close_batch(mailbox, limits, self._clock.monotonic(), draining=False)
        self._round = None if taken is None else Round([taken])
        return before - mailbox.depth

    async def decide_beside(self, writing: Coroutine[Any, Any, T], written: Round) -> T:
        """What `writing` returns or raises; what `begin` took is decided meanwhile."""
        if self._round is None:
            return await writing
        task = asyncio.create_task(writing)
        try:
            # Its first statement goes first.
            await asyncio.sleep(0)
            await self._decide(self._round, written)
            return await task
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    @property
    def is_decided(self) -> bool:
        return self._round is not None and bool(self._round.decided)

    def take(self) -> Round | None:
        """The round that was decided, which is to be written now."""
        found, self._round = self._round, None
        if found is not None:
            found.began = self._clock.monotonic()
        return found

    def undo(self) -> int:
        """Queue the commands again; returns how many. Only once the transaction before them has ended:
        the aggregate may know too much, and is then loaded anew."""
        if (found := self.take()) is None:
            return 0
        (batch,) = found.batches
        before = batch.mailbox.depth
        batch.mailbox.put_back(batch.slices)
        if self._has_touched:
            batch.mailbox.resident = None
        return batch.mailbox.depth - before

    async def _decide(self, ahead: Round, written: Round) -> None:
        ((_, unwritten),) = written.decided
        (batch,) = ahead.batches
        self._has_touched = False
        if batch.resident.has_past([each.id for each in batch.commands]):
            # Who waits for the transaction before must not wait for that.
            return
        self._has_touched = True
        try:
            await self._decider.decide_ahead(ahead, unwritten)
        except Exception as error:
            # It is decided once more by itself; whatever is wrong shows there.
            logger.debug("%r cannot be decided ahead: %r", batch.mailbox.stream, error)
