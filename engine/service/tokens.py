"""Purchase tokens: the shop's backend lets one buyer buy one SKU until a time, once.

    v1.<payload>.<mac>    payload: base64url of {"buyer","sku","exp","nonce"}, exp in seconds
                          mac: base64url of HMAC-SHA256(key, "v1." + payload)

The nonce is the command id of the purchase, so sending a token twice is a repeat and gets the first
answer: nothing has to be remembered to make it work once. Two keys may be valid at a time, so that
they can be changed while tokens are out. SKU `*` stands for every SKU, once each.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Sequence
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from engine.auth_settings import TOKEN_PREFIX
from engine.cqrs.messages import ID_LENGTH_MAX

PREFIX: Final = TOKEN_PREFIX
ANY_SKU: Final = "*"

TOKEN_LENGTH_MAX: Final = 2_048
"""Three ids of 64 characters of 4 bytes each, escaped and in base64, stay below it."""

_Text = Annotated[str, Meta(min_length=1, max_length=ID_LENGTH_MAX)]


class BadToken(ValueError):
    """The token is not one of ours, or its time is over. The message never holds the token."""


class Purchase(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a token says. `exp` is the first second in which it buys no more."""

    buyer: _Text
    sku: _Text
    exp: int
    nonce: _Text


_decode = msgspec.json.Decoder(Purchase).decode


def sign(key: str, purchase: Purchase) -> str:
    """Make a token."""
    payload = PREFIX + _base64(msgspec.json.encode(purchase))
    return f"{payload}.{_base64(_mac(key, payload))}"


def verify(
    token: str, keys: Sequence[str], now_seconds: float, *, expired_ok: bool = False
) -> Purchase:
    """Return what a token says. Raises BadToken.

    With `expired_ok` its time may be over: for looking, not for buying.
    """
    if len(token) > TOKEN_LENGTH_MAX:
        raise BadToken("the purchase token is too long")
    payload, dot, mac = token.rpartition(".")
    if not dot or not payload.startswith(PREFIX):
        raise BadToken("the purchase token is malformed")
    try:
        # As text, because the last character of base64 has bits that stand for nothing: a token has
        # one form. Every key is tried, whichever fits, so that the time taken does not tell which.
        fits = [
            hmac.compare_digest(_base64(_mac(key, payload)).encode(), mac.encode()) for key in keys
        ]
        if not any(fits):
            raise BadToken("the purchase token is not signed by this shop")
        purchase = _decode(_unbase64(payload.removeprefix(PREFIX)))
    except (binascii.Error, UnicodeError, msgspec.MsgspecError):
        raise BadToken("the purchase token is malformed") from None
    if not expired_ok and now_seconds >= purchase.exp:
        raise BadToken("the purchase token has expired")
    return purchase


def _mac(key: str, payload: str) -> bytes:
    return hmac.digest(key.encode(), payload.encode(), hashlib.sha256)


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _unbase64(text: str) -> bytes:
    padded = text.encode() + b"=" * (-len(text) % 4)
    return base64.b64decode(padded, altchars=b"-_", validate=True)
