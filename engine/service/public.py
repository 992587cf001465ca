"""The API of the buyers' listener, as a table of operations."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from engine.cqrs.messages import check_id
from engine.engine import Engine
from engine.errors import InvalidCommand
from engine.live_stock import StockRow
from engine.service.access import Access
from engine.service.buyer_stream import BuyerStreams
from engine.service.calls import EVENT_STREAM, Call, Operation, Parameter
from engine.service.carts import Carts
from engine.service.lookups import Lookups
from engine.service.replies import Reply, json_reply, problem, too_many_readers
from engine.service.reservations import Reservations
from engine.service.stream import READERS_MAX, Stream
from engine.service.wire import (
    LIST_ORDERS_MAX,
    About,
    CommandView,
    InDoubt,
    ListedOrder,
    ListedOutcome,
    OrderView,
    PlaceOrderBody,
    Problem,
    Reservation,
    ReservationPage,
    ReserveBody,
    SkuPage,
    TokenReserveBody,
)

Millis = Annotated[int, Meta(ge=1, le=600_000)]
Key = Annotated[str, Meta(min_length=1, max_length=64)]
PageSize = Annotated[int, Meta(ge=1, le=1_000)]

PAGE_MAX: Final = 1_000

KEY_TEXT: Final = "The command id: the same id with the same request always gets the same answer."
KEY = Parameter("Idempotency-Key", "header", Key, KEY_TEXT, required=True)
TOKEN_KEY = Parameter(
    *("Idempotency-Key", "header", Key),
    f"{KEY_TEXT} Required, but with a purchase token, whose nonce it is.",
)
OWN_KEY = Parameter(
    *("Idempotency-Key", "header", Key),
    "Left out, the change is the one change of its kind to what the path names.",
)
TIMEOUT = Parameter(
    *("X-Request-Timeout-Ms", "header", Millis),
    "How long the caller waits; what was not begun by then is not done.",
)
AFTER = Parameter("after", "query", str, "`next` of the page before.")
LIMIT = Parameter("limit", "query", PageSize, "Rows of a page.")
ONE_SKU = Parameter("sku", "query", Key, "Only this SKU.")
SEEN = Parameter("Last-Event-ID", "header", str, "The last event seen; later ones are sent.")

NOT_DONE: Final = {400: Problem, 401: Problem, 503: Problem}
CHANGED: Final = {
    200: Reservation,
    202: InDoubt,
    404: Problem,
    409: Problem,
    422: Problem,
    **NOT_DONE,
}

_place_order = msgspec.json.Decoder(PlaceOrderBody)


class Public:
    """The handlers that are more than one call."""

    def __init__(
        self,
        engine: Engine,
        access: Access,
        stream: Stream,
        buyer_streams: BuyerStreams,
        about: About,
    ) -> None:
        self._access = access
        self._stream = stream
        self._buyer_streams = buyer_streams
        self._about = about
        self._reservations = Reservations(engine)
        self._carts = Carts(engine)
        self._lookups = Lookups(engine)

    def operations(self, *, figures: bool) -> list[Operation]:
        """With `figures` buyers may see those of the whole sale, else the stock of a SKU at a time."""
        return [*self._selling(), *self._carts_operations(), *self.looking(figures=figures)]

    def _selling(self) -> list[Operation]:
        reserved = {201: Reservation, 202: InDoubt, 404: Problem, 409: Problem, 422: Problem}
        return [
            Operation(
                *("POST", "/v1/skus/{sku}/reservations", "Reserve units of one SKU: all or none"),
                {**reserved, 403: Problem, 413: Problem, 429: Problem, **NOT_DONE},
                body=ReserveBody | TokenReserveBody,
                parameters=(TOKEN_KEY, TIMEOUT),
            ),
            Operation(
                *(
                    "POST",
                    "/v1/reservations:batch",
                    "Reserve a list of orders, an outcome for each",
                ),
                {200: list[ListedOutcome], 403: Problem, 413: Problem, **NOT_DONE},
                body=Annotated[list[ListedOrder], Meta(min_length=1, max_length=LIST_ORDERS_MAX)],
                parameters=(TIMEOUT,),
                who="shop",
                lines=True,
            ),
            Operation(
                *("POST", "/v1/reservations/{id}/confirm", "Say that a reservation was paid"),
                *({403: Problem, **CHANGED}, self._confirm),
                parameters=(OWN_KEY,),
                who="shop",
            ),
            Operation(
                *("POST", "/v1/reservations/{id}/release", "Give a reservation back"),
                *(CHANGED, self._release),
                parameters=(OWN_KEY,),
            ),
            Operation(
                *(
                    "POST",
                    "/v1/reservations/{id}/extend",
                    "Hold a reservation for the sale's time, counted from now; once",
                ),
                *(CHANGED, self._extend),
                parameters=(OWN_KEY,),
            ),
        ]

    def _carts_operations(self) -> list[Operation]:
        order = {202: InDoubt, 403: Problem, 404: Problem, 409: Problem, 422: Problem, **NOT_DONE}
        return [
            Operation(
                *("POST", "/v1/orders", "Order several SKUs: all lines or none"),
                *({201: OrderView, 413: Problem, **order}, self._place),
                body=PlaceOrderBody,
                parameters=(KEY, TIMEOUT),
                who="shop",
            ),
            Operation(
                *("GET", "/v1/orders/{id}", "An order over several SKUs"),
                *({200: OrderView, 403: Problem, 404: Problem, **NOT_DONE}, self._order),
                who="shop",
            ),
            Operation(
                *("POST", "/v1/orders/{id}/pay", "Say that an order was paid"),
                *({200: OrderView, **order}, self._pay),
                parameters=(OWN_KEY,),
                who="shop",
            ),
            Operation(
                *("POST", "/v1/orders/{id}/cancel", "Give an order up that was not paid"),
                *({200: OrderView, **order}, self._cancel),
                parameters=(OWN_KEY,),
                who="shop",
            ),
        ]

    def looking(self, *, figures: bool) -> list[Operation]:
        found = {404: Problem, **NOT_DONE}
        return [
            *self.live(figures=figures),
            Operation(
                *("GET", "/v1/reservations/{id}", "A reservation as it is now"),
                *({200: Reservation, 202: InDoubt, **found}, self._reservation),
            ),
            Operation(
                *("GET", "/v1/commands/{id}", "What became of a command, after a timeout"),
                *({200: CommandView, 202: InDoubt, **found}, self._command),
            ),
            Operation(
                *(
                    "GET",
                    "/v1/commands/{id}/stream",
                    "The place in the queue, then the answer (SSE)",
                ),
                *({200: None, 400: Problem, 401: Problem, 503: Problem}, self._command_stream),
                content_type=EVENT_STREAM,
            ),
            Operation(
                *("GET", "/v1/buyers/{id}/reservations", "A buyer's reservations, newest first"),
                *({200: ReservationPage, 501: Problem, **found}, self._of_buyer),
                parameters=(AFTER, LIMIT),
            ),
        ]

    def live(self, *, figures: bool) -> list[Operation]:
        """What pages show; also on the operator's listener."""
        return [
            Operation(
                *("GET", "/v1/skus", "Every SKU, by name"),
                *({200: SkuPage, 400: Problem, 503: Problem}, self._skus),
                parameters=(AFTER, LIMIT),
                who="everybody",
            ),
            Operation(
                *("GET", "/v1/skus/{sku}", "One SKU"),
                *({200: StockRow, 400: Problem, 404: Problem, 503: Problem}, self._sku),
                who="everybody",
            ),
            Operation(
                *("GET", "/v1/about", "What is running here"),
                *({200: About, 503: Problem}, self._tell_about),
                who="everybody",
            ),
            Operation(
                *("GET", "/v1/stream", "Stock and figures as they change (SSE)"),
                *(
                    {200: None, 400: Problem, 404: Problem, 503: Problem},
                    self._live if figures else self._live_of_one,
                ),
                parameters=(ONE_SKU, SEEN),
                who="everybody",
                content_type=EVENT_STREAM,
            ),
        ]

    async def _confirm(self, call: Call) -> Reply:
        call.shop()
        return await self._reservations.confirm(
            call.caller(), call.path("id"), call.headers.command_id()
        )

    async def _release(self, call: Call) -> Reply:
        caller = call.caller()
        return await self._reservations.release(caller, call.path("id"), call.headers.command_id())

    async def _extend(self, call: Call) -> Reply:
        caller = call.caller()
        return await self._reservations.extend(caller, call.path("id"), call.headers.command_id())

    async def _place(self, call: Call) -> Reply:
        call.shop()
        body = await call.body(_place_order)
        return await self._carts.place(call.required_id(), body, call.headers.timeout_ms())

    async def _order(self, call: Call) -> Reply:
        call.shop()
        return await self._carts.get(call.path("id"))

    async def _pay(self, call: Call) -> Reply:
        call.shop()
        return await self._carts.pay(call.path("id"), call.headers.command_id())

    async def _cancel(self, call: Call) -> Reply:
        call.shop()
        return await self._carts.cancel(call.path("id"), call.headers.command_id())

    async def _reservation(self, call: Call) -> Reply:
        return await self._reservations.get(call.caller(), call.path("id"))

    async def _command(self, call: Call) -> Reply:
        return await self._reservations.command(call.caller(), call.path("id"))

    async def _command_stream(self, call: Call) -> AsyncIterator[bytes] | Reply:
        return self._buyer_streams.open(call.caller(), call.path("id"))

    async def _of_buyer(self, call: Call) -> Reply:
        buyer = call.path("id")
        check_id("buyer", buyer)
        limit = call.number("limit", 100, 1, PAGE_MAX)
        return await self._lookups.of_buyer(call.caller(), buyer, call.text("after"), limit)

    async def _skus(self, call: Call) -> Reply:
        return self._lookups.skus(call.text("after") or "", call.number("limit", 100, 1, PAGE_MAX))

    async def _sku(self, call: Call) -> Reply:
        sku = call.path("sku")
        check_id("SKU", sku)
        return self._lookups.sku(sku)

    async def _tell_about(self, _: Call) -> Reply:
        return json_reply(self._about)

    async def _live_of_one(self, call: Call) -> AsyncIterator[bytes] | Reply:
        if call.text("sku") is None:
            return problem(
                *(404, "figures_hidden", "The figures of the whole sale are the operator's"),
                "ask for one SKU, as in /v1/stream?sku=PHONE",
            )
        return await self._live(call)

    async def _live(self, call: Call) -> AsyncIterator[bytes] | Reply:
        sku = call.text("sku")
        if sku is not None:
            check_id("SKU", sku)
        if self._stream.readers >= READERS_MAX:
            return too_many_readers()
        return self._stream.read(sku, _event_id(call.headers.last_event_id))


def _event_id(text: bytes | None) -> int | None:
    if text is None:
        return None
    if not (text.isdigit() and len(text) < 19):
        raise InvalidCommand(
            f"Last-Event-ID must be the id of an event seen before, got {text[:40]!r}"
        )
    return int(text)
