"""The connection to the brokers, and the stream of commands. The only place that knows JetStream.

Replication, persistence, redelivery and the life of consumers are the broker's. Nothing that a buyer was
told depends on it: it carries commands that nobody has answered yet.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final, NamedTuple

import nats
import nats.errors
import nats.js.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.js.api import (
    AckPolicy,
    ConsumerConfig,
    DeliverPolicy,
    DiscardPolicy,
    RetentionPolicy,
    StorageType,
    StreamConfig,
    StreamInfo,
)

from engine.cluster.cancelling import cancellable
from engine.cluster.client_errors import CLIENT_ERRORS, unavailable
from engine.cluster.credentials import check_credentials
from engine.cluster.durability import check_durability
from engine.cluster.pull_consumer import PullConsumer
from engine.cluster.streams import bring_up_to, check_stream, refusal
from engine.cluster_settings import ClusterSettings
from engine.errors import BrokerUnavailable, ConfigError

logger = logging.getLogger(__name__)

CONNECT_SECONDS_MAX: Final = 10.0
REQUEST_SECONDS_MAX: Final = 3.0
RECONNECT_SECONDS: Final = 0.2
PING_SECONDS: Final = 2
"""A broker that hangs is left after about three of these."""

MESSAGE_AGE_SECONDS_MAX: Final = 900.0
"""How long a message is kept: longer than the longest deadline of a command, after which nobody
executes it."""

DUPLICATE_SECONDS: Final = 120.0
"""How long the broker knows a message id. A gateway gives up publishing a message long before."""

CONSUMER_IDLE_SECONDS: Final = 30.0
"""After so long without its owner the broker forgets a consumer."""

PENDING_BYTES_MAX: Final = 1 << 28
"""Of what has come and waits for its turn; the client drops what is beyond."""

CLIENT_ERRORS_ALONE: Final = (nats.errors.Error, OSError, BrokerUnavailable)
"""Those that come of the broker wherever they are met."""

AUTHORIZATION: Final = "authorization violation"
"""The broker's words for a login that it refuses."""

FULL: Final = frozenset({10047, 10077})
"""The broker's codes for a stream or a disk that has no room: nothing was stored."""

LIMITS: Final = (
    *("num_replicas", "max_bytes", "max_age", "max_msgs", "max_msgs_per_subject", "max_msg_size"),
    *("discard", "duplicate_window"),
)
"""What is changed of a stream of commands that is there."""

Handler = Callable[[Msg], Awaitable[None]]


class StreamLife(NamedTuple):
    """`name` is of one life of the stream: another after it was deleted. `last` is its newest sequence."""

    name: str
    last: int


class BrokerFull(BrokerUnavailable):
    """There is no room for a message; this try surely stored none."""


class Broker:
    """One connection, which finds its way to another broker by itself. Made by `connect`.

    There are errors of a broker after which the client gives up for good: then `ended` says why, and
    `when_ended` is told.
    """

    ended: str = ""
    when_ended: Callable[[str], None] | None = None

    def __init__(self, client: Client, settings: ClusterSettings) -> None:
        self._client = client
        self._js = client.jetstream(timeout=REQUEST_SECONDS_MAX)
        self._settings = settings
        self._is_closing = False
        self.stream = f"{settings.prefix}-commands"

    @classmethod
    async def connect(cls, settings: ClusterSettings, name: str) -> Broker:
        """`name` is shown in the broker's monitoring.

        Raises BrokerUnavailable when none answers, ConfigError when one refuses the login, or its
        JetStream could lose what it acknowledged and `settings.durability` is strict.
        """
        refused: Exception | None = None
        is_joined = False

        async def note(error: Exception) -> None:
            nonlocal refused
            if isinstance(error, nats.errors.SlowConsumerError):
                logger.warning("messages of %s are dropped: %s", error.subject, error)
            elif isinstance(error, CLIENT_ERRORS_ALONE):
                refused = error
                logger.debug("broker: %r", error)
                if not is_joined and AUTHORIZATION in str(error).lower():
                    # The client would try again for ever.
                    raise nats.errors.AuthorizationError from error
            else:
                # Raised by who was to take a message in: the client goes on with the next one.
                logger.error("a message was not taken in", exc_info=error)

        async def lost() -> None:
            if not client.is_closed:
                logger.warning("the broker is lost; looking for another one")

        async def back() -> None:
            logger.info("a broker is reached again")

        if settings.credentials:
            await asyncio.to_thread(check_credentials, settings.credentials)
        client = Client()
        found = cls(client, settings)
        try:
            async with asyncio.timeout(CONNECT_SECONDS_MAX):
                await client.connect(
                    servers=list(settings.servers),
                    name=name,
                    error_cb=note,
                    disconnected_cb=lost,
                    reconnected_cb=back,
                    closed_cb=found._client_closed,
                    max_reconnect_attempts=-1,
                    reconnect_time_wait=RECONNECT_SECONDS,  # type: ignore[arg-type]
                    connect_timeout=2,
                    ping_interval=PING_SECONDS,
                    max_outstanding_pings=2,
                    user_credentials=settings.credentials or None,
                )
        except nats.errors.AuthorizationError as error:
            await found.close()
            raise ConfigError(
                f"cluster.servers: the broker refused the login: {refused}"
            ) from error
        except CLIENT_ERRORS as error:
            await found.close()
            raise BrokerUnavailable(
                f"no broker of cluster.servers answers: {refused or error!r}"
            ) from error
        is_joined = True
        try:
            await check_durability(settings)
        except BaseException:
            await found.close()
            raise
        return found

    @property
    def client(self) -> Client:
        """For who publishes something else over the same connection."""
        return self._client

    @property
    def is_connected(self) -> bool:
        return self._client.is_connected

    @property
    def connections(self) -> int:
        """How often it was connected; between two connections nothing was heard."""
        return 1 + int(self._client.stats["reconnects"])

    @property
    def message_bytes_max(self) -> int:
        """Bytes that one message may have."""
        return self._client.max_payload

    def subject(self, *parts: str | int) -> str:
        """`seckill.commands.3`"""
        return ".".join((self._settings.prefix, *map(str, parts)))

    async def reach(self) -> None:
        """Raises BrokerUnavailable while JetStream does not answer; nothing is changed."""
        await self._find_stream()

    async def ensure_commands(self) -> None:
        """Make the stream of commands, or bring it up to the settings.

        Raises ConfigError for one that is made otherwise or has no room, BrokerUnavailable.
        """
        wanted = self._wanted()
        found = await self._find_stream()
        if found is None:
            await self._set_aside(self._js.add_stream(wanted))
            return
        check_stream(
            *(found.config, "commands"),
            # Without purging nothing would ever make room.
            {"subjects": wanted.subjects, "deny_purge": False, "max_consumers": -1},
        )
        limits = {name: getattr(wanted, name) for name in LIMITS}
        await self._set_aside(bring_up_to(self._js, found.config, limits))

    async def _set_aside(self, call: Awaitable[object]) -> None:
        settings = self._settings
        try:
            await cancellable(call)
        except nats.js.errors.APIError as error:
            where = (self.stream, settings.stream_bytes_max, "stream_bytes_max", settings.replicas)
            raise refusal(error, *where) or unavailable(error) from error
        except CLIENT_ERRORS as error:
            raise unavailable(error) from error

    def _wanted(self) -> StreamConfig:
        settings = self._settings
        return StreamConfig(
            name=self.stream,
            subjects=[self.subject("commands", "*")],
            storage=StorageType.FILE,
            retention=RetentionPolicy.LIMITS,
            discard=DiscardPolicy.NEW,
            max_age=MESSAGE_AGE_SECONDS_MAX,
            max_msgs=-1,
            max_msgs_per_subject=-1,
            max_msg_size=-1,
            max_bytes=settings.stream_bytes_max,
            num_replicas=settings.replicas,
            duplicate_window=DUPLICATE_SECONDS,
        )

    async def life(self) -> StreamLife:
        """Which life of the stream of commands this is, as its leader says.

        One that is gone, with the broker's disks or by somebody's hand, is made anew: what was in it
        is sent again by who waits for it. Raises BrokerUnavailable.
        """
        info = await self._find_stream()
        if info is None:
            logger.error("the stream %s is gone; it is made anew", self.stream)
            info = await self._try(self._js.add_stream(self._wanted()))
        # Made anew it has another time; nothing else of it would tell.
        return StreamLife(f"{self.stream} {info.created}", info.state.last_seq)

    async def publish(self, partition: int, payload: bytes, message_id: str) -> int:
        """Put a message into the stream; returns its sequence once the broker has it.

        The same `message_id` again within DUPLICATE_SECONDS is not put there twice. Raises
        BrokerFull, BrokerUnavailable: then it may be there or not.
        """
        subject = self.subject("commands", partition)
        try:
            ack = await cancellable(
                self._js.publish(
                    subject, payload, stream=self.stream, headers={"Nats-Msg-Id": message_id}
                )
            )
        except nats.js.errors.APIError as error:
            if error.err_code in FULL:
                raise BrokerFull(
                    f"the stream {self.stream} is full: {error.description}"
                ) from error
            raise unavailable(error) from error
        except CLIENT_ERRORS as error:
            raise unavailable(error) from error
        return ack.seq

    async def consume(self, partition: int, first_sequence: int) -> PullConsumer:
        """A consumer of one partition from a sequence on. Raises BrokerUnavailable."""
        config = ConsumerConfig(
            deliver_policy=DeliverPolicy.BY_START_SEQUENCE,
            opt_start_seq=first_sequence,
            # Its owner keeps what was read, in the database.
            ack_policy=AckPolicy.NONE,
            filter_subject=self.subject("commands", partition),
            inactive_threshold=CONSUMER_IDLE_SECONDS,
            num_replicas=1,
            mem_storage=True,
        )
        info = await self._try(self._js.add_consumer(self.stream, config))
        inbox = self._client.new_inbox()
        replies = await self._try(self._client.subscribe(inbox))
        return PullConsumer(self._client, self.stream, info.name, replies, inbox)

    async def remove_up_to(self, partition: int, sequence: int) -> None:
        """Have the broker forget the messages of a partition up to a sequence, which are decided."""
        subject = self.subject("commands", partition)
        await self._try(self._js.purge_stream(self.stream, seq=sequence + 1, subject=subject))

    async def send(self, subject: str, payload: bytes) -> None:
        """Send to whoever listens now; nobody keeps it. Raises BrokerUnavailable."""
        await self._try(self._client.publish(subject, payload))

    async def ask(self, subject: str, payload: bytes, seconds: float) -> bytes:
        """The first answer to a question. Raises BrokerUnavailable when there is none in time."""
        found: Msg = await self._try(self._client.request(subject, payload, timeout=seconds))
        return found.data

    async def listen(self, subject: str, handle: Handler) -> Subscription:
        call = self._client.subscribe(subject, cb=handle, pending_bytes_limit=PENDING_BYTES_MAX)
        found: Subscription = await self._try(call)
        for _ in range(2):
            # The client writes a waiting subscription behind the first flush's question: only the
            # second one tells that the broker has it (seen with nats-py 2.16).
            await self._try(self._client.flush())
        return found

    async def close(self) -> None:
        """Idempotent."""
        self._is_closing = True
        # It raises more than its own errors when it is closed while it looks for a broker.
        with contextlib.suppress(Exception):
            await self._client.close()

    async def _client_closed(self) -> None:
        if not self._is_closing:
            self._end(f"the broker ended the connection for good: {self._client.last_error}")

    def _end(self, reason: str) -> None:
        if self.ended:
            return
        self.ended = reason
        if self.when_ended is not None:
            self.when_ended(reason)

    async def _find_stream(self) -> StreamInfo | None:
        try:
            return await cancellable(self._js.stream_info(self.stream))
        except nats.js.errors.NotFoundError:
            return None
        except CLIENT_ERRORS as error:
            raise unavailable(error) from error

    async def _try(self, call: Awaitable[Any]) -> Any:
        try:
            return await cancellable(call)
        except CLIENT_ERRORS as error:
            if self._client.is_closed:
                # A connection that breaks while the client closes it keeps the client from saying so
                # (nats-py 2.16). Every node sends heartbeats, so it is noticed here.
                await self._client_closed()
            raise unavailable(error) from error
