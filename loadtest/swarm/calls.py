"""One request of the crowd, and what its reply means."""

from __future__ import annotations

from typing import Any, Final, NamedTuple, TypeAlias
from urllib.parse import quote

import msgspec
from locust.contrib.fasthttp import FastHttpSession, ResponseContextManager

from loadtest.swarm.orders import Order

RETRY_SECONDS: Final = 0.2
"""Pause before asking again when the server names none."""

TOKEN_SECONDS: Final = 3_600

TOO_LATE: Final = "hold_expired"
"""Why a payment is refused that is to be refunded."""


class Accepted(NamedTuple):
    """Sold or held: `id` names the reservation, `held` tells that it is still to be paid."""

    id: str
    held: bool


class Refused(NamedTuple):
    """A definite no, with its reason."""

    reason: str


class Again(NamedTuple):
    """Nothing happened; worth another try after so many seconds."""

    after_seconds: float


class InDoubt(NamedTuple):
    """Not known yet, perhaps for ever: the same id gets the answer when it is sent again."""

    after_seconds: float


class Broken(NamedTuple):
    """An answer that a right order never gets."""

    what: str


Verdict: TypeAlias = Accepted | Refused | Again | InDoubt | Broken


class _Reservation(msgspec.Struct):
    id: str
    held_until_ms: int | None = None


class _Problem(msgspec.Struct):
    reason: str = ""
    retry_after_ms: float | None = None


class _Listed(msgspec.Struct):
    id: str
    status: int
    reason: str = ""
    held_until_ms: int | None = None
    retry_after_ms: float | None = None


class _Token(msgspec.Struct):
    token: str


class About(msgspec.Struct):
    """GET /v1/about: whether buyers need a token, and where the operator's listener is."""

    auth: str
    admin_url: str | None = None


class Calls:
    """The service, as one user's session reaches it."""

    def __init__(self, session: FastHttpSession, shop_secret: str = "") -> None:
        self._session = session
        self._shop = _bearer(shop_secret)

    def token(self, admin_url: str, admin_secret: str, order: Order) -> str:
        """A purchase token for an order, empty when there is none to be had."""
        body = {"buyer": order.buyer, "sku": order.sku, "seconds": TOKEN_SECONDS}
        with self._send(
            "POST", f"{admin_url}/v1/admin/tokens", "token", body, _bearer(admin_secret)
        ) as reply:
            found: str = _decode(reply, _Token, _Token("")).token
            if found:
                reply.success()
            else:
                reply.failure(f"{reply.status_code or 'no reply'}, no token")
            return found

    def reserve(self, order: Order, token: str | None, due_ms: float | None = None) -> Verdict:
        """`token` instead of buyer and key, when there is one. `due_ms`: how late this is sent already."""
        path = f"/v1/skus/{quote(order.sku, safe='')}/reservations"
        if token is None:
            headers = {"Idempotency-Key": order.command_id, **self._shop}
            body: dict[str, Any] = {"buyer": order.buyer, "quantity": order.quantity}
        else:
            headers, body = _bearer(token), {"quantity": order.quantity}
        with self._send("POST", path, "reserve", body, headers) as reply:
            if due_ms is not None:
                # What Locust shows counts from then as well.
                reply.request_meta["response_time"] += due_ms
            verdict = _read(reply)
            _tell_locust(reply, verdict)
            return verdict

    def confirm(self, reservation_id: str) -> Verdict:
        """Pay. Refused tells that it came too late."""
        path = f"/v1/reservations/{quote(reservation_id, safe='')}/confirm"
        with self._send("POST", path, "pay", None, self._shop) as reply:
            verdict = _read(reply)
            if isinstance(verdict, Refused) and verdict.reason != TOO_LATE:
                # Of a reservation that was just made, and is paid once.
                verdict = Broken(f"{reply.status_code} {verdict.reason}")
            _tell_locust(reply, verdict)
            return verdict

    def reserve_list(self, orders: list[Order], due_ms: float | None = None) -> list[Verdict]:
        """One verdict an order, in their order."""
        body = [
            {"id": each.command_id, "sku": each.sku, "buyer": each.buyer, "quantity": each.quantity}
            for each in orders
        ]
        with self._send("POST", "/v1/reservations:batch", "list", body, self._shop) as reply:
            if due_ms is not None:
                reply.request_meta["response_time"] += due_ms
            if reply.status_code == 200:
                listed = _decode(reply, list[_Listed], [])
                if len(listed) == len(orders):
                    reply.success()
                    return [_of_listed(each) for each in listed]
                what = f"{len(orders)} orders were answered with {len(listed)}"
                reply.failure(what)
                return [InDoubt(RETRY_SECONDS)] * len(orders)
            verdict = _read(reply)
            _tell_locust(reply, verdict)
            return [verdict] * len(orders)

    def read(self, path: str, name: str) -> bool:
        """Ask a question; true when it was answered."""
        with self._send("GET", path, name, None, self._shop) as reply:
            # Nothing there is an answer as well.
            answered = reply.status_code in (200, 202, 404)
            if answered:
                reply.success()
            else:
                reply.failure(f"{reply.status_code}")
            return answered

    def about(self) -> About | None:
        """None when the server cannot be reached."""
        with self._send("GET", "/v1/about", "about", None, {}) as reply:
            return _decode(reply, About, None) if reply.status_code == 200 else None

    def _send(
        self, method: str, path: str, name: str, body: Any, headers: dict[str, str]
    ) -> ResponseContextManager:
        data: Any = None
        if body is not None:
            data = msgspec.json.encode(body)
            headers = {**headers, "Content-Type": "application/json"}
        return self._session.request(
            method,
            path,
            name=name,
            data=data,
            headers=headers,
            catch_response=True,
            allow_redirects=False,
        )


def _read(reply: ResponseContextManager) -> Verdict:
    status = reply.status_code
    if status in (200, 201):
        found = _decode(reply, _Reservation, None)
        # An answer that was cut off, or another's, says nothing of what became of the order.
        return (
            InDoubt(RETRY_SECONDS)
            if found is None
            else Accepted(found.id, found.held_until_ms is not None)
        )
    if status == 409:
        reason = _decode(reply, _Problem, _Problem()).reason
        # Without a reason it is not the service that said so, but something in between.
        return Refused(reason) if reason else InDoubt(RETRY_SECONDS)
    if status in (429, 503):
        return Again(_hint(reply))
    if status == 202 or not status or status >= 500:
        # A broken connection, too: what was sent may have arrived.
        return InDoubt(_hint(reply))
    return Broken(f"{status} {_start_of(reply)}")


def _of_listed(item: _Listed) -> Verdict:
    if item.status == 201:
        return Accepted(item.id, item.held_until_ms is not None)
    if item.status == 409:
        return Refused(item.reason or str(item.status))
    if item.status in (429, 503):
        return Again(_pause(item.retry_after_ms))
    return InDoubt(RETRY_SECONDS) if item.status == 202 else Broken(f"{item.status} {item.reason}")


def _tell_locust(reply: ResponseContextManager, verdict: Verdict) -> None:
    """A refusal is an answer; Locust's failures are what the buyer has no answer from."""
    match verdict:
        case Accepted() | Refused():
            reply.success()
        case Again():
            reply.failure(f"{reply.status_code}, try again later")
        case InDoubt():
            reply.failure(f"{reply.status_code or 'no reply'}, in doubt")
        case Broken(what):
            reply.failure(what)


def _decode(reply: ResponseContextManager, kind: Any, otherwise: Any) -> Any:
    try:
        return msgspec.json.decode(reply.content or b"", type=kind)
    except msgspec.DecodeError:
        return otherwise


def _hint(reply: ResponseContextManager) -> float:
    return _pause(_decode(reply, _Problem, _Problem()).retry_after_ms)


def _pause(retry_after_ms: float | None) -> float:
    return RETRY_SECONDS if retry_after_ms is None else retry_after_ms / 1_000


def _start_of(reply: ResponseContextManager) -> str:
    return repr((reply.content or b"")[:120])


def _bearer(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"} if secret else {}
