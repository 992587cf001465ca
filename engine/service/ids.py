"""Ids over HTTP: `SKU:command-id` names a command and the reservation it made.

The SKU is part of it, so that every question goes to the SKU's own queue and its answer is definite.
"""

from __future__ import annotations

import hashlib
from urllib.parse import quote, unquote

from engine.cqrs.messages import check_id
from engine.errors import InvalidCommand


def make_id(sku: str, command_id: str) -> str:
    """`PHONE:alice-1`; what is not plain in the SKU is percent-encoded."""
    return f"{quote(sku, safe='')}:{command_id}"


def split_id(text: str) -> tuple[str, str]:
    """Return (SKU, command id). Raises InvalidCommand."""
    sku, colon, command_id = text.partition(":")
    if not colon:
        raise InvalidCommand(
            f"an id here is the SKU, a colon and the Idempotency-Key, as in PHONE:alice-1; got {text!a}"
        )
    sku = unquote(sku)
    check_id("SKU", sku)
    check_id("command id", command_id)
    return sku, command_id


def derived_id(verb: str, of: str) -> str:
    """The command id of a change that is made once to what `of` names, unless its sender has one."""
    return f"{verb}-{hashlib.blake2b(of.encode(), digest_size=16).hexdigest()}"
