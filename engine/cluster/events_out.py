"""Events for other systems: one partition's commits, in order, to the stream of events.

    commits after the checkpoint --one atomic batch--> stream --PubAck--> the next ones

The checkpoint is the newest message of the partition's subject, so it is lost exactly when the
stream is: whoever deletes the broker's disks gets everything again, from position 1. Where limits
have removed that message too, a key-value bucket beside the stream knows the position.

Every batch names the sequence of the message before it (Nats-Expected-Last-Subject-Sequence), and
is stored as a whole or refused. So a publisher that does not know the newest message publishes
nothing: neither one that was replaced, however late it goes on, nor one that has lost a PubAck.
Batches are also why many messages may be on their way although a later one cannot know the sequence
of the one before, and why they share one sync of the broker's disk.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Iterator, Sequence
from typing import Final, NoReturn

import msgspec
from nats.aio.client import Client
from nats.errors import Error as NatsError
from nats.js import JetStreamContext
from nats.js.api import Header, PubAck, RawStreamMsg
from nats.js.errors import APIError, NotFoundError

from engine.clock import Clock
from engine.cluster.cancelling import end_if_cancelled
from engine.cluster.events_messages import (
    EventMessage,
    MessageTooLong,
    is_of,
    messages_of,
    position_in,
)
from engine.cluster.events_stream import EventsStream, Incarnation
from engine.cqrs.command_side.port import Publishing
from engine.cqrs.event_store import StoredCommit
from engine.cqrs.query_side.subscription import Subscription
from engine.errors import BrokerUnavailable, ConfigError, StoreError

logger = logging.getLogger(__name__)

MESSAGES_MAX: Final = 64
"""In one batch, which is all that is on its way. The broker takes 1,000; beyond 64 the sync of the
disk is no longer what a message costs."""

BATCH_BYTES_MAX: Final = 4 * 1024 * 1024
"""As much as a disk writes in some 10 ms. A commit that is longer is a batch by itself."""

ACK_SECONDS_MAX: Final = 5.0
PAUSE_SECONDS: Final = 0.1
PAUSE_SECONDS_MAX: Final = 5.0
"""Between two tries: doubled from the one to the other."""

SAVE_SECONDS: Final = 5.0
"""How far the bucket's checkpoint may be behind the stream while there is no rest."""

CHECK_SECONDS: Final = 5.0
"""How often the stream is looked at when nothing is published, since its disks may be gone."""

REFUSALS: Final = frozenset({10071, 10164, 10201})
"""Codes of the broker: another message is the last one, or a message id is there already."""


class _Wait(Exception):
    """Nothing can be published for now."""


class _Refused(Exception):
    """The broker stored nothing: this publisher's idea of the stream is an old one."""


EXPECTED: Final = (
    NatsError,
    StoreError,
    ConfigError,
    BrokerUnavailable,
    OSError,
    MessageTooLong,
    _Wait,
)
"""What may go wrong; anything else is logged with its traceback."""


class EventsOutStatistics(msgspec.Struct, frozen=True):
    """What one publisher has done."""

    position: int | None
    """Of the newest commit that is in the stream; None while this publisher has not found it."""
    commits: int
    events: int
    messages: int
    """Published by this publisher, as are the two above."""
    refusals: int
    """Batches that were not stored because somebody else had published."""
    trouble: str
    """Why nothing is published now; empty when all is well."""


class _Checkpoint(msgspec.Struct, frozen=True):
    """What is in the bucket: `sequence` is that of the message of `position` in the stream."""

    stream: str
    position: int
    sequence: int


class _Head(msgspec.Struct, frozen=True):
    """Where the partition ends in the stream; `sequence` 0 stands for no message."""

    position: int
    sequence: int


class EventsOut:
    """Publishes one partition while `run` runs."""

    def __init__(
        self,
        client: Client,
        stream: EventsStream,
        subscription: Subscription,
        clock: Clock,
        ack_seconds_max: float = ACK_SECONDS_MAX,
    ) -> None:
        self._client = client
        self._js: JetStreamContext = client.jetstream(timeout=ack_seconds_max)
        self._stream = stream
        self._subscription = subscription
        self._clock = clock
        self._partition = subscription.partition
        self._subject = stream.subject(self._partition)
        self._created = ""
        self._saved = _Checkpoint("", 0, 0)
        self._revision = 0
        self._pause_seconds = PAUSE_SECONDS
        self._position: int | None = None
        self._commits = self._events = self._messages = self._refusals = 0
        self._trouble = ""

    def statistics(self) -> EventsOutStatistics:
        return EventsOutStatistics(
            self._position,
            self._commits,
            self._events,
            self._messages,
            self._refusals,
            self._trouble,
        )

    def state(self, newest: int) -> Publishing:
        """How far behind the newest commit of its partition it is."""
        behind = None if self._position is None else max(0, newest - self._position)
        return Publishing(self._partition, behind, self._trouble)

    async def run(self) -> None:
        """Until cancelled. Whatever cannot be done now, broker or store, is tried again."""
        while True:
            try:
                await self._follow(await self._find())
            except _Refused as error:
                self._refusals += 1
                logger.info("events of partition %d: %s", self._partition, error)
                await self._pause()
            except Exception as error:
                self._complain(error)
                await self._pause()

    def _complain(self, error: Exception) -> None:
        trouble = str(error) or type(error).__name__
        if trouble != self._trouble:
            logger.warning(
                "events of partition %d wait: %s",
                *(self._partition, trouble),
                exc_info=None if isinstance(error, EXPECTED) else error,
            )
        self._trouble = trouble

    async def _pause(self) -> None:
        pause, self._pause_seconds = (
            self._pause_seconds,
            min(2 * self._pause_seconds, PAUSE_SECONDS_MAX),
        )
        end_if_cancelled()
        await self._clock.sleep(pause)

    def _well(self) -> None:
        self._trouble = ""
        self._pause_seconds = PAUSE_SECONDS

    async def _find(self) -> _Head:
        """Read from the broker where to go on."""
        if not self._client.is_connected:
            raise _Wait("the broker cannot be reached")
        found = await self._stream.find(self._js)
        last = await self._last(self._stream.name, self._subject)
        await self._read_checkpoint(found)
        head = self._head(last)
        if head.position:
            await self._check_history(head, last)
        self._position = head.position
        return head

    async def _last(self, stream: str, subject: str) -> RawStreamMsg | None:
        # Asked of the leader: another server may not know the newest one yet.
        try:
            return await self._js.get_last_msg(stream, subject)
        except NotFoundError:
            return None

    async def _read_checkpoint(self, found: Incarnation) -> None:
        saved = await self._last(
            self._stream.checkpoint_stream, self._stream.checkpoint_subject(self._partition)
        )
        self._created = found.created
        self._revision = 0 if saved is None else saved.seq or 0
        self._saved = _Checkpoint(found.created, 0, 0)
        if saved is not None and saved.data:
            checkpoint = self._decode(saved.data)
            # One of a stream that is gone says nothing, nor does one of messages that are lost.
            if checkpoint.stream == found.created and checkpoint.sequence <= found.last_sequence:
                self._saved = checkpoint

    def _decode(self, saved: bytes) -> _Checkpoint:
        try:
            return msgspec.json.decode(saved, type=_Checkpoint)
        except msgspec.DecodeError as error:
            bucket, key = self._stream.checkpoints, f"events.{self._partition}"
            raise _Wait(
                f"{key} in the bucket {bucket} is no checkpoint ({error}): nobody else may write "
                f"there; delete it (nats kv del {bucket} {key}), and it goes on behind the newest "
                f"message of {self._subject}"
            ) from error

    def _head(self, last: RawStreamMsg | None) -> _Head:
        if last is None:
            return _Head(self._saved.position, 0)
        sequence = last.seq or 0
        position = position_in(last.headers)
        if position is None:
            logger.warning(
                "message %d of %s is none of ours: nobody else may publish to %s",
                *(sequence, self._stream.name, self._subject),
            )
            position = 0
        if self._saved.sequence < sequence:
            # Not behind the bucket: somebody may have repeated what limits had removed.
            position = max(position, self._saved.position)
        return _Head(position, sequence)

    async def _check_history(self, head: _Head, last: RawStreamMsg | None) -> None:
        """Raise _Wait when what was published is not in the store: it is not the one it was."""
        page = await self._subscription.read(head.position - 1, 1)
        published = (last and last.headers) or {}
        if not page or (position_in(published) == head.position and not is_of(page[0], published)):
            raise _Wait(
                f"position {head.position} of {self._subject} is not the one in the event store, "
                "which seems to be another or an older one; delete the stream "
                f"{self._stream.name} to have it filled from this store"
            )

    async def _follow(self, head: _Head) -> None:
        """Publish what comes. Returns when it is time to look at the stream again."""
        looked_at = saved_at = self._clock.monotonic()
        while True:
            end_if_cancelled()
            page = await self._subscription.wait_once(head.position, MESSAGES_MAX)
            for commits, messages in _batches(page, self._client.max_payload):
                head = await self._publish(head, commits, messages)
                self._well()
                looked_at = self._clock.monotonic()
            if not page:
                self._well()
            now = self._clock.monotonic()
            if head.position > self._saved.position and (
                not page or now - saved_at >= SAVE_SECONDS
            ):
                await self._save(head)
                saved_at = now
            elif now - looked_at >= CHECK_SECONDS:
                return

    async def _publish(
        self, head: _Head, commits: Sequence[StoredCommit], messages: Sequence[EventMessage]
    ) -> _Head:
        """Store all or nothing behind `head`. Raises _Refused, NatsError, _Wait."""
        if not self._client.is_connected:
            # The client would keep it, and send it at some time later.
            raise _Wait("the broker cannot be reached")
        try:
            async with self._stream.batches:
                ack = await self._send(head.sequence, messages)
        except APIError as error:
            _raise_refusal(error)
        if ack.duplicate:
            raise _Refused(f"message {ack.seq} has the same id")
        self._position = position = commits[-1].position
        self._commits += len(commits)
        self._events += sum(each.last_version - each.first_version + 1 for each in commits)
        self._messages += len(messages)
        return _Head(position, ack.seq)

    async def _send(self, after_sequence: int, messages: Sequence[EventMessage]) -> PubAck:
        batch = uuid.uuid4().hex
        for number, message in enumerate(messages, 1):
            headers = dict(message.headers)
            if number == 1:
                headers[Header.EXPECTED_LAST_SUBJECT_SEQUENCE] = str(after_sequence)
            if len(messages) > 1:
                headers[Header.BATCH_ID] = batch
                headers[Header.BATCH_SEQUENCE] = str(number)
            if number < len(messages):
                await self._client.publish(self._subject, message.payload, headers=headers)
                continue
            if len(messages) > 1:
                headers[Header.BATCH_COMMIT] = "1"
            return await self._js.publish(
                self._subject, message.payload, stream=self._stream.name, headers=headers
            )
        raise AssertionError("a batch without messages")

    async def _save(self, head: _Head) -> None:
        """Note the position in the bucket. Raises _Refused when somebody else did, NatsError."""
        checkpoint = _Checkpoint(self._created, head.position, head.sequence)
        try:
            ack = await self._js.publish(
                self._stream.checkpoint_subject(self._partition),
                msgspec.json.encode(checkpoint),
                stream=self._stream.checkpoint_stream,
                headers={Header.EXPECTED_LAST_SUBJECT_SEQUENCE: str(self._revision)},
            )
        except APIError as error:
            _raise_refusal(error)
        self._saved, self._revision = checkpoint, ack.seq


def _raise_refusal(error: APIError) -> NoReturn:
    if error.err_code in REFUSALS:
        raise _Refused(f"somebody else has published: {error.description}") from error
    raise error


def _batches(
    page: Sequence[StoredCommit], bytes_max: int
) -> Iterator[tuple[list[StoredCommit], list[EventMessage]]]:
    """Commits with their messages, in order; the messages of a commit are never apart.

    What comes before a commit that cannot be published is given before its error is raised.
    """
    commits: list[StoredCommit] = []
    messages: list[EventMessage] = []
    length = 0
    for commit in page:
        try:
            more = messages_of(commit, bytes_max)
        except (MessageTooLong, StoreError):
            if commits:
                yield commits, messages
            raise
        longer = sum(len(message.payload) for message in more)
        if commits and (
            len(messages) + len(more) > MESSAGES_MAX or length + longer > BATCH_BYTES_MAX
        ):
            yield commits, messages
            commits, messages, length = [], [], 0
        commits.append(commit)
        messages += more
        length += longer
    if commits:
        yield commits, messages
