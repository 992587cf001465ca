"""Whether the client can sign with a file of credentials, before it is given one.

It would raise what it does not document, and read on for ever in a file without the line that it seeks.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Final

from engine.errors import ConfigError

TOKEN: Final = b"BEGIN NATS USER JWT"
SEED: Final = b"BEGIN USER NKEY SEED"


def check_credentials(path: str) -> None:
    """Raises ConfigError for a file that cannot be used."""
    try:
        import nkeys
    except ImportError as error:
        raise ConfigError(
            f"cluster.credentials needs the package nkeys: pip install 'nats-py[nkeys]' ({error})"
        ) from error
    try:
        lines = Path(path).read_bytes().split(b"\n")
    except OSError as error:
        raise ConfigError(f"cluster.credentials cannot be read: {error}") from error
    token, seed = _behind(TOKEN, lines), _behind(SEED, lines)
    if not token or not seed:
        raise ConfigError(
            f"cluster.credentials: {path} is no file as nsc makes it: behind a line with "
            f"{(SEED if token else TOKEN).decode()!r} there is nothing"
        )
    try:
        nkeys.from_seed(bytearray(seed)).sign(b"")
    except (nkeys.NkeysError, ValueError, TypeError) as error:
        raise ConfigError(
            f"cluster.credentials: the seed in {path} is none of a user: {type(error).__name__}"
        ) from error


def _behind(title: bytes, lines: list[bytes]) -> bytes:
    """The line behind the one that has a title; empty without one."""
    for line, following in pairwise(lines):
        if title in line:
            return following
    return b""
