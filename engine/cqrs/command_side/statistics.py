"""What the command side counts: per batch where it can be, never with a lock."""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

from engine.cqrs.command_side.batch import Batch, BatchLimits, CloseReason
from engine.cqrs.command_side.decide import Decision
from engine.cqrs.command_side.refusal_counts import RefusalCounts
from engine.cqrs.messages import Outcome
from engine.errors import DeadlineExceeded, OutcomeUnknown, Overloaded, PartitionLost

logger = logging.getLogger(__name__)

LATENCY_STEPS_AN_OCTAVE: Final = 8
"""Latencies are counted up to 2 ** (n / 8) microseconds: a bound is at most 9 % above the value."""


class Statistics(msgspec.Struct, frozen=True):
    """A snapshot of the counters since the engine was opened.

    accepted        commands whose events became durable, each counted once
    rejected        refusals by reason, first answers only
    repeated        repeated commands answered as the first time
    failed          commands answered with an error of their own (reused id, failing decide)
    overloaded      commands refused at the door because the queue was full
    expired         commands dropped from the queue at their deadline, not executed
    unknown         commands answered OutcomeUnknown
    batches         batches whose answers were published
    batch_sizes     number of batches by commands in them
    closed_by       number of batches by reason: size, delay, idle
    queue_depths    number of batches by commands left in their mailbox when they closed,
                    rounded down to a power of two
    rounds_waited   number of batches by transactions of others that went before them
    latencies_us    number of commands by the time from the arrival of the oldest command of their
                    batch to their answer, as upper bounds in microseconds; it errs on the high side
    transactions    transactions that became durable
    commit_seconds  time spent in those transactions, in all
    queue_depth     commands waiting now
    residents       aggregates in memory now
    conflicts       batches decided again because a stream had another version
    recoveries      unknown commit outcomes that were cleared up
    halted          aggregates stopped by a broken invariant now
    batch_limits    what bounds the batches of each partition now, by its number
    unserved        commands refused because their partition takes none: nobody owns it, or another
                    process took it over

    Those of a gateway are of all engines together, but for overloaded, expired, unknown and unserved:
    they count what this gateway told.
    """

    accepted: int
    rejected: dict[str, int]
    repeated: int
    failed: int
    overloaded: int
    expired: int
    unknown: int
    batches: int
    batch_sizes: dict[int, int]
    closed_by: dict[CloseReason, int]
    queue_depths: dict[int, int]
    rounds_waited: dict[int, int]
    latencies_us: dict[int, int]
    transactions: int
    commit_seconds: float
    queue_depth: int
    residents: int
    conflicts: int
    recoveries: int
    halted: int
    batch_limits: dict[int, BatchLimits] = {}
    unserved: int = 0


class Counters:
    """The running counts behind `Statistics`; written by the partitions of one engine."""

    def __init__(self) -> None:
        self.accepted = self.repeated = self.failed = 0
        self.overloaded = self.expired = self.unknown = self.unserved = 0
        self.transactions = self.conflicts = self.recoveries = 0
        self.commit_seconds = 0.0
        self.refusals: RefusalCounts | None = None
        self.rejected: Counter[str] = Counter()
        self.batch_sizes: Counter[int] = Counter()
        self.closed_by: Counter[CloseReason] = Counter()
        self.queue_depths: Counter[int] = Counter()
        self.rounds_waited: Counter[int] = Counter()
        self.latencies: Counter[int] = Counter()

    def count_batch(self, batch: Batch, decision: Decision, now: float) -> None:
        """Count one batch that is published `now`, in seconds of the monotonic clock."""
        size = len(batch.commands)
        self.batch_sizes[size] += 1
        self.closed_by[batch.reason] += 1
        depth = batch.queue_depth
        self.queue_depths[1 << (depth.bit_length() - 1) if depth else 0] += 1
        self.rounds_waited[batch.rounds_waited] += 1
        waited_us = max(1.0, (now - batch.slices[0][0].queued_at) * 1_000_000)
        self.latencies[math.ceil(math.log2(waited_us) * LATENCY_STEPS_AN_OCTAVE)] += size
        self.repeated += decision.repeated
        refused = len(decision.refused)
        for _, rejected in decision.refused.values():
            self.rejected[rejected.reason] += 1
        if refused and self.refusals is not None:
            self.refusals.add(batch.mailbox.stream, decision.refused)
        self.failed += decision.failed
        self.accepted += size - decision.repeated - refused - decision.failed - decision.asked
        if logger.isEnabledFor(logging.DEBUG):
            name, aggregate_id = batch.mailbox.stream
            logger.debug(
                "batch of %s %s: %d commands, %d events, %d refused, closed by %s, %d left waiting",
                *(name, aggregate_id, size, len(decision.events), refused, batch.reason, depth),
            )

    def count_told(self, outcomes: Iterable[Outcome]) -> None:
        """Count errors as they are told at a door, whoever they come from."""
        for each in outcomes:
            if isinstance(each, OutcomeUnknown):
                self.unknown += 1
            elif isinstance(each, DeadlineExceeded):
                self.expired += 1
            elif isinstance(each, Overloaded):
                self.overloaded += 1
            elif isinstance(each, PartitionLost):
                self.unserved += 1

    def snapshot(
        self,
        queue_depth: int,
        residents: int,
        halted: int,
        batch_limits: Mapping[int, BatchLimits] | None = None,
    ) -> Statistics:
        return Statistics(
            accepted=self.accepted,
            rejected=dict(self.rejected),
            repeated=self.repeated,
            failed=self.failed,
            overloaded=self.overloaded,
            expired=self.expired,
            unknown=self.unknown,
            batches=sum(self.batch_sizes.values()),
            batch_sizes=dict(sorted(self.batch_sizes.items())),
            closed_by=dict(self.closed_by),
            queue_depths=dict(sorted(self.queue_depths.items())),
            rounds_waited=dict(sorted(self.rounds_waited.items())),
            latencies_us={
                round(2 ** (step / LATENCY_STEPS_AN_OCTAVE)): count
                for step, count in sorted(self.latencies.items())
            },
            transactions=self.transactions,
            commit_seconds=self.commit_seconds,
            queue_depth=queue_depth,
            residents=residents,
            conflicts=self.conflicts,
            recoveries=self.recoveries,
            halted=halted,
            batch_limits=dict(batch_limits or {}),
            unserved=self.unserved,
        )
