"""Who is calling, and what they may do.

    anybody   auth.mode = "none": may do everything on the public listener, names any buyer
    buyer     shows a purchase token: buys and looks in their own name only
    shop      shows auth.shop_secret: the shop's backend, names any buyer, says what was paid
    admin     shows auth.admin_secret on the admin listener

Everything else is 401, and what belongs to another buyer is 404: who may not see it is not told
that it exists.
"""

from __future__ import annotations

import hmac
import logging
from typing import Final

import msgspec

from engine.auth_settings import AuthSettings
from engine.clock import Clock
from engine.service.replies import Reply, problem
from engine.service.tokens import ANY_SKU, PREFIX, BadToken, Purchase, verify

logger = logging.getLogger(__name__)

BEARER: Final = "bearer "


class Denied(Exception):
    """The caller may not do that; `reply` says so."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(reply.status)
        self.reply = reply


class Caller(msgspec.Struct, frozen=True):
    """`purchase` is there for a buyer, who is bound to it; None for the shop and for anybody."""

    purchase: Purchase | None = None

    def owns(self, buyer: str) -> bool:
        """Whether a reservation of `buyer` is theirs to see."""
        return self.purchase is None or self.purchase.buyer == buyer

    def may_buy(self, sku: str) -> bool:
        return self.purchase is None or self.purchase.sku in (sku, ANY_SKU)


TRUSTED: Final = Caller()


class Access:
    """Reads the Authorization header."""

    def __init__(self, settings: AuthSettings, clock: Clock) -> None:
        self._open = settings.mode == "none"
        self._keys = [each for each in (settings.token_key, settings.token_key_previous) if each]
        self._shop_secret = settings.shop_secret
        self._admin_secret = settings.admin_secret
        self._clock = clock

    def caller(self, authorization: bytes | None, *, buying: bool = True) -> Caller:
        """Who that is; with `buying` false a token may have expired. Raises Denied."""
        if self._open:
            return TRUSTED
        secret = _bearer(authorization)
        if secret.startswith(PREFIX):
            now = self._clock.wall_us() / 1_000_000
            try:
                return Caller(verify(secret, self._keys, now, expired_ok=not buying))
            except BadToken as error:
                raise Denied(_unauthorized(str(error))) from None
        if self._shop_secret and _same(secret, self._shop_secret):
            return TRUSTED
        raise Denied(
            _unauthorized(
                "it is neither a purchase token (v1...) nor the secret of the shop's backend"
            )
        )

    def shop(self, authorization: bytes | None) -> None:
        """Let only the shop's backend pass. Raises Denied."""
        if self.caller(authorization).purchase is not None:
            raise Denied(
                problem(403, "shop_only", "Only the shop's backend may do that, not a buyer")
            )

    def admin(self, authorization: bytes | None) -> None:
        """Let only the operator pass. Raises Denied."""
        if not _same(_bearer(authorization), self._admin_secret):
            logger.warning("a wrong admin secret was shown")
            raise Denied(_unauthorized("the admin secret is wrong"))


def _bearer(authorization: bytes | None) -> str:
    text = (authorization or b"").decode("latin-1")
    if text[: len(BEARER)].lower() != BEARER:
        raise Denied(_unauthorized("send the header Authorization: Bearer ..."))
    return text[len(BEARER) :].strip()


def _same(given: str, secret: str) -> bool:
    return hmac.compare_digest(given.encode(), secret.encode())


def _unauthorized(detail: str) -> Reply:
    reply = problem(401, "unauthorized", "Who are you?", detail)
    return reply._replace(headers=[*reply.headers, (b"www-authenticate", b"Bearer")])
