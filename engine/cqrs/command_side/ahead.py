"""Decide a full batch while the one before it is being written.

A database that works off a transaction leaves this process nothing to do. What waits for the same
aggregate can be decided then, on the state which that transaction will leave (docs/decisions/0030).

Nothing of it shows before its own transaction begins: its commands count as queued, nobody is answered,
and when the transaction before it fails, or a deadline passes, they are queued as if nothing had been.
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

    @property
    def batches(self) -> Sequence[Batch]:
        """None or one."""
        return () if self._round is None else self._round.batches

    def begin(self, written: Round, limits: BatchLimits, turns: Iterable[Mailbox]) -> int:
        """Take the batch that can be decided while `written` is written, if there is one.

        It has to be a full batch of the one aggregate that is written, and nobody else may have a turn.
        Returns how many commands were dropped from the mailbox because their callers left.
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
        now = self._clock.monotonic()
        taken = close_batch(mailbox, limits, now, draining=False)
        if taken is None:
            return before - mailbox.depth
        self._round = Round([taken])
        return before - mailbox.depth - len(taken.commands)

    async def decide_beside(self, writing: Coroutine[Any, Any, T], written: Round) -> T:
        """What `writing` returns or raises; what `begin` took is decided meanwhile."""
        if self._round is None:
            return await writing
        task = asyncio.create_task(writing)
        try:
            # Its first statement goes first.
            await asyncio.sleep(0)
            await self._decide(written)
            return await task
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def take(self) -> Round | None:
        """The round that was decided, which is to be written now."""
        found, self._round = self._round, None
        if found is not None:
            found.began = self._clock.monotonic()
        return found

    def undo(self) -> None:
        """Queue the commands again; their aggregate knows too much and is to be loaded anew.

        Not before what is being written is there to be read: until then it counts as being loaded.
        """
        if (found := self.take()) is not None:
            (batch,) = found.batches
            batch.mailbox.put_back(batch.slices)
            batch.mailbox.resident, batch.mailbox.loading = None, True

    async def _decide(self, written: Round) -> None:
        if (ahead := self._round) is None:
            return
        ((_, unwritten),) = written.decided
        try:
            await self._decider.decide_ahead(ahead, unwritten)
        except Exception as error:
            # It is decided once more by itself; whatever is wrong shows there.
            logger.debug("%r cannot be decided ahead: %r", unwritten.resident.stream, error)
            self.undo()
