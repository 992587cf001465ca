"""The ASGI application of one listener: the order path first, everything else through Starlette.

Every reply to a whole request is made here: what is raised becomes a problem, statuses are counted, and
everybody is told no once the service is closing. What is no whole request is refused by server.py.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from starlette.exceptions import HTTPException
from starlette.routing import BaseRoute, Router

from engine.errors import EngineClosed, InvalidCommand, SeckillError
from engine.service.access import Denied
from engine.service.exposure import is_loopback
from engine.service.http import Disconnected, Headers, Receive, Scope, Send, read_body, respond
from engine.service.order_lists import OrderLists
from engine.service.orders import ORDER_BYTES_MAX, Done, Orders
from engine.service.replies import Reply, failed, problem
from engine.service.tally import Tally

logger = logging.getLogger(__name__)

SKUS: Final = b"/v1/skus/"
RESERVATIONS: Final = b"/reservations"
BATCH: Final = b"/v1/reservations:batch"

LENGTH_DIGITS_MAX: Final = 4
"""A body of at most 9,999 bytes, which is below ORDER_BYTES_MAX."""

CLOSING_ALLOWED: Final = frozenset({b"/healthz", b"/readyz", b"/metrics"})


class Truncated(Exception):
    """A reply broke off."""


class Application:
    """`orders` and `lists` are None on the listener that sells nothing."""

    def __init__(
        self,
        routes: list[BaseRoute],
        tally: Tally,
        orders: Orders | None = None,
        lists: OrderLists | None = None,
        *,
        loopback_only: bool = False,
    ) -> None:
        """`loopback_only`: serve only who asks for this machine by a name of its own."""
        self._rest = Router(routes, redirect_slashes=False)
        self._tally = tally
        self._orders = orders
        self._lists = lists
        self._loopback_only = loopback_only
        self.closing = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path: bytes = scope["raw_path"]
        started = False

        async def counting(message: Scope) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                self._tally.replies[message["status"]] += 1
            await send(message)

        try:
            reply = await self._fast(path, scope, receive)
            if reply is None:
                # Ids may hold any character: handlers decode their own segments.
                scope["path"] = _text(path)
                # With it the router raises what it does not find, and does not reply itself.
                scope["app"] = self
                await self._rest(scope, receive, counting)
                return
        except Disconnected:
            return
        except HTTPException as error:
            reply = _of_http(error)
        except Denied as denied:
            reply = denied.reply
        except SeckillError as error:
            reply = failed(error)
        except Exception:
            logger.exception("a request could not be handled: %s", scope["method"])
            reply = problem(500, "internal", "Something went wrong here")
        if started:
            # The server cuts the connection, so that what was sent is not taken for the whole.
            raise Truncated(f"a reply that had begun could not be finished: {reply.status}")
        await respond(counting, reply)

    async def _fast(self, path: bytes, scope: Scope, receive: Receive) -> Reply | None:
        """The reply to an order or a list of them, None for every other request."""
        if self.closing and path not in CLOSING_ALLOWED:
            # Else who asks again and again on its connection would hold up the end.
            reply = failed(EngineClosed("the service is closing"))
            return reply._replace(headers=[*reply.headers, (b"connection", b"close")])
        if self._loopback_only and not _names_this_machine(scope):
            return problem(
                *(421, "other_host", "This address is for this machine only"),
                "with the default admin secret the Host must be localhost or a loopback address",
            )
        if scope["method"] != "POST":
            return None
        if self._orders is not None and (sku := sku_of_order(path)) is not None:
            return await self._order(self._orders, sku, scope, receive)
        if self._lists is not None and path == BATCH:
            return await self._lists.reserve(scope, receive)
        return None

    async def _order(self, orders: Orders, sku: bytes, scope: Scope, receive: Receive) -> Reply:
        """An order that did not take the shortcut of the server's protocol."""
        headers = Headers(scope)
        body = await read_body(receive, headers.length, ORDER_BYTES_MAX)
        answered: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()

        def done(reply: Reply) -> None:
            if not answered.done():
                answered.set_result(reply)

        orders.begin(headers, sku, body, done)
        return await answered

    def shortcut(self, scope: Scope) -> bytes | None:
        """The SKU of a request that is a small order, None for every other one.

        The server hands such a request to `begin_order` without a task of its own.
        """
        if self._orders is None or self.closing or scope["method"] != "POST":
            return None
        sku = sku_of_order(scope["raw_path"])
        if sku is None:
            return None
        length = next((value for name, value in scope["headers"] if name == b"content-length"), b"")
        # Without a length it may be of any size; those and large ones go the longer way.
        return sku if 0 < len(length) <= LENGTH_DIGITS_MAX else None

    def begin_order(self, scope: Scope, sku: bytes, body: bytes, done: Done) -> None:
        """Answer what `shortcut` has found, whatever happens."""
        assert self._orders is not None

        def counted(reply: Reply) -> None:
            self._tally.replies[reply.status] += 1
            done(reply)

        self._orders.begin(Headers(scope), sku, body, counted)


def sku_of_order(path: bytes) -> bytes | None:
    """The percent-encoded SKU of /v1/skus/{sku}/reservations, None for another path."""
    if not (path.startswith(SKUS) and path.endswith(RESERVATIONS)):
        return None
    sku = path[len(SKUS) : -len(RESERVATIONS)]
    return sku if sku and b"/" not in sku else None


def _names_this_machine(scope: Scope) -> bool:
    """Whether the Host header is that of a loopback address.

    A page from elsewhere whose name was made to lead here (DNS rebinding) could use a known secret.
    """
    host = next((value for name, value in scope["headers"] if name == b"host"), b"").decode(
        "latin-1"
    )
    name, colon, port = host.rpartition(":")
    return is_loopback((name if colon and port.isdigit() else host).strip("[]"))


def _text(path: bytes) -> str:
    try:
        return path.decode()
    except UnicodeDecodeError:
        raise InvalidCommand("the path must be percent-encoded UTF-8") from None


def _of_http(error: HTTPException) -> Reply:
    """What Starlette's routing says: no such path, or not that method."""
    if error.status_code == 405:
        reply = problem(405, "method_not_allowed", "This method is not for that path")
        allowed = (error.headers or {}).get("Allow", "")
        return reply._replace(headers=[*reply.headers, (b"allow", allowed.encode())])
    return problem(
        *(error.status_code, "not_found", "There is nothing at this path"),
        "buyers and the operator have listeners of their own; /v1/openapi.json lists the paths",
    )
