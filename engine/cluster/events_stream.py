"""The stream of events for other systems, and the bucket of its checkpoints: names and limits."""

from __future__ import annotations

import asyncio
import re
from typing import Final

import msgspec
from nats.js import JetStreamContext
from nats.js.api import (
    DiscardPolicy,
    KeyValueConfig,
    RetentionPolicy,
    StorageType,
    StreamConfig,
    StreamInfo,
)
from nats.js.errors import APIError, NotFoundError

from engine.cluster.streams import bring_up_to, check_stream, refusal
from engine.errors import ConfigError

PREFIX: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
"""A dot would be another part of the subject, and no stream may have one in its name."""

DUPLICATE_SECONDS: Final = 120
"""How long the broker knows a message id. No promise hangs on it: see `engine.cluster.events_out`."""

BATCHES_AT_ONCE: Final = 8
"""Of all partitions of a process. A broker takes 50 for a stream, so six nodes may fill it at once;
beyond that it refuses some, which are sent again."""

IN_USE: Final = 10058
"""The broker's code for a name that a stream has."""

REPLICAS_MAX: Final = 5


class Incarnation(msgspec.Struct, frozen=True):
    """A stream as it is now: one that was deleted and made anew is another."""

    created: str
    last_sequence: int
    """Of all its subjects, also when limits have removed the message."""


class EventsStream:
    """`<prefix>-events` with the subject `<prefix>.events.<partition>` for each partition.

    One for all partitions of a process.
    """

    def __init__(
        self, prefix: str, replicas: int = 1, age_seconds_max: int = 0, bytes_max: int = 0
    ) -> None:
        """Old messages are removed beyond a limit; 0 is none. Raises ConfigError."""
        if not PREFIX.fullmatch(prefix):
            raise ConfigError(
                f"the prefix {prefix!r} of the events is not allowed: "
                "1 to 64 letters, digits, - and _ are"
            )
        if not 1 <= replicas <= REPLICAS_MAX:
            raise ConfigError(f"{replicas} replicas are not possible: 1 to {REPLICAS_MAX} are")
        if age_seconds_max < 0 or bytes_max < 0:
            raise ConfigError(
                f"the limits of the events are {age_seconds_max} s and {bytes_max} bytes; "
                "they are positive, or 0 for no limit"
            )
        self.name = f"{prefix}-events"
        self.checkpoints = f"{prefix}-checkpoints"
        self.checkpoint_stream = f"KV_{self.checkpoints}"
        self.batches = asyncio.Semaphore(BATCHES_AT_ONCE)
        self._prefix = prefix
        self._replicas = replicas
        self._age_seconds_max = age_seconds_max
        self._bytes_max = bytes_max

    @property
    def subject_filter(self) -> str:
        """Matches the subjects of all partitions."""
        return f"{self._prefix}.events.*"

    def subject(self, partition: int) -> str:
        return f"{self._prefix}.events.{partition}"

    def checkpoint_subject(self, partition: int) -> str:
        """The subject that stands for the key `events.<partition>` of the bucket."""
        return f"$KV.{self.checkpoints}.events.{partition}"

    async def ensure(self, js: JetStreamContext) -> None:
        """Make stream and bucket, or set the limits of those that are there.

        Raises ConfigError when one that is there cannot be used, or the broker cannot make it so,
        BrokerUnavailable while too few brokers are there;
        nats.errors.Error when it cannot be asked now.
        """
        await self._set_limits(js, await self._events(js))
        bucket = await self._bucket(js)
        await self._change(js, bucket.config, num_replicas=self._replicas)

    async def find(self, js: JetStreamContext) -> Incarnation:
        """Look stream and bucket up, made where missing; limits stay. Raises as `ensure`."""
        info = await self._events(js)
        await self._bucket(js)
        assert info.created is not None
        return Incarnation(info.created.isoformat(), info.state.last_seq)

    async def _events(self, js: JetStreamContext) -> StreamInfo:
        try:
            info = await js.stream_info(self.name)
        except NotFoundError:
            info = await self._create(js)
        self._check(info.config)
        return info

    async def _create(self, js: JetStreamContext) -> StreamInfo:
        config = StreamConfig(
            name=self.name,
            description="commits of the event store, one message each",
            subjects=[self.subject_filter],
            storage=StorageType.FILE,
            retention=RetentionPolicy.LIMITS,
            discard=DiscardPolicy.OLD,
            allow_atomic=True,
        ).evolve(**self._limits())
        try:
            return await js.add_stream(config)
        except APIError as error:
            if error.err_code == IN_USE:
                # Somebody else made it meanwhile.
                return await js.stream_info(self.name)
            raise self._explained(self.name, error) from error

    def _limits(self) -> dict[str, int]:
        age = self._age_seconds_max
        return {
            "num_replicas": self._replicas,
            "max_age": age,
            "max_bytes": self._bytes_max or -1,
            # The broker allows none above the age of messages.
            "duplicate_window": min(DUPLICATE_SECONDS, age) if age else DUPLICATE_SECONDS,
        }

    def _check(self, config: StreamConfig) -> None:
        """Raise ConfigError for a stream that others made for something else."""
        needed = {"subjects": [self.subject_filter], "discard": DiscardPolicy.OLD.value}
        check_stream(config, "events", needed)

    async def _set_limits(self, js: JetStreamContext, info: StreamInfo) -> None:
        config = await self._change(js, info.config, allow_atomic=True, **self._limits())
        if not config.allow_atomic:
            raise ConfigError(
                "the broker cannot store messages in batches; nats-server 2.12.1 or newer can"
            )

    async def _bucket(self, js: JetStreamContext) -> StreamInfo:
        try:
            return await js.stream_info(self.checkpoint_stream)
        except NotFoundError:
            pass
        config = KeyValueConfig(self.checkpoints, storage=StorageType.FILE, replicas=self._replicas)
        try:
            await js.create_key_value(config)
        except APIError as error:
            if error.err_code != IN_USE:
                raise self._explained(self.checkpoint_stream, error) from error
        return await js.stream_info(self.checkpoint_stream)

    async def _change(
        self, js: JetStreamContext, config: StreamConfig, **wanted: object
    ) -> StreamConfig:
        try:
            return await bring_up_to(js, config, wanted)
        except APIError as error:
            raise self._explained(str(config.name), error) from error

    def _explained(self, name: str, error: APIError) -> Exception:
        """ConfigError for what will not change by waiting, else the error itself."""
        if found := refusal(error, name, self._bytes_max, "events_bytes_max", self._replicas):
            return found
        if error.code == 400:
            return ConfigError(f"the broker refuses the stream {name}: {error.description}")
        return error
