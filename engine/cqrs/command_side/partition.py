"""The loop of one partition: mailbox -> batch -> decide -> commit -> publish.

`Partition.run` is the only place where that order is written. One task runs it, so a partition has
one writer; everything else here brings work to it or takes work away from it.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

from engine.clock import Clock
from engine.cqrs.aggregate import AggregateType
from engine.cqrs.command_side.ahead import Ahead
from engine.cqrs.command_side.alarm import Alarm
from engine.cqrs.command_side.batch import Batch, Pacer, close_batch
from engine.cqrs.command_side.command_source import CommandSource
from engine.cqrs.command_side.commit import Committer
from engine.cqrs.command_side.decide import Refusals
from engine.cqrs.command_side.expiry import expire_in_flight, expire_queued, next_deadline
from engine.cqrs.command_side.loader import Loader
from engine.cqrs.command_side.mailbox import Mailbox, Request
from engine.cqrs.command_side.publish import Publisher, publish_error, publish_unavailable
from engine.cqrs.command_side.repository import Repository
from engine.cqrs.command_side.residents import Residents
from engine.cqrs.command_side.rounds import Decider, Round
from engine.cqrs.command_side.statistics import Counters
from engine.cqrs.event_store import NewCommit
from engine.cqrs.messages import Command
from engine.errors import (
    AggregateHalted,
    EngineClosed,
    Fenced,
    OutcomeUnknown,
    PartitionLost,
    SeckillError,
    StoreError,
    StoreUnavailable,
    StreamKey,
    WrongExpectedVersion,
)

logger = logging.getLogger(__name__)

CONFLICTS_MAX: Final = 5
"""Version races in a row after which a batch is given up: with a fence there should be none."""


class Partition:
    """One writer for a fixed slice of the aggregates.

    `queue_depth` is how many commands wait in all its mailboxes, `limits` what bounds its batches
    now. `stopped` says why it takes no more commands, None while it does.
    """

    def __init__(
        self,
        committer: Committer,
        repository: Repository,
        residents: Residents,
        pacer: Pacer,
        refusals: Refusals,
        clock: Clock,
        counters: Counters,
        committed: Callable[[Sequence[NewCommit]], None],
        source: CommandSource | None = None,
        *,
        decides_ahead: bool = False,
    ) -> None:
        """`committed` is told of what each transaction made durable, once its buyers are answered;
        `source` marks how far the commands of a broker are worked off. `decides_ahead` pays where
        another process works off the transactions."""
        self._source = source
        self._committed = committed
        self._committer = committer
        self._repository = repository
        self._residents = residents
        self._pacer = pacer
        self.limits = pacer.limits(0, 0, clock.monotonic())
        self._refusals = refusals
        self._clock = clock
        self._counters = counters
        self._turns: deque[Mailbox] = deque()
        self._round = 0
        self._in_flight: Sequence[Batch] = ()
        self._decider = Decider(repository, refusals, committer, clock, self._halt)
        self._ahead = Ahead(self._decider, repository, clock, is_on=decides_ahead)
        self._wake = asyncio.Event()
        self._publisher = Publisher()
        self._loader = Loader(repository, clock, self._ready, self._wake.set)
        self._draining = False
        self.stopped: SeckillError | None = None
        self._batch_due = Alarm(clock, self._wake.set)
        # One serves all requests of the partition: one per order would cost more than deciding it.
        self._deadline = Alarm(clock, self._expire)
        self.queue_depth = 0

    async def run(self) -> None:
        """Work until drained. Whatever stops it, every caller is answered."""
        try:
            while (found := await self._next_round()) is not None:
                left_out = await self._write(found)
                if left_out or not self._ahead.is_decided:
                    self._undo_ahead()
                self._publish(found, left_out)
                self._in_flight = ()
                self._tell_pacer(found, wrote=bool(found.commits) and not left_out)
                if not self._ahead.batches:
                    # Everything resident is durable: the only time to snapshot.
                    residents = (batch.mailbox.resident for batch, _ in found.decided)
                    await self._repository.save_due(residents)
                    self._residents.evict()
            if self._source is None:
                # So that the next start has little to replay; in a cluster the next owner waits.
                residents = (each.resident for each in self._residents)
                await self._repository.save_due(residents, closing=True)
        except Fenced as error:
            self._stop(PartitionLost(str(error)), in_doubt=False)
        except PartitionLost as error:
            self._stop(error, in_doubt=True)
        except Exception as error:
            logger.exception("partition %d stopped", self._committer.lease.partition)
            self._stop(EngineClosed(f"the partition stopped: {error!r}"), in_doubt=True)
        finally:
            self._stop(EngineClosed("the engine is closed"), in_doubt=True)

    def submit(self, aggregate: AggregateType[Any], stream: StreamKey, request: Request) -> None:
        """Queue a request, whose bounds the caller has checked, or answer that it is halted."""
        mailbox = self._residents.mailbox(aggregate, stream)
        if (halted := mailbox.halted) is not None:
            request.answer(0, [AggregateHalted(stream, halted.reason) for _ in request.commands])
            return
        if not mailbox.queue and not mailbox.loading:
            if mailbox.resident is None:
                self._loader.start(mailbox)
            else:
                self._give_turn(mailbox)
        mailbox.put(request)
        self.queue_depth += len(request.commands)
        self._wake.set()
        if request.deadline < self._deadline.at:
            self._deadline.set(request.deadline)

    def nudge(self) -> None:
        """Have the loop look whether anything is due."""
        self._wake.set()

    def drain(self) -> None:
        """Finish what is queued, without waiting for batches to fill, then end `run`."""
        self._draining = True
        self._wake.set()

    def waiting(self, stream: StreamKey) -> Iterator[tuple[int, Command]]:
        """Every command of `stream` that waits: 0 while it is being written, else its place from 1."""
        mailbox = self._residents.find(stream)
        for batch in self._in_flight:
            if batch.mailbox is mailbox:
                yield from ((0, each) for each in batch.commands)
        place = 0
        for request, start, stop in mailbox.queue if mailbox is not None else ():
            for command in request.commands[start:stop]:
                place += 1
                yield place, command

    def may_know(self, stream: StreamKey, command_id: str) -> bool:
        """False only if the command was surely never queued here, or was refused long ago."""
        mailbox = self._residents.find(stream)
        if mailbox is None or (resident := mailbox.resident) is None or mailbox.queue:
            return True
        if any(each.mailbox is mailbox for each in self._in_flight):
            return True
        if command_id in resident.answers:
            return True
        if any(command_id in each for each in self._refusals.of(stream)):
            return True
        return resident.has_past([command_id])

    # -- mailbox -> batch -> decide

    async def _next_round(self) -> Round | None:
        """The round that was decided ahead, or the next one as soon as it is due; None once drained."""
        if (ahead := self._ahead.take()) is not None:
            (batch,) = self._in_flight = ahead.batches
            self._round += 1
            self._residents.touch(batch.mailbox, ahead.began)
            # This was its turn; whoever came meanwhile has the next one.
            self._end_turn(batch.mailbox)
            if batch.mailbox.queue:
                self._give_turn(batch.mailbox)
            self._pace()
            return ahead
        batches = await self._next_batches()
        if batches is None:
            return None
        self._in_flight = batches
        return await self._decider.decide(batches)

    async def _next_batches(self) -> list[Batch] | None:
        """Wait until a batch is due; None once drained."""
        while True:
            self._wake.clear()
            self._pace()
            if batches := self._close_batches():
                return batches
            if self._source is not None and self._source.is_due:
                return []
            if self._draining and not self._turns and not self._loader.busy:
                return None
            self._batch_due.set(self._oldest_queued() + self.limits.delay_seconds_max)
            await self._wake.wait()

    def _close_batches(self) -> list[Batch]:
        """One round: every waiting aggregate has a turn, at most a batch each, oldest first."""
        now = self._clock.monotonic()
        batches: list[Batch] = []
        this_round, self._round = self._round, self._round + 1
        for _ in range(len(self._turns)):
            if len(batches) == self.limits.aggregates_max:
                break
            mailbox = self._turns.popleft()
            mailbox.has_turn = False
            before = mailbox.depth
            batch = close_batch(mailbox, self.limits, now, draining=self._draining)
            self.queue_depth -= before - mailbox.depth
            if batch is not None:
                batch.rounds_waited = this_round - mailbox.turn_since
                batches.append(batch)
                self._residents.touch(mailbox, now)
            if mailbox.queue:
                # One whose batch is still filling has waited since it got its turn.
                self._give_turn(mailbox, None if batch is not None else mailbox.turn_since)
        if not batches:
            self._round = this_round
        return batches

    def _pace(self) -> None:
        now = self._clock.monotonic()
        self.limits = self._pacer.limits(self.queue_depth, len(self._turns), now)

    def _tell_pacer(self, found: Round, *, wrote: bool) -> None:
        commands = sum(len(each.commands) for each in found.batches)
        if commands:
            now = self._clock.monotonic()
            self._pacer.round_over(commands, now - found.began, now, wrote=wrote)

    def _give_turn(self, mailbox: Mailbox, since: int | None = None) -> None:
        # Once in the round at most: a transaction holds at most one commit a stream.
        if not mailbox.has_turn:
            mailbox.has_turn = True
            mailbox.turn_since = self._round if since is None else since
            self._turns.append(mailbox)

    def _end_turn(self, mailbox: Mailbox) -> None:
        if mailbox.has_turn:
            mailbox.has_turn = False
            self._turns.remove(mailbox)

    # -- commit and publish

    async def _write(self, found: Round) -> Mapping[StreamKey, StoreError]:
        """One transaction, if there is anything to write; the next round may be decided meanwhile."""
        source = self._source
        mark = None if source is None else source.mark(found.batches)
        self.queue_depth -= self._ahead.begin(found, self.limits, self._turns)
        self._in_flight = (*found.batches, *self._ahead.batches)
        writing = self._committer.write(found.commits, mark)
        left_out = await self._ahead.decide_beside(writing, found)
        if source is not None and mark is not None and self._committer.lease.source == mark:
            source.stored(mark)
        return left_out

    def _undo_ahead(self) -> None:
        written = [each for each in self._in_flight if each not in self._ahead.batches]
        self._in_flight = written
        self.queue_depth += self._ahead.undo()

    def _publish(self, found: Round, left_out: Mapping[StreamKey, StoreError]) -> None:
        for batch, decision in found.decided:
            error = left_out.get(batch.mailbox.stream)
            if error is None:
                batch.mailbox.conflicts = 0
                decision.resident.note_durable(decision.first_version, decision.events)
                self._refusals.remember(batch.mailbox.stream, decision.refused)
                self._counters.count_batch(batch, decision, self._clock.monotonic())
                self._publisher.publish(batch, decision.outcomes)
                if batch.mailbox.resident is None:
                    self._reload_if_waiting(batch.mailbox)
            elif isinstance(error, WrongExpectedVersion):
                self._decide_again(batch, error)
            elif isinstance(error, StoreUnavailable):
                self._give_up(batch, error)
            else:
                self._halt(batch, AggregateHalted(batch.mailbox.stream, str(error)))
        if found.commits:
            self._committed([each for each in found.commits if each.stream not in left_out])

    def _give_up(self, batch: Batch, error: StoreUnavailable) -> None:
        """Nothing was written: throw away what memory knew beyond the disk."""
        batch.mailbox.resident = None
        publish_unavailable(batch, error)
        self._reload_if_waiting(batch.mailbox)

    def _decide_again(self, batch: Batch, error: WrongExpectedVersion) -> None:
        """Drop the aggregate, replay it, and decide the same commands on what is true now."""
        mailbox = batch.mailbox
        mailbox.resident = None
        mailbox.conflicts += 1
        self._counters.conflicts += 1
        if mailbox.conflicts < CONFLICTS_MAX:
            before = mailbox.depth
            mailbox.put_back(batch.slices)
            self.queue_depth += mailbox.depth - before
        else:
            mailbox.conflicts = 0
            publish_error(batch, lambda _: WrongExpectedVersion(error.streams))
        self._reload_if_waiting(mailbox)

    def _halt(self, batch: Batch, error: AggregateHalted) -> None:
        publish_error(batch, lambda _: AggregateHalted(error.stream, error.reason))
        self._halt_mailbox(batch.mailbox, error)

    def _halt_mailbox(self, mailbox: Mailbox, error: AggregateHalted) -> None:
        """Stop one aggregate: answer what waits for it, refuse what comes."""
        logger.error("%s", error)
        mailbox.halted, mailbox.resident = error, None
        self._empty(mailbox, lambda: AggregateHalted(error.stream, error.reason))

    # -- loading

    def _ready(self, mailbox: Mailbox, halted: AggregateHalted | None) -> None:
        if halted is not None:
            self._halt_mailbox(mailbox, halted)
        elif mailbox.queue:
            self._give_turn(mailbox)

    def _reload_if_waiting(self, mailbox: Mailbox) -> None:
        self._end_turn(mailbox)
        if mailbox.queue:
            self._loader.start(mailbox)

    # -- timers

    def _oldest_queued(self) -> float:
        return min(
            (each.queue[0][0].queued_at for each in self._turns if each.queue), default=math.inf
        )

    def _expire(self) -> None:
        """Answer whoever waited too long, and set the alarm for the next one."""
        # What is known is told first: a list may have one part in each state.
        self._publisher.flush()
        now = self._clock.monotonic()
        self._counters.unknown += expire_in_flight(self._in_flight, now)
        for mailbox in self._residents:
            if mailbox.queue:
                self._counters.expired += expire_queued(mailbox, now)
                self.queue_depth -= mailbox.drop_finished()
        self._deadline.set(next_deadline(self._in_flight, self._residents))

    # -- stopping

    def _empty(self, mailbox: Mailbox, make_error: Callable[[], SeckillError]) -> None:
        """Answer everything that waits in `mailbox` with an error."""
        for request, start, stop in mailbox.queue:
            request.answer(start, [make_error() for _ in range(start, stop)])
        mailbox.queue.clear()
        self.queue_depth -= mailbox.depth
        mailbox.depth = 0

    def _stop(self, error: SeckillError, *, in_doubt: bool) -> None:
        """Answer everybody and take no more. Idempotent: the first reason stays."""
        self._publisher.flush()
        self._undo_ahead()
        if self.stopped is None:
            self.stopped = error
        reason = self.stopped
        for batch in self._in_flight:
            if in_doubt:
                publish_error(batch, lambda command: OutcomeUnknown(command.id))
            else:
                publish_error(batch, lambda _: type(reason)(str(reason)))
        self._in_flight = ()
        for mailbox in self._residents:
            self._empty(mailbox, lambda: type(reason)(str(reason)))
        self._residents.clear()
        self._turns.clear()
        self._loader.cancel()
        self._batch_due.set(math.inf)
        self._deadline.set(math.inf)
