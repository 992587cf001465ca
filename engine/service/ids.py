"""Ids over HTTP: `SKU:command-id` names a command and the reservation it made.

The SKU is part of it, so that every question goes to the SKU's own queue and its answer is definite.
"""

from __future__ import annotations

import hashlib
import re
from functools import lru_cache
from typing import Final
from urllib.parse import quote, unquote

from engine.cqrs.messages import check_id
from engine.errors import InvalidCommand

PLAIN: Final = re.compile(r"[A-Za-z0-9._~-]+").fullmatch
"""Texts that stand in a path as they are."""

SKUS_CACHED: Final = 16_384


@lru_cache(SKUS_CACHED)
def _quoted(sku: str) -> tuple[str, str]:
    """A SKU as it stands in an id, and that again as it stands in a path."""
    once = quote(sku, safe="")
    return once, quote(once, safe="")


def check_sku(sku: str) -> None:
    """Raises InvalidCommand for a SKU that cannot be named over HTTP."""
    if ":" in sku:
        raise InvalidCommand(
            f"a SKU over HTTP has no colon, which ends it in ids such as PHONE:alice-1; got {sku!a}"
        )


def make_id(sku: str, command_id: str) -> str:
    """`PHONE:alice-1`; what is not plain in the SKU is percent-encoded."""
    return f"{_quoted(sku)[0]}:{command_id}"


def split_id(text: str) -> tuple[str, str]:
    """Return (SKU, command id). Raises InvalidCommand."""
    sku, colon, command_id = text.partition(":")
    if not colon:
        raise InvalidCommand(
            f"an id here is the SKU, a colon and the Idempotency-Key, as in PHONE:alice-1; got {text!a}"
        )
    sku = unquote(sku)
    check_id("SKU", sku)
    check_sku(sku)
    check_id("command id", command_id)
    return sku, command_id


def reservation_link(sku: str, command_id: str) -> str:
    """Where a reservation is."""
    return f"/v1/reservations/{_in_path(sku, command_id)}"


def command_link(sku: str, command_id: str) -> str:
    """Where one learns what became of a command."""
    return f"/v1/commands/{_in_path(sku, command_id)}"


def _in_path(sku: str, command_id: str) -> str:
    plain = command_id if PLAIN(command_id) else quote(command_id, safe="")
    return f"{_quoted(sku)[1]}:{plain}"


def derived_id(verb: str, of: str) -> str:
    """The command id of a change that is made once to what `of` names, unless its sender has one."""
    return f"{verb}-{hashlib.blake2b(of.encode(), digest_size=16).hexdigest()}"
