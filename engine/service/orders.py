"""The way of one order: decode, ask the gate, hand over to the engine, answer.

It is answered only after its commit is durable. What is between the request and the engine is kept
lean, because this is the path of a crowd: no task of its own, no await unless there is a gate.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from typing import Final, TypeAlias

import msgspec

from engine.cqrs.messages import Outcome, Rejected
from engine.engine import Engine
from engine.errors import InvalidCommand, OutcomeUnknown, SeckillError
from engine.gate.gate import Gate, GateOrder, Verdict
from engine.inventory.commands import Reserve
from engine.inventory.events import Reserved
from engine.inventory.stock import SOLD_OUT
from engine.service.access import TRUSTED, Access, Caller, Denied
from engine.service.http import Headers, decode, required, segment
from engine.service.ids import check_sku, command_link, make_id, reservation_link
from engine.service.replies import Reply, encode_json, failed, in_doubt, problem, refused, too_fast
from engine.service.wire import Reservation, ReserveBody, TokenReserveBody

logger = logging.getLogger(__name__)

ORDER_BYTES_MAX: Final = 16_384
"""Bytes of one order's body; two names of 64 characters need far less."""

INTERNAL: Final = problem(500, "internal", "Something went wrong here")

Done: TypeAlias = Callable[[Reply], None]

_by_name = msgspec.json.Decoder(ReserveBody)
_by_token = msgspec.json.Decoder(TokenReserveBody)


class Orders:
    """POST /v1/skus/{sku}/reservations."""

    def __init__(self, engine: Engine, access: Access, gate: Gate | None) -> None:
        self._engine = engine
        self._submit_to_engine = engine.submit
        self._access = access
        self._gate = gate
        self._at_gate: set[asyncio.Task[None]] = set()

    def begin(self, headers: Headers, raw_sku: bytes, body: bytes, done: Done) -> None:
        """Reserve for one buyer; `done` is called once with the reply, whatever happens."""
        refusal: Reply | None = None
        try:
            command = self._command(headers, raw_sku, body)
            timeout_ms = headers.timeout_ms()
            if self._gate is None:
                self._submit(command, timeout_ms, done)
            else:
                command.check()
                self._ask(self._gate, command, timeout_ms, done)
        except Denied as denied:
            refusal = denied.reply
        except SeckillError as error:
            refusal = failed(error)
        except Exception:
            logger.exception("an order could not be handled")
            refusal = INTERNAL
        # Not within the `try`: what goes wrong while replying is no reason to reply once more.
        if refusal is not None:
            done(refusal)

    def _command(self, headers: Headers, raw_sku: bytes, body: bytes) -> Reserve:
        caller = self._access.caller(headers.authorization)
        sku = segment(raw_sku)
        check_sku(sku)
        if caller is TRUSTED:
            order = decode(_by_name, body)
            return Reserve(required(headers.command_id()), sku, order.buyer, order.quantity)
        return _in_own_name(caller, headers.command_id(), sku, body)

    def _submit(self, command: Reserve, timeout_ms: int | None, done: Done) -> None:
        future = self._submit_to_engine(command, timeout_ms=timeout_ms)
        future.add_done_callback(partial(_answer, command, done))

    def _ask(self, gate: Gate, command: Reserve, timeout_ms: int | None, done: Done) -> None:
        task = asyncio.create_task(self._pass_gate(gate, command, timeout_ms, done))
        self._at_gate.add(task)
        task.add_done_callback(self._at_gate.discard)

    async def _pass_gate(
        self, gate: Gate, command: Reserve, timeout_ms: int | None, done: Done
    ) -> None:
        """Refuse what the gate stops, unless the engine may have answered it before."""
        try:
            sku = command.aggregate_id
            verdict = (await gate.check([GateOrder(sku, command.buyer)]))[0]
            stopped = gate_reply(self._engine, verdict, sku, command.id)
            if stopped is None:
                self._submit(command, timeout_ms, done)
        except SeckillError as error:
            stopped = failed(error)
        except Exception:
            logger.exception("an order could not be handled")
            stopped = INTERNAL
        if stopped is not None:
            done(stopped)


def _answer(command: Reserve, done: Done, future: asyncio.Future[list[Outcome]]) -> None:
    """Tell the buyer what became of the order. Called when it is durable, or surely is not."""
    try:
        reply = _reply_to(command, future.result()[0])
    except Exception:
        logger.exception("an order could not be answered")
        sku, command_id = command.aggregate_id, command.id
        # It may well be done: whoever asks again is told.
        reply = in_doubt(make_id(sku, command_id), command_link(sku, command_id))
    done(reply)


def _reply_to(command: Reserve, outcome: Outcome) -> Reply:
    sku = command.aggregate_id
    if type(outcome) is tuple:
        return reserved(sku, outcome[0])  # type: ignore[arg-type]
    if isinstance(outcome, Rejected):
        return refused(outcome)
    if isinstance(outcome, OutcomeUnknown):
        return in_doubt(make_id(sku, command.id), command_link(sku, command.id))
    assert isinstance(outcome, SeckillError)
    return failed(outcome)


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


def reserved(sku: str, event: Reserved) -> Reply:
    """201, with where the reservation is."""
    command_id, until_us = event.command_id, event.held_until_us
    body = Reservation(
        *(make_id(sku, command_id), sku, event.buyer, event.quantity),
        state="held" if until_us else "final",
        held_until_ms=until_us // 1_000 if until_us else None,
    )
    link = reservation_link(sku, command_id)
    return Reply(201, encode_json(body), [(b"location", link.encode())])


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
