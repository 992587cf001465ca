"""Reading a request and sending a reply, straight on ASGI: what every path shares."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final, TypeAlias, TypeVar
from urllib.parse import unquote

import msgspec

from engine.errors import InvalidCommand
from engine.service.access import Denied
from engine.service.replies import Reply, problem

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]

TIMEOUT_MS_MAX: Final = 600_000
DIGITS_MAX: Final = 18

T = TypeVar("T")


class Disconnected(Exception):
    """The client left before its request was there; nobody reads a reply."""


class Headers:
    """The headers of a request by name; of one that is there twice the last counts."""

    __slots__ = ("_found", "_keys")

    def __init__(self, scope: Scope) -> None:
        sent = scope["headers"]
        self._found: dict[bytes, bytes] = dict(sent)
        self._keys = 1
        if len(self._found) != len(sent):
            self._keys = sum(name == b"idempotency-key" for name, _ in sent)

    @property
    def authorization(self) -> bytes | None:
        return self._found.get(b"authorization")

    @property
    def content_type(self) -> bytes | None:
        return self._found.get(b"content-type")

    @property
    def last_event_id(self) -> bytes | None:
        return self._found.get(b"last-event-id")

    @property
    def length(self) -> bytes | None:
        """The Content-Length, in few digits: the parser has checked its value, not its zeros."""
        found = self._found.get(b"content-length")
        return found if found is None else found[:-1].lstrip(b"0") + found[-1:]

    def timeout_ms(self) -> int | None:
        """How long the caller waits, None when it names no time. Raises InvalidCommand."""
        given = self._found.get(b"x-request-timeout-ms")
        if given is None:
            return None
        text = given.decode("latin-1")
        found = whole_number(text)
        if not 1 <= found <= TIMEOUT_MS_MAX:
            raise InvalidCommand(
                f"X-Request-Timeout-Ms must be a whole number from 1 to {TIMEOUT_MS_MAX:,}, "
                f"got {text[:40]!a}"
            )
        return found

    def command_id(self) -> str | None:
        """The Idempotency-Key, bare or as the quoted string of the IETF draft. Raises InvalidCommand."""
        key = self._found.get(b"idempotency-key")
        if key is None:
            return None
        if self._keys > 1:
            raise InvalidCommand("send one Idempotency-Key, not several")
        if len(key) > 1 and key[0] == key[-1] == 0x22:
            key = key[1:-1]
        try:
            return key.decode()
        except UnicodeDecodeError:
            raise InvalidCommand("the Idempotency-Key must be UTF-8") from None


def whole_number(text: str) -> int:
    """What plain digits say; -1 for everything else, and for more of them than anybody needs.

    Python refuses to read thousands of digits, and reading them takes time.
    """
    return int(text) if len(text) <= DIGITS_MAX and text.isascii() and text.isdigit() else -1


def required(command_id: str | None) -> str:
    """Raises InvalidCommand when there is none."""
    if command_id is None:
        raise InvalidCommand(
            "send the header Idempotency-Key: a new id (a UUID, say) for each request that you mean "
            "to make once; sent again with the same id it gets its first answer"
        )
    return command_id


async def read_body(
    receive: Receive,
    length: bytes | None,
    bytes_max: int,
    arrived: Callable[[int], None] | None = None,
) -> bytes:
    """The whole body. `arrived` is told how many bytes each part of it has, and may raise Denied.

    Raises Denied (413) beyond `bytes_max`, Disconnected.
    """
    if length is not None and int(length) > bytes_max:
        raise too_large(bytes_max)
    parts: list[bytes] = []
    size = 0
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Disconnected
        part: bytes = message.get("body", b"")
        more = message.get("more_body", False)
        size += len(part)
        # A body without a length may be whole in one piece.
        if size > bytes_max:
            raise too_large(bytes_max)
        if arrived is not None:
            arrived(len(part))
        parts.append(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def too_large(bytes_max: int) -> Denied:
    reply = problem(413, "too_large", "The body is too large", f"at most {bytes_max:,} bytes")
    # What is still to come of it is not wanted.
    return Denied(reply._replace(headers=[*reply.headers, (b"connection", b"close")]))


def decode(decoder: msgspec.json.Decoder[T], body: bytes) -> T:
    """Raises InvalidCommand saying where and what."""
    if not body:
        raise InvalidCommand("the body is empty; send a JSON object")
    try:
        return decoder.decode(body)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise InvalidCommand(f"the body is not what is expected here: {error}") from None


def segment(raw: bytes | str) -> str:
    """A path segment as its client meant it. Raises InvalidCommand."""
    try:
        return unquote(raw, errors="strict")
    except UnicodeDecodeError:
        raise InvalidCommand("the path must be percent-encoded UTF-8") from None


async def respond(send: Send, reply: Reply) -> None:
    """Send a whole reply."""
    await send(
        {"type": "http.response.start", "status": reply.status, "headers": reply.raw_headers()}
    )
    await send({"type": "http.response.body", "body": reply.body})
