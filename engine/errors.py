"""Every error a caller of the engine can meet.

A business "no" is not here: it is a value, `engine.cqrs.messages.Rejected`.

    SeckillError
    ├── ConfigError             settings, a flag or a file are wrong; nothing was started
    ├── InvalidCommand          refused at the door: malformed; nothing happened
    ├── CommandIdReused         the id already belongs to another request; nothing happened
    ├── Overloaded              refused at the door: queue full; nothing happened, retry later
    ├── DeadlineExceeded        waited too long in the queue; nothing happened
    ├── OutcomeUnknown          may or may not be done; repeat with the same id to learn which
    ├── EngineClosed            the engine is closing or closed; nothing happened
    ├── PartitionLost           another owner took the partition over; nothing happened
    ├── BrokerUnavailable       no broker of the cluster did it; met inside the cluster only
    ├── CommandFailed           the aggregate's own code raised; nothing happened
    ├── AggregateHalted         a broken invariant stopped this aggregate, and it alone
    └── StoreError
        ├── StoreUnavailable    rolled back or never begun; nothing happened
        ├── StoreLocked         another process has this store open for writing
        ├── SchemaMismatch      not a store of this program's version or settings
        ├── Fenced              a newer epoch owns the partition; nothing was written
        ├── WrongExpectedVersion  streams are not at the version the writer thought
        ├── ProjectionDiverged  a guarded row did not match; nothing was written
        ├── CommitOutcomeUnknown  failed at or after COMMIT; may be durable
        └── CorruptEvent        a stored commit does not match its checksum or schema
"""

from __future__ import annotations

from typing import Final, TypeAlias

StreamKey: TypeAlias = tuple[str, str]
"""(aggregate_type, aggregate_id): names one stream."""


class SeckillError(Exception):
    """Base of every error the engine raises on purpose."""


class ConfigError(SeckillError, ValueError):
    """A setting, flag or file is wrong. The message says what is allowed."""


class InvalidCommand(SeckillError, ValueError):
    """The command is malformed; it was refused before it was queued."""


class CommandIdReused(SeckillError):
    """The command id was already used for a different request."""

    def __init__(self, command_id: str) -> None:
        super().__init__(
            f"command id {command_id!r} was already used for a different request; "
            "a retry must repeat the request exactly, a new request needs a new id"
        )
        self.command_id = command_id


class Overloaded(SeckillError):
    """The bounded queue is full. Nothing was queued; retry after `retry_after_seconds`."""

    def __init__(self, queued: int, queue_max: int, retry_after_seconds: float) -> None:
        super().__init__(
            f"{queued:,} commands are waiting and the limit is {queue_max:,}; "
            f"retry in about {retry_after_seconds:g} s"
        )
        self.retry_after_seconds = retry_after_seconds


class DeadlineExceeded(SeckillError):
    """The deadline passed while the command was still queued. It was not executed."""


class OutcomeUnknown(SeckillError):
    """The deadline passed while the command's commit was in doubt or in flight.

    Repeat the command with the same id: the answer is the one it got, or it is executed now.
    """

    def __init__(self, command_id: str) -> None:
        super().__init__(
            f"the outcome of command {command_id!r} is not known yet; "
            "repeat it with the same id to learn it"
        )
        self.command_id = command_id


class EngineClosed(SeckillError):
    """The engine is closing or closed. The command was not executed."""


class PartitionLost(SeckillError):
    """Another owner took this partition over. The command was not executed here."""


class BrokerUnavailable(SeckillError):
    """No broker did it, or none said so: a message may have got there all the same."""


class CommandFailed(SeckillError):
    """The aggregate's `decide` raised; the command changed nothing. The cause is chained."""


class AggregateHalted(SeckillError):
    """A broken invariant stopped this aggregate. Others go on; an operator has to look."""

    def __init__(self, stream: StreamKey, reason: str) -> None:
        super().__init__(f"{stream[0]} {stream[1]!r} is stopped: {reason}")
        self.stream = stream
        self.reason = reason


class StoreError(SeckillError):
    """Base of what an event store raises."""


class StoreUnavailable(StoreError):
    """The store did not do it and certainly will not: rolled back, or never begun."""


class StoreLocked(StoreError):
    """Another process has this store open for writing."""


class SchemaMismatch(StoreError):
    """The store was made by another schema version or with other fixed settings."""


class Fenced(StoreError):
    """The writer's epoch is no longer the partition's. Nothing was written."""

    def __init__(self, partition: int, epoch: int) -> None:
        super().__init__(
            f"partition {partition} is no longer owned by epoch {epoch}; nothing was written"
        )
        self.partition = partition
        self.epoch = epoch


class WrongExpectedVersion(StoreError):
    """These streams are not at the version the commits were decided on. Nothing was written."""

    def __init__(self, streams: frozenset[StreamKey]) -> None:
        names = ", ".join(sorted(f"{kind} {name!r}" for kind, name in streams))
        super().__init__(f"stored version differs from the expected one: {names}")
        self.streams = streams


class ProjectionDiverged(StoreError):
    """A guarded row of an inline projection did not match. Nothing was written."""

    def __init__(self, stream: StreamKey, detail: str) -> None:
        super().__init__(f"{stream[0]} {stream[1]!r}: {detail}")
        self.stream = stream
        self.detail = detail


class CommitOutcomeUnknown(StoreError):
    """Something failed at or after COMMIT. The transaction may or may not be durable."""


class CorruptEvent(StoreError):
    """A stored commit or snapshot cannot be trusted. The message names it."""


SEND_AGAIN: Final = (Overloaded, DeadlineExceeded, OutcomeUnknown, StoreUnavailable)
"""Errors after which the same command is simply sent again: its id makes that safe."""
