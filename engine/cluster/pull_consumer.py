"""Reading one partition of the stream of commands."""

from __future__ import annotations

import contextlib
import json

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from engine.cluster.cancelling import cancellable
from engine.cluster.client_errors import CLIENT_ERRORS, unavailable
from engine.errors import BrokerUnavailable


class PullConsumer:
    """Messages in the order of the stream, as many at a time as are asked for."""

    def __init__(
        self, client: Client, stream: str, name: str, replies: Subscription, inbox: str
    ) -> None:
        self._client = client
        self._next = f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{name}"
        self._delete = f"$JS.API.CONSUMER.DELETE.{stream}.{name}"
        self._replies = replies
        self._inbox = inbox
        self._wanted = 0
        self._number = 0

    async def pull(self, messages: int, seconds: float) -> None:
        """Ask for up to so many messages, within so many seconds. Raises BrokerUnavailable."""
        request = {
            "batch": messages,
            "expires": int(seconds * 1e9),
            "idle_heartbeat": int(seconds / 4 * 1e9),
        }
        self._wanted = messages
        try:
            await self._client.publish(self._next, json.dumps(request).encode(), self._inbox)
        except CLIENT_ERRORS as error:
            raise unavailable(error) from error

    async def next(self, seconds: float) -> tuple[int, bytes] | None:
        """The next message with its sequence; None when the pull is over.

        Raises BrokerUnavailable when the broker is silent for so many seconds, or has no such
        consumer any more.
        """
        while self._wanted:
            try:
                message = await cancellable(self._replies.next_msg(timeout=seconds))
            except CLIENT_ERRORS as error:
                raise BrokerUnavailable(f"the broker is silent: {error!r}") from error
            status = (message.headers or {}).get("Status")
            if status is None:
                self._wanted -= 1
                return self._checked(message)
            if status in ("404", "408"):
                self._wanted = 0
            elif status != "100":
                raise BrokerUnavailable(f"the broker ended the consumer: {message.headers}")
        return None

    async def close(self) -> None:
        with contextlib.suppress(*CLIENT_ERRORS):
            await self._replies.unsubscribe()
            await self._client.publish(self._delete)

    def _checked(self, message: Msg) -> tuple[int, bytes]:
        sequence = message.metadata.sequence
        self._number += 1
        if sequence.consumer != self._number:
            raise BrokerUnavailable(
                f"message {self._number} of the consumer is missing: got {sequence.consumer}"
            )
        return sequence.stream, message.data
