"""One round of a partition: batches that share a transaction, and what was decided of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from engine.clock import Clock
from engine.cqrs.command_side.batch import Batch
from engine.cqrs.command_side.commit import Committer
from engine.cqrs.command_side.decide import Decision, Refusals, decide
from engine.cqrs.command_side.publish import publish_unavailable
from engine.cqrs.command_side.repository import Repository
from engine.cqrs.event_store import NewCommit
from engine.errors import AggregateHalted, StoreUnavailable

COMMANDS_AT_ONCE: Final = 250
"""Decided ahead before the event loop looks at the network again: about 0.3 ms, which is how long the
transaction that is being written may have to wait for its next statement."""


class Round:
    """`batches` of different aggregates. `decided` and `commits` are of those that could be decided.

    `began`, in seconds of the monotonic clock, is since when it keeps the partition busy.
    """

    __slots__ = ("batches", "began", "commits", "decided")

    def __init__(self, batches: list[Batch], began: float = 0.0) -> None:
        self.batches = batches
        self.began = began
        self.decided: list[tuple[Batch, Decision]] = []
        self.commits: list[NewCommit] = []

    def add(self, batch: Batch, decision: Decision, commit: NewCommit | None) -> None:
        self.decided.append((batch, decision))
        if commit is not None:
            self.commits.append(commit)


class Decider:
    """Decides the rounds of one partition. `halt` stops an aggregate that cannot be decided."""

    def __init__(
        self,
        repository: Repository,
        refusals: Refusals,
        committer: Committer,
        clock: Clock,
        halt: Callable[[Batch, AggregateHalted], None],
    ) -> None:
        self._repository = repository
        self._refusals = refusals
        self._committer = committer
        self._clock = clock
        self._halt = halt

    async def decide(self, batches: list[Batch]) -> Round:
        """Decide every batch; an aggregate that cannot be decided is stopped, and it alone."""
        found = Round(batches, self._clock.monotonic())
        ready = await self._recall(batches)
        at_us = self._clock.wall_us()
        for batch in ready:
            resident = batch.resident
            try:
                decision = decide(resident, batch.commands, self._refusals, at_us)
                commit = self._committer.prepare(decision)
            except Exception as error:
                halted = error if isinstance(error, AggregateHalted) else None
                self._halt(batch, halted or AggregateHalted(resident.stream, repr(error)))
            else:
                found.add(batch, decision, commit)
        return found

    async def decide_ahead(self, ahead: Round, unwritten: Decision) -> None:
        """Decide the one batch of `ahead` on the state after `unwritten`, a few commands at a time.

        Raises whatever keeps it from being decided: its aggregate is unusable then.
        """
        (batch,) = ahead.batches
        resident = batch.resident
        at_us = self._clock.wall_us()
        decision = Decision(resident)
        for start in range(0, len(batch.commands), COMMANDS_AT_ONCE):
            commands = batch.commands[start : start + COMMANDS_AT_ONCE]
            decide(resident, commands, self._refusals, at_us, decision, unwritten.refused)
            await asyncio.sleep(0)
        ahead.add(batch, decision, self._committer.prepare(decision))

    async def _recall(self, batches: list[Batch]) -> list[Batch]:
        """Have the answers that came before a snapshot at hand; leave out whose cannot be read."""
        ready: list[Batch] = []
        for batch in batches:
            try:
                await self._repository.recall(batch.resident, batch.commands)
            except AggregateHalted as error:
                self._halt(batch, error)
            except StoreUnavailable as error:
                # Nothing was decided, so the aggregate is as true as before.
                publish_unavailable(batch, error)
            else:
                ready.append(batch)
        return ready
