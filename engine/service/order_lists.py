"""POST /v1/reservations:batch: many orders in one request, an outcome for each.

A list is refused whole only when it is malformed, too large, or when there is no room: then nothing
of it happened. Room is looked at before the body is read and decoded, so that lists nobody can take
cost next to nothing. There is none either when a list could not be answered in the time its caller
waits: else a flood would be decoded and queued only to expire, and nobody would be answered in time.
"""

from __future__ import annotations

from collections.abc import Sequence
from time import perf_counter
from typing import Final

import msgspec

from engine.cqrs.messages import Rejected
from engine.engine import Engine, ReserveOutcome
from engine.errors import InvalidCommand, OutcomeUnknown, Overloaded
from engine.gate.gate import Gate, GateOrder
from engine.inventory.commands import Reserve
from engine.inventory.events import Reserved
from engine.service.access import Access, Denied
from engine.service.http import Headers, Receive, Scope, decode, read_body
from engine.service.ids import check_sku, make_id
from engine.service.orders import gate_reply
from engine.service.replies import STATUS_OF_REASON, Reply, describe, failed
from engine.service.wire import LIST_ORDERS_MAX, ListedOrder, ListedOutcome

NDJSON: Final = b"application/x-ndjson"

SATURATED_BYTES: Final = 500_000
"""Of lists under way together: about a batch of the engine. Less says nothing of how fast it is, because
it waits for the disk and not for others; so much is always admitted."""

SECONDS_PER_BYTE_MIN: Final = 2e-7
"""75,000 orders of 66 bytes a second. A faster pace is not believed: that of a quiet hour says little of
the first moment of a flood, in which most of the time goes into refusing."""

PACE_WEIGHT: Final = 0.2
"""Of the newest list in the pace: a hiccup of the disk is forgotten after ten lists."""

_list = msgspec.json.Decoder(list[ListedOrder])
_line = msgspec.json.Decoder(ListedOrder)
_encoder = msgspec.json.Encoder()


class OrderLists:
    def __init__(
        self,
        engine: Engine,
        access: Access,
        gate: Gate | None,
        body_bytes_max: int,
        lists_bytes_max: int,
    ) -> None:
        self._engine = engine
        self._access = access
        self._gate = gate
        self._body_bytes_max = body_bytes_max
        self._lists_bytes_max = lists_bytes_max
        self._bytes = 0
        self._arriving = 0
        self._seconds_per_byte = SECONDS_PER_BYTE_MIN

    async def reserve(self, scope: Scope, receive: Receive) -> Reply:
        """Reserve a list. Raises Denied, InvalidCommand, Disconnected and what `reserve_many` raises
        for a whole list."""
        headers = Headers(scope)
        self._access.shop(headers.authorization)
        timeout_ms = headers.timeout_ms()
        lines = _is_ndjson(headers.content_type)
        # Without a length it may become as long as any may be.
        expected = self._body_bytes_max if headers.length is None else int(headers.length)
        self._check_room(expected, timeout_ms)
        body = await self._read(receive, headers.length)
        # Others may have come meanwhile; what is sent slowly holds no room for itself.
        self._check_room(len(body), timeout_ms)
        size = len(body)
        self._bytes += size
        under_way, began = self._bytes, perf_counter()
        try:
            orders = _decode_lines(body) if lines else decode(_list, body)
            commands = _commands(orders)
            del body, orders
            outcomes = await self._decide(commands, timeout_ms)
            listed = [_listed(*each) for each in zip(commands, outcomes, strict=True)]
            self._answered(under_way, perf_counter() - began)
        finally:
            self._bytes -= size
        if lines:
            return Reply(200, _encoder.encode_lines(listed), content_type=NDJSON)
        return Reply(200, _encoder.encode(listed))

    async def _read(self, receive: Receive, length: bytes | None) -> bytes:
        """The body. What has arrived of all lists is bounded, whatever their heads announce."""
        size = 0

        def arrived(count: int) -> None:
            nonlocal size
            if self._bytes + self._arriving + count > self._lists_bytes_max:
                raise self._no_room()
            size += count
            self._arriving += count

        try:
            return await read_body(receive, length, self._body_bytes_max, arrived)
        finally:
            self._arriving -= size

    def _check_room(self, expected: int, timeout_ms: int | None) -> None:
        if self._bytes and self._bytes + expected > self._room(timeout_ms):
            raise self._no_room()

    def _no_room(self) -> Denied:
        return Denied(failed(Overloaded(self._bytes, self._lists_bytes_max, 0.1)))

    def _room(self, timeout_ms: int | None) -> float:
        """Bytes of lists that may be under way for one that waits so long.

        At the pace of late they are answered in a quarter of that time: in a flood a request also
        waits before it is read and an answer before it is taken, which is not seen from here.
        """
        seconds = (timeout_ms or self._engine.settings.queue.deadline_ms) / 1_000
        in_time = max(SATURATED_BYTES, seconds / 4 / self._seconds_per_byte)
        return min(self._lists_bytes_max, in_time)

    def _answered(self, under_way: int, seconds: float) -> None:
        """Learn from a list that took so long while `under_way` bytes, its own among them, were."""
        pace = max(SECONDS_PER_BYTE_MIN, seconds / max(under_way, SATURATED_BYTES))
        self._seconds_per_byte += (pace - self._seconds_per_byte) * PACE_WEIGHT

    async def _decide(
        self, commands: Sequence[Reserve], timeout_ms: int | None
    ) -> Sequence[ReserveOutcome | Reply]:
        if self._gate is None:
            return await self._engine.reserve_many(commands, timeout_ms=timeout_ms)
        for index, each in enumerate(commands):
            # The engine sees only what passes, and a list with a malformed order is refused whole.
            try:
                each.check()
            except InvalidCommand as error:
                raise InvalidCommand(f"command {index} of the list: {error}") from None
        verdicts = await self._gate.check(
            [GateOrder(each.aggregate_id, each.buyer) for each in commands]
        )
        stopped = [
            gate_reply(self._engine, verdict, each.aggregate_id, each.id)
            for each, verdict in zip(commands, verdicts, strict=True)
        ]
        passed = [each for each, reply in zip(commands, stopped, strict=True) if reply is None]
        decided = iter(await self._engine.reserve_many(passed, timeout_ms=timeout_ms))
        return [next(decided) if reply is None else reply for reply in stopped]


def _is_ndjson(content_type: bytes | None) -> bool:
    kind = (content_type or b"application/json").split(b";")[0].strip().lower()
    return kind in (NDJSON, b"application/ndjson", b"application/jsonl")


def _decode_lines(body: bytes) -> list[ListedOrder]:
    try:
        return _line.decode_lines(body)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise InvalidCommand(f"a line is not an order: {error}") from None


def _commands(orders: Sequence[ListedOrder]) -> list[Reserve]:
    if not 1 <= len(orders) <= LIST_ORDERS_MAX:
        raise InvalidCommand(f"a list holds 1 to {LIST_ORDERS_MAX:,} orders, got {len(orders):,}")
    for each in orders:
        check_sku(each.sku)
    return [Reserve(each.id, each.sku, each.buyer, each.quantity) for each in orders]


def _listed(command: Reserve, outcome: ReserveOutcome | Reply) -> ListedOutcome:
    id_ = make_id(command.aggregate_id, command.id)
    if isinstance(outcome, Reserved):
        if outcome.held_until_us:
            return ListedOutcome(id_, 201, outcome.quantity, outcome.held_until_us // 1_000)
        return ListedOutcome(id_, 201, outcome.quantity)
    if isinstance(outcome, Rejected):
        status = STATUS_OF_REASON.get(outcome.reason, 409)
        return ListedOutcome(id_, status, reason=outcome.reason)
    if isinstance(outcome, OutcomeUnknown):
        return ListedOutcome(id_, 202, reason="in_doubt")
    if isinstance(outcome, Reply):
        status = outcome.status
        return ListedOutcome(id_, status, reason="sold_out" if status == 409 else "too_fast")
    status, reason, title = describe(outcome)
    return ListedOutcome(id_, status, reason=reason, detail=title)
