"""The lines of a history file and the half lines a killed writer leaves; see `history.py`."""

from __future__ import annotations

from pathlib import Path
from typing import Final, TypeAlias

import msgspec

from engine.errors import ConfigError

HISTORY_SCHEMA: Final = 1


class Line(msgspec.Struct, tag_field="op", gc=False, omit_defaults=True):
    pass


class Header(Line, tag="history"):
    schema: int


class Invoke(Line, tag="invoke"):
    id: str
    sku: str
    buyer: str
    quantity: int
    at_us: int


class Ok(Line, tag="ok"):
    id: str
    at_us: int
    buyer: str | None = None
    quantity: int | None = None


class Refused(Line, tag="rejected"):
    id: str
    reason: str
    at_us: int


class Unknown(Line, tag="unknown"):
    id: str
    error: str
    at_us: int


class Failed(Line, tag="failed"):
    id: str
    error: str
    at_us: int


AnswerLine: TypeAlias = Ok | Refused | Unknown | Failed
AnyLine: TypeAlias = Header | Invoke | Ok | Refused | Unknown | Failed

encode_lines = msgspec.json.Encoder().encode_lines
_decoder: msgspec.json.Decoder[AnyLine] = msgspec.json.Decoder(AnyLine)
HEADER_LINE: Final = encode_lines([Header(HISTORY_SCHEMA)])


def decode_line(text: bytes) -> AnyLine:
    """Raise ValueError, saying what is wrong, when `text` is no line of a history."""
    try:
        return _decoder.decode(text)
    except msgspec.DecodeError as error:
        raise ValueError(str(error)) from None


def check_header(path: str | Path, line: bytes) -> None:
    """Raise ConfigError unless `line` can begin a history that this program knows."""
    try:
        header = decode_line(line)
    except ValueError:
        header = None
    if not isinstance(header, Header):
        wanted = HEADER_LINE.decode().strip()
        raise ConfigError(f"{path} is not a history file: its first line is not {wanted}")
    if header.schema != HISTORY_SCHEMA:
        raise ConfigError(
            f"history {path} has schema {header.schema}; this program knows {HISTORY_SCHEMA}"
        )
