"""The ASGI application of one listener: the order path first, everything else through Starlette.

Every reply goes out through `Application`, which turns what is raised into problems, counts statuses,
and says no to everybody once the service is closing.
"""

from __future__ import annotations

import logging
from typing import Final

from starlette.exceptions import HTTPException
from starlette.routing import BaseRoute, Router

from engine.errors import EngineClosed, InvalidCommand, SeckillError
from engine.service.access import Denied
from engine.service.http import Disconnected, Receive, Scope, Send, respond
from engine.service.order_lists import OrderLists
from engine.service.orders import Orders
from engine.service.replies import Reply, failed, problem
from engine.service.tally import Tally

logger = logging.getLogger(__name__)

SKUS: Final = b"/v1/skus/"
RESERVATIONS: Final = b"/reservations"
BATCH: Final = b"/v1/reservations:batch"

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
    ) -> None:
        self._rest = Router(routes, redirect_slashes=False)
        self._tally = tally
        self._orders = orders
        self._lists = lists
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
            return failed(EngineClosed("the service is closing"))
        if scope["method"] != "POST":
            return None
        if self._orders is not None and path.startswith(SKUS) and path.endswith(RESERVATIONS):
            sku = path[len(SKUS) : -len(RESERVATIONS)]
            if sku and b"/" not in sku:
                return await self._orders.reserve(scope, receive, sku)
        elif self._lists is not None and path == BATCH:
            return await self._lists.reserve(scope, receive)
        return None


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
    return problem(error.status_code, "not_found", "There is nothing at this path")
