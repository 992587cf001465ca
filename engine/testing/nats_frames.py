"""Frames of the NATS client protocol: a line, and after some of them bytes whose number it names.

https://docs.nats.io/reference/reference-protocols/nats-protocol
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import Any, Final

END: Final = b"\r\n"
LINE_BYTES_MAX: Final = 1 << 20
"""Of the readers; INFO names every server of a cluster in one line."""

VERSION: Final = b"NATS/1.0"
MESSAGE_ID: Final = b"Nats-Msg-Id"

_BODIES: Final = frozenset({"HMSG", "HPUB", "MSG", "PUB"})
_HEADERS: Final = frozenset({"HMSG", "HPUB"})


@dataclass(frozen=True, slots=True)
class Frame:
    """One message of the protocol, either way.

    `body` is headers and payload; it is empty in frames that cannot have one.
    """

    line: bytes
    body: bytes = b""

    @property
    def words(self) -> list[str]:
        return self.line.decode().split()

    @property
    def verb(self) -> str:
        """In capitals; a client may write it in small letters."""
        return next(iter(self.words), "").upper()

    @property
    def subject(self) -> str:
        """Of a published or delivered message, "" of anything else."""
        return self.words[1] if self.verb in _BODIES else ""

    @property
    def headers(self) -> bytes:
        """As sent, with the empty line at their end; empty without headers."""
        return self.body[: int(self.words[-2])] if self.verb in _HEADERS else b""

    @property
    def payload(self) -> bytes:
        return self.body[len(self.headers) :]

    def encode(self) -> bytes:
        return self.line + END + (self.body + END if self.verb in _BODIES else b"")


async def read_frame(source: asyncio.StreamReader) -> Frame:
    """The next frame. Raises IncompleteReadError at the end of the stream, and ConnectionError."""
    line = (await source.readuntil(END)).removesuffix(END)
    frame = Frame(line)
    if frame.verb not in _BODIES:
        return frame
    body = await source.readexactly(int(frame.words[-1]) + len(END))
    return Frame(line, body.removesuffix(END))


def publication(subject: str, reply: str, headers: bytes, payload: bytes) -> Frame:
    """What a client sends; without headers the plain form of it."""
    sizes = f"{len(headers)} {len(headers) + len(payload)}" if headers else f"{len(payload)}"
    line = f"{'HPUB' if headers else 'PUB'} {subject} {reply} {sizes}"
    return Frame(line.encode(), headers + payload)


def with_message_id(headers: bytes, message_id: str | None) -> bytes:
    """`headers` with another message id, or without one; empty when nothing is left."""
    kept = [
        line
        for line in headers.split(END)[1:]
        if line and line.partition(b":")[0].strip().lower() != MESSAGE_ID.lower()
    ]
    if message_id is not None:
        kept.append(MESSAGE_ID + b": " + message_id.encode())
    return END.join((VERSION, *kept, b"", b"")) if kept else b""


def hide_servers(info: Frame, host: str, port: int) -> Frame:
    """INFO that names `host` and `port` alone, so that a client learns of no other address."""
    verb, _, text = info.line.partition(b" ")
    settings: dict[str, Any] = json.loads(text)
    for name in ("connect_urls", "ws_connect_urls", "ip"):
        settings.pop(name, None)
    settings.update(host=host, port=port)
    return Frame(verb + b" " + json.dumps(settings).encode())


def stored_in(frame: Frame) -> str:
    """The stream whose acknowledgement of a published message this is, "" when it is none."""
    if frame.verb not in ("MSG", "HMSG") or not frame.payload.startswith(b"{"):
        return ""
    try:
        ack = json.loads(frame.payload)
    except ValueError:
        return ""
    # A refusal names the stream too.
    return str(ack["stream"]) if {"stream", "seq"} <= ack.keys() and "error" not in ack else ""
