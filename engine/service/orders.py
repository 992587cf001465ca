"""The way of one order: decode, ask the gate, hand over to the engine, answer. Straight on ASGI.

It is answered only after its commit is durable. What is between the request and the engine is kept
lean: this is the path of a crowd.
"""

from __future__ import annotations

from typing import Final
from urllib.parse import quote

import msgspec

from engine.cqrs.messages import Rejected
from engine.engine import Engine
from engine.errors import InvalidCommand, SeckillError
from engine.gate.gate import Gate, GateOrder, Verdict
from engine.inventory.commands import Reserve
from engine.inventory.events import Reserved
from engine.inventory.stock import SOLD_OUT
from engine.service.access import TRUSTED, Access, Caller, Denied
from engine.service.http import Headers, Receive, Scope, decode, read_body, required, segment
from engine.service.ids import make_id
from engine.service.replies import Reply, encode_json, outcome_of, problem, refused, too_fast
from engine.service.waiting import Waiting
from engine.service.wire import Reservation, ReserveBody, TokenReserveBody

ORDER_BYTES_MAX: Final = 16_384
"""Bytes of one order's body; two names of 64 characters need far less."""

_by_name = msgspec.json.Decoder(ReserveBody)
_by_token = msgspec.json.Decoder(TokenReserveBody)


class Orders:
    """POST /v1/skus/{sku}/reservations."""

    def __init__(self, engine: Engine, access: Access, gate: Gate | None, waiting: Waiting) -> None:
        self._engine = engine
        self._execute = engine.execute
        self._access = access
        self._gate = gate
        self._waiting = waiting

    async def reserve(self, scope: Scope, receive: Receive, raw_sku: bytes) -> Reply:
        """Reserve for one buyer. Raises Denied, InvalidCommand, Disconnected."""
        headers = Headers(scope)
        caller = self._access.caller(headers.authorization)
        timeout_ms = headers.timeout_ms()
        sku = segment(raw_sku)
        body = await read_body(receive, headers.length, ORDER_BYTES_MAX)
        if caller is TRUSTED:
            order = decode(_by_name, body)
            command = Reserve(required(headers.command_id()), sku, order.buyer, order.quantity)
        else:
            command = _in_own_name(caller, headers.command_id(), sku, body)
        command.check()
        if self._gate is not None and (reply := await self._ask_gate(command)) is not None:
            return reply
        return await self.execute(command, timeout_ms)

    async def execute(self, command: Reserve, timeout_ms: int | None) -> Reply:
        """Have the engine decide it, and answer once that is durable."""
        sku = command.aggregate_id
        id_ = make_id(sku, command.id)
        waiting = self._waiting
        waiting.enter(id_, sku, command.buyer)
        try:
            answer = await self._execute(command, timeout_ms=timeout_ms)
        except SeckillError as error:
            return outcome_of(error, id_, command_link(id_))
        finally:
            waiting.leave(id_)
        if isinstance(answer, Rejected):
            return refused(answer)
        event = answer[0]
        assert isinstance(event, Reserved)
        return reserved(sku, id_, event)

    async def _ask_gate(self, command: Reserve) -> Reply | None:
        """Refuse what the gate stops, unless the engine may have answered it before."""
        assert self._gate is not None
        sku = command.aggregate_id
        verdict = (await self._gate.check([GateOrder(sku, command.buyer)]))[0]
        return gate_reply(self._engine, verdict, sku, command.id)


def gate_reply(engine: Engine, verdict: Verdict, sku: str, command_id: str) -> Reply | None:
    """What a stopped order is told, None when it may pass.

    "Sold out" is a hint, and it is wrong for an order that was accepted and is sent again; too fast
    is said before the engine is asked, and a buyer who waits gets the first answer all the same.
    """
    if verdict.kind == "too_fast":
        return too_fast(verdict.retry_after_seconds)
    if verdict.kind == "sold_out" and not engine.live.may_know(sku, command_id):
        return refused(SOLD_OUT)
    return None


def reserved(sku: str, id_: str, event: Reserved) -> Reply:
    """201, with where the reservation is."""
    until_us = event.held_until_us
    body = Reservation(
        *(id_, sku, event.buyer, event.quantity),
        state="held" if until_us else "final",
        held_until_ms=until_us // 1_000 if until_us else None,
    )
    return Reply(201, encode_json(body), [(b"location", reservation_link(id_).encode())])


def reservation_link(id_: str) -> str:
    return f"/v1/reservations/{_in_path(id_)}"


def command_link(id_: str) -> str:
    return f"/v1/commands/{_in_path(id_)}"


def _in_path(id_: str) -> str:
    return quote(id_, safe=":")


def _in_own_name(caller: Caller, command_id: str | None, sku: str, body: bytes) -> Reserve:
    """What a purchase token buys: its nonce is the command id, its buyer the buyer."""
    purchase = caller.purchase
    assert purchase is not None
    if not caller.may_buy(sku):
        raise Denied(problem(403, "other_sku", "This purchase token is for another SKU"))
    if command_id not in (None, purchase.nonce):
        raise InvalidCommand(
            "with a purchase token the Idempotency-Key is the token's nonce; leave the header out"
        )
    quantity = decode(_by_token, body).quantity
    return Reserve(purchase.nonce, sku, purchase.buyer, quantity)
