"""Orders over HTTP at a server: closed loop (as fast as it answers) and open loop (at a rate).

Latency counts from when a request was due, not from when it could be sent: a server that holds the
generator up does not look fast for it.
"""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from time import perf_counter as clock  # that of uvloop counts whole milliseconds
from typing import Final, NamedTuple

from loadtest.http_client import HttpConnection, HttpReply

LIST_PATH: Final = "/v1/reservations:batch"
ORDER_PATH: Final = "/v1/skus/HOT/reservations"
DRAIN_SECONDS_MAX: Final = 20.0
CONNECT_AT_ONCE: Final = 100

NO_CONNECTION: Final = "not sent: no connection free"
NO_REPLY: Final = "no reply"
IN_DOUBT: Final = "202"
"""Of a single order; in a list it is the number 202."""

DEFINITE: Final = (201, 409)
LISTED: Final = (201, 409, 202, 404, 422, 429, 503)
"""What may stand beside an order of a list."""


REASON: Final = re.compile(rb'"reason":"(\w+)"')


class Request(NamedTuple):
    """`orders` of one request, encoded."""

    path: str
    headers: dict[str, str]
    body: bytes
    orders: int


class Sample(NamedTuple):
    """One answered request: when it was due, how long it took, and what became of its orders."""

    due: float
    seconds: float
    definite: int
    others: int


class Load:
    """What a phase of load saw. `orders` counts by status, of single orders and of those in lists."""

    def __init__(self) -> None:
        self.samples: list[Sample] = []
        self.orders: Counter[int | str] = Counter()
        self.began = self.ended = 0.0

    @property
    def seconds(self) -> float:
        return self.ended - self.began

    def within(self, deadline_seconds: float) -> int:
        """Orders that had a definite answer in time."""
        return sum(each.definite for each in self.samples if each.seconds <= deadline_seconds)


def list_requests(size: int, prefix: str, timeout_ms: int | None = None) -> Iterator[Request]:
    """Lists of `size` orders without end. A body is copied from one that was encoded beforehand."""
    body = b",".join(
        b'{"id":"%s-@@@@@@@@-%d","sku":"HOT","buyer":"b-@@@@@@@@-%d","quantity":1}'
        % (prefix.encode(), n, n)
        for n in range(size)
    )
    headers = {"Content-Type": "application/json", **_timeout(timeout_ms)}
    number = 0
    while True:
        yield Request(LIST_PATH, headers, b"[%s]" % body.replace(b"@" * 8, b"%08d" % number), size)
        number += 1


def order_requests(prefix: str, timeout_ms: int | None = None) -> Iterator[Request]:
    """Single orders without end."""
    more = {"Content-Type": "application/json", **_timeout(timeout_ms)}
    number = 0
    while True:
        headers = {"Idempotency-Key": f"{prefix}-{number}", **more}
        yield Request(ORDER_PATH, headers, b'{"buyer":"b-%d","quantity":1}' % number, 1)
        number += 1


class Generator:
    """Connections to one server, kept open from phase to phase."""

    def __init__(self, address: tuple[str, int]) -> None:
        self._address = address
        self._connections: list[HttpConnection] = []

    async def connect(self, count: int) -> None:
        """Have at least `count` connections. Raises OSError."""
        while (missing := count - len(self._connections)) > 0:
            # More at once would overflow the backlog of the listener.
            some = min(missing, CONNECT_AT_ONCE)
            made = (HttpConnection.connect(*self._address) for _ in range(some))
            self._connections += await asyncio.gather(*made)

    def close(self) -> None:
        for each in self._connections:
            each.close()

    async def closed_loop(
        self, requests: Iterator[Request], connections: int, seconds: float | None = None
    ) -> Load:
        """Each connection sends its next request when it has the reply, until `seconds` or the end."""
        await self.connect(connections)
        load = Load()
        load.began = clock()
        until = None if seconds is None else load.began + seconds

        async def send(place: int) -> None:
            for request in requests:
                await self._send(place, request, load, clock())
                if until is not None and clock() >= until:
                    return

        await asyncio.gather(*(send(place) for place in range(connections)))
        load.ended = clock()
        return load

    async def open_loop(
        self, requests: Iterator[Request], connections: int, per_second: float, seconds: float
    ) -> Load:
        """Requests at a rate, whatever becomes of them; one that finds no connection free is lost."""
        await self.connect(connections)
        load = Load()
        free = list(range(connections))
        under_way: set[asyncio.Task[None]] = set()

        async def send(place: int, request: Request, due: float) -> None:
            await self._send(place, request, load, due)
            free.append(place)

        load.began = clock()
        for number in range(int(per_second * seconds)):
            due = load.began + number / per_second
            # Also when it is late: replies have their turn between two requests.
            await asyncio.sleep(max(0.0, due - clock()))
            if clock() >= load.began + seconds:
                break
            request = next(requests)
            if not free:
                load.orders[NO_CONNECTION] += request.orders
                continue
            task = asyncio.create_task(send(free.pop(), request, due))
            under_way.add(task)
            task.add_done_callback(under_way.discard)
        load.ended = clock()
        if under_way:
            _, hanging = await asyncio.wait(under_way, timeout=DRAIN_SECONDS_MAX)
            for each in hanging:
                each.cancel()
        return load

    async def _send(self, place: int, request: Request, load: Load, due: float) -> None:
        """Send and count; the connection is made anew when it ended."""
        path, headers, body, orders = request
        connection = self._connections[place]
        if not connection.open:
            with suppress(OSError):
                self._connections[place] = await HttpConnection.connect(*self._address)
            connection = self._connections[place]
        try:
            reply = await connection.request("POST", path, body, headers)
        except (ConnectionError, asyncio.CancelledError):
            load.orders[NO_REPLY] += orders
            return
        answered = clock()
        found = statuses(reply, orders)
        load.orders.update(found)
        definite = sum(found[each] for each in DEFINITE)
        load.samples.append(Sample(due, answered - due, definite, orders - definite))


def statuses(reply: HttpReply, orders: int) -> Counter[int | str]:
    """The orders of a reply by status: of a list each has its own, unless it was refused whole.

    What was refused whole has its reason as well, so that it shows which limit it was.
    """
    if reply.status in DEFINITE:
        return Counter({reply.status: orders})
    if reply.status != 200:
        reason = REASON.search(reply.body)
        told = reason[1].decode() if reason else ""
        return Counter({f"{reply.status} {told}".strip(): orders})
    found: Counter[int | str] = Counter()
    for status in LISTED:
        if count := reply.body.count(b'"status":%d' % status):
            found[status] = count
            if (orders := orders - count) <= 0:
                break
    if orders:
        found["unreadable"] = orders
    return found


def windows(samples: Sequence[Sample], began: float, width_seconds: float) -> list[list[Sample]]:
    """Samples by when they were due, in windows of one width from `began` on."""
    found: list[list[Sample]] = []
    for each in samples:
        place = max(0, int((each.due - began) / width_seconds))
        while len(found) <= place:
            found.append([])
        found[place].append(each)
    return found


def _timeout(timeout_ms: int | None) -> dict[str, str]:
    return {} if timeout_ms is None else {"X-Request-Timeout-Ms": str(timeout_ms)}
