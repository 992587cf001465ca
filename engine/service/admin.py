"""The API of the operator's listener: sales are opened and run, exported and audited."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import AsyncIterator, Awaitable
from typing import Any, Final

import msgspec

from engine.auth_settings import AuthSettings
from engine.clock import Clock
from engine.cqrs.messages import Event, Rejected, check_id
from engine.engine import Engine
from engine.errors import ConfigError, OutcomeUnknown, StoreUnavailable
from engine.inventory.audit import AuditReport
from engine.live_stock import StockRow
from engine.service.auditing import audit_live
from engine.service.calls import Call, Operation, Parameter
from engine.service.csv_export import export
from engine.service.ids import check_sku, command_link, make_id
from engine.service.lookups import unknown_sku
from engine.service.metrics import CONTENT_TYPE, Metrics
from engine.service.public import KEY, KEY_TEXT, NOT_DONE
from engine.service.replies import Reply, in_doubt, json_reply, problem, refused
from engine.service.tokens import Purchase, sign
from engine.service.wire import (
    InDoubt,
    OpenBody,
    Problem,
    QuantityBody,
    TokenBody,
    TokenView,
)

logger = logging.getLogger(__name__)

_open_body = msgspec.json.Decoder(OpenBody)
_quantity = msgspec.json.Decoder(QuantityBody)
_token_body = msgspec.json.Decoder(TokenBody)

NEW_KEY: Final = Parameter(
    *("Idempotency-Key", "header", KEY.kind), f"{KEY_TEXT} Left out, a new one is drawn."
)
AUDIT_RETRY_MS: Final = 5_000
SKU_CHANGED: Final = {
    200: StockRow,
    202: InDoubt,
    404: Problem,
    409: Problem,
    422: Problem,
    **NOT_DONE,
}


class Session(msgspec.Struct, frozen=True):
    """The admin secret is right."""

    admin: bool = True


class Admin:
    """Every handler asks for the admin secret first."""

    def __init__(self, engine: Engine, metrics: Metrics, auth: AuthSettings, clock: Clock) -> None:
        self._engine = engine
        self._metrics = metrics
        self._auth = auth
        self._clock = clock
        self._auditing = asyncio.Lock()

    def operations(self) -> list[Operation]:
        sku = "/v1/admin/skus/{sku}"
        return [
            Operation(
                *("GET", "/v1/admin/session", "Whether the admin secret is right"),
                *({200: Session, 401: Problem, 503: Problem}, self._session),
                who="admin",
            ),
            Operation(
                *("POST", f"{sku}/open", "Put a new SKU on sale"),
                *({201: StockRow, **SKU_CHANGED}, self._open),
                body=OpenBody,
                parameters=(NEW_KEY,),
                who="admin",
            ),
            self._with_quantity(f"{sku}/restock", "Add units", self._restock),
            self._with_quantity(f"{sku}/withdraw", "Take unsold units out", self._withdraw),
            Operation(
                *("POST", f"{sku}/pause", "Stop selling until resumed", SKU_CHANGED, self._pause),
                parameters=(NEW_KEY,),
                who="admin",
            ),
            Operation(
                *("POST", f"{sku}/resume", "Go on selling", SKU_CHANGED, self._resume),
                parameters=(NEW_KEY,),
                who="admin",
            ),
            Operation(
                *("POST", f"{sku}/close", "End the sale for good", SKU_CHANGED, self._close),
                parameters=(NEW_KEY,),
                who="admin",
            ),
            Operation(
                *("GET", f"{sku}/export.csv", "Every event of a SKU as CSV"),
                *({200: None, 404: Problem, **NOT_DONE}, self._export),
                who="admin",
                content_type="text/csv",
            ),
            Operation(
                *("POST", "/v1/admin/audit", "Prove from its events that the store sold right"),
                *({200: AuditReport, **NOT_DONE}, self._audit),
                who="admin",
            ),
            Operation(
                *("POST", "/v1/admin/tokens", "A purchase token for one buyer and SKU"),
                *({201: TokenView, 413: Problem, 501: Problem, **NOT_DONE}, self._token),
                body=TokenBody,
                who="admin",
            ),
            Operation(
                *("GET", "/metrics", "For Prometheus", {200: None, 503: Problem}, self._scrape),
                who="everybody",
                content_type="text/plain",
            ),
        ]

    def _with_quantity(self, path: str, summary: str, handler: Any) -> Operation:
        return Operation(
            *("POST", path, summary, {**SKU_CHANGED, 413: Problem}, handler),
            body=QuantityBody,
            parameters=(KEY,),
            who="admin",
        )

    async def _session(self, call: Call) -> Reply:
        call.admin()
        return json_reply(Session())

    async def _open(self, call: Call) -> Reply:
        call.admin()
        sku, body = call.path("sku"), await call.body(_open_body)
        check_sku(sku)
        id_ = _id(call)
        opening = self._engine.open_sale(
            sku,
            stock=body.stock,
            limit_per_buyer=body.limit_per_buyer,
            hold_seconds=body.hold_seconds,
            command_id=id_,
        )
        return await self._change("opened", sku, id_, opening, 201)

    async def _restock(self, call: Call) -> Reply:
        call.admin()
        sku, body, id_ = call.path("sku"), await call.body(_quantity), call.required_id()
        restocking = self._engine.restock(sku, quantity=body.quantity, command_id=id_)
        return await self._change(f"restocked by {body.quantity:,}", sku, id_, restocking)

    async def _withdraw(self, call: Call) -> Reply:
        call.admin()
        sku, body, id_ = call.path("sku"), await call.body(_quantity), call.required_id()
        withdrawing = self._engine.withdraw(sku, quantity=body.quantity, command_id=id_)
        return await self._change(f"reduced by {body.quantity:,}", sku, id_, withdrawing)

    async def _pause(self, call: Call) -> Reply:
        call.admin()
        sku, id_ = call.path("sku"), _id(call)
        return await self._change("paused", sku, id_, self._engine.pause_sale(sku, command_id=id_))

    async def _resume(self, call: Call) -> Reply:
        call.admin()
        sku, id_ = call.path("sku"), _id(call)
        resuming = self._engine.resume_sale(sku, command_id=id_)
        return await self._change("resumed", sku, id_, resuming)

    async def _close(self, call: Call) -> Reply:
        call.admin()
        sku, id_ = call.path("sku"), _id(call)
        return await self._change("closed", sku, id_, self._engine.close_sale(sku, command_id=id_))

    async def _change(
        self,
        what: str,
        sku: str,
        command_id: str,
        changing: Awaitable[Event | Rejected],
        status: int = 200,
    ) -> Reply:
        """Do it and reply with the SKU as it is then."""
        try:
            answer = await changing
        except OutcomeUnknown:
            return in_doubt(make_id(sku, command_id), command_link(sku, command_id))
        if isinstance(answer, Rejected):
            return refused(answer)
        logger.info("sale %s", what, extra={"sku": sku, "command_id": command_id})
        try:
            # Not the live row: that of a gateway comes a moment later.
            row = await self._engine.stock(sku)
        except StoreUnavailable:
            return in_doubt(make_id(sku, command_id), command_link(sku, command_id))
        assert row is not None, "a SKU that was changed has a row"
        self._engine.live.learn(row)
        return json_reply(row, status)

    async def _export(self, call: Call) -> AsyncIterator[bytes] | Reply:
        call.admin()
        sku = call.path("sku")
        check_id("SKU", sku)
        # As with a change: another gateway may have opened it a moment ago.
        if await self._engine.stock(sku) is None:
            return unknown_sku()
        return export(self._engine.reader, sku)

    async def _audit(self, call: Call) -> Reply:
        call.admin()
        if self._auditing.locked():
            return problem(
                *(503, "audit_running", "An audit is running", "try again when it has ended"),
                retry_after_ms=AUDIT_RETRY_MS,
            )
        async with self._auditing:
            report = await audit_live(self._engine)
        logger.info("audit", extra={"ok": report.ok})
        return json_reply(report)

    async def _token(self, call: Call) -> Reply:
        call.admin()
        body = await call.body(_token_body)
        if not self._auth.token_key:
            raise ConfigError(
                'purchase tokens need auth.token_key; set it, and auth.mode to "token"'
            )
        until = self._clock.wall_us() // 1_000_000 + body.seconds
        purchase = Purchase(body.buyer, body.sku, until, uuid.uuid4().hex)
        return json_reply(TokenView(sign(self._auth.token_key, purchase)), 201)

    async def _scrape(self, _: Call) -> Reply:
        return Reply(200, await self._metrics.render(), content_type=CONTENT_TYPE)


def _id(call: Call) -> str:
    return call.headers.command_id() or uuid.uuid4().hex
