"""What the users of one process share: orders, timetable, books, clock."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from time import perf_counter
from typing import Any

import gevent
import msgspec
from gevent.event import Event
from gevent.pool import Group

from loadtest.sale import SKU_PREFIX, Sale
from loadtest.swarm.arrivals import timetable
from loadtest.swarm.books import Books
from loadtest.swarm.orders import Order, endless_orders
from loadtest.swarm.shapes import Shape


class CrowdPlan(msgspec.Struct, frozen=True):
    """One run. `per_second` 0 is a closed loop; else orders are due for `seconds`.

    `prefix` begins every order's id. With `needs_token` a buyer asks `admin_url` for one first.
    """

    sale: Sale
    prefix: str
    shape: Shape
    per_second: float
    seconds: float
    list_size: int
    think_seconds: float
    admin_url: str
    admin_secret: str
    shop_secret: str
    needs_token: bool
    sku_prefix: str = SKU_PREFIX


class Crowd:
    """The share of one process in a run: it is at `place` of `of`."""

    def __init__(self, plan: CrowdPlan, place: int, of: int) -> None:
        self.plan = plan
        self.books = Books()
        self.orders: Iterator[Order] = endless_orders(
            plan.sale, plan.prefix, place, of, plan.sku_prefix
        )
        self._beside = Group()
        # Every process counts by its own clock: those of two machines differ.
        self._began = perf_counter()
        self._stopping = Event()
        self._timetable = (
            timetable(plan.shape, plan.per_second, plan.seconds, plan.sale.seed, place, of)
            if plan.per_second
            else None
        )

    @property
    def now(self) -> float:
        """Seconds since the run began."""
        return perf_counter() - self._began

    @property
    def stopping(self) -> bool:
        return bool(self._stopping.is_set())

    def stop(self) -> None:
        """Begin nothing more. What was due and not begun is counted."""
        if self.stopping:
            return
        self._stopping.set()
        now = self.now
        for due in self._timetable or ():
            if due > now:
                break
            self.books.outcomes.unsent += 1

    def next_due(self) -> float | None:
        """Wait until an order is due, and return when it was; None when there will be no more.

        Users take turns at the timetable. When all of them wait for replies, orders become late, and
        that is part of their latency.
        """
        if self._timetable is None:
            return None if self.stopping else self.now
        due = next(self._timetable, None)
        if due is None:
            return None
        if (early := due - self.now) > 0:
            self.pause(early)
        if self.stopping:
            if due <= self.now:
                self.books.outcomes.unsent += 1
            return None
        return due

    def pause(self, seconds: float, *, in_doubt: bool = False) -> None:
        """Wait, but no longer than until the run is stopped, unless an answer is still to come."""
        if in_doubt:
            gevent.sleep(seconds)
        elif not self.stopping:
            # Whoever waits for an event that is set while its notice is still to be given is put on that
            # notice, and it is called off when the last one who waited before gives up in the same round
            # (gevent 26.9): nobody would wake them.
            self._stopping.wait(seconds)

    def beside(self, work: Callable[..., None], *arguments: Any) -> None:
        """Do what comes after an order. In an open loop the user is free for the next one meanwhile:
        else buyers who think would look like a server that is slow."""
        if self._timetable is None:
            work(*arguments)
        else:
            self._beside.spawn(work, *arguments)

    def finish(self, seconds_max: float) -> None:
        """Wait for what is done beside, once the users have ended."""
        if not self._beside.join(timeout=seconds_max):
            self._beside.kill()

    def idle(self) -> None:
        """For a user who has nothing more to do."""
        gevent.sleep(0.2)


def closed_crowd() -> Crowd:
    """One that begins nothing."""
    plan = CrowdPlan(
        sale=Sale(),
        prefix="",
        shape="flash",
        per_second=0.0,
        seconds=0.0,
        list_size=1,
        think_seconds=0.0,
        admin_url="",
        admin_secret="",
        shop_secret="",
        needs_token=False,
    )
    crowd = Crowd(plan, 0, 1)
    crowd.stop()
    return crowd
