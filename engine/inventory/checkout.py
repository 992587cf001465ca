"""The process manager of orders: reserves the lines, confirms them, or gives them back.

It may run twice for the same event, in this process or another: reservations have ids that follow
from the order's, and an order that has ended accepts nothing more.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Iterable
from typing import Any, Final

from engine.cqrs.messages import Answer, Command, Event, Rejected
from engine.cqrs.process_manager import ProcessManager
from engine.cqrs.send import NAMESPACE, Send
from engine.inventory.commands import Confirm, Release, ReserveLine
from engine.inventory.events import Confirmed, Reserved
from engine.inventory.order import ENDED, ORDER, STILL_RESERVING
from engine.inventory.order_messages import (
    AcceptOrder,
    AskOrder,
    FinishOrder,
    Line,
    OrderCancelled,
    OrderPaid,
    OrderPlaced,
    RefuseOrder,
)
from engine.inventory.stock import ALREADY_PAID as STOCK_ALREADY_PAID

NOTHING_TO_GIVE_BACK: Final = frozenset(
    {"unknown_reservation", "already_released", "unknown_sku", "no_holds"}
)
"""Why a line may have nothing to give back: it was never reserved, or was released before."""


def line_id(order_id: str, sku: str) -> str:
    """The id of the reservation of one line."""
    return uuid.uuid5(NAMESPACE, f"line/{order_id}/{sku}").hex


async def react(order_id: str, event: Event, send: Send) -> None:
    """Bring the lines of an order to where its newest event wants them."""
    match event:
        case OrderPlaced():
            await _reserve(order_id, event, send)
        case OrderPaid(lines=lines):
            await _confirm(order_id, lines, send)
            await send(FinishOrder(send.id("finish"), order_id))
        case OrderCancelled(lines=lines):
            await _give_back(order_id, lines, send)


CHECKOUT: Final = ProcessManager(
    "checkout", ORDER.name, (OrderPlaced, OrderPaid, OrderCancelled), react
)


async def _reserve(order_id: str, event: OrderPlaced, send: Send) -> None:
    buyer, lines = event.buyer, event.lines
    # Events may come again long after; a refused order must not take units anew. The question has
    # an id of its own every time, because an answer to an older one would be remembered.
    step = await send(AskOrder(uuid.uuid4().hex, order_id))
    if step == ENDED:
        await _give_back(order_id, lines, send)
    if step != STILL_RESERVING:
        return
    reserved = await _send_all(
        send,
        (
            ReserveLine(_id(order_id, each), each.sku, buyer, each.quantity, order_id=order_id)
            for each in lines
        ),
    )
    refused = next((n for n, each in enumerate(reserved) if isinstance(each, Rejected)), None)
    if refused is None:
        until_us = min(each[0].held_until_us for each in reserved if isinstance(each[0], Reserved))
        if await send(AcceptOrder(send.id("accept"), order_id, until_us)) != ENDED:
            return
        # It was cancelled meanwhile.
    else:
        sku, reason = lines[refused].sku, reserved[refused].reason
        # Another reason is another request: what is decided anew may be refused for it.
        await send(RefuseOrder(send.id(f"refuse/{sku}/{reason}"), order_id, sku, reason))
    # Also when it was refused before: this time another line may have been reserved.
    await _give_back(order_id, lines, send)


async def _confirm(order_id: str, lines: tuple[Line, ...], send: Send) -> None:
    answers = await _send_all(
        send,
        (
            Confirm(send.id(each.sku), each.sku, _id(order_id, each), order_id=order_id)
            for each in lines
        ),
    )
    for answer in answers:
        if answer != STOCK_ALREADY_PAID and not isinstance(_event(answer), Confirmed):
            raise AssertionError(f"a line of a paid order cannot be confirmed: {answer}")


async def _give_back(order_id: str, lines: tuple[Line, ...], send: Send) -> None:
    answers = await _send_all(
        send,
        (
            Release(send.id(each.sku), each.sku, _id(order_id, each), order_id=order_id)
            for each in lines
        ),
    )
    for answer in answers:
        if isinstance(answer, Rejected) and answer.reason not in NOTHING_TO_GIVE_BACK:
            raise AssertionError(f"a line of an ended order cannot be given back: {answer.reason}")
    await send(FinishOrder(send.id("finish"), order_id))


async def _send_all(send: Send, commands: Iterable[Command]) -> list[Any]:
    """Their answers. When one has none, only once nothing is sent any more: what came after the lines
    were given back would reserve them for nobody."""
    answers = await asyncio.gather(*(send(each) for each in commands), return_exceptions=True)
    for answer in answers:
        if isinstance(answer, BaseException):
            raise answer
    return answers


def _id(order_id: str, line: Line) -> str:
    return line_id(order_id, line.sku)


def _event(answer: Answer) -> Event | None:
    return None if isinstance(answer, Rejected) else answer[0]
