"""What buyers do, as classes of Locust."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Final

import gevent
from locust import FastHttpUser, constant, task

from loadtest.swarm.calls import Accepted, Again, Broken, Calls, InDoubt, Refused, Verdict
from loadtest.swarm.crowd import Crowd, closed_crowd
from loadtest.swarm.orders import Order

ATTEMPTS_MAX: Final = 50
"""Sendings of one order before it is given up; with the server's usual hint that is 5 seconds."""

NO_TOKEN: Final = Broken("no purchase token")

IMPATIENCE_SECONDS: Final = 0.01
READ_PAUSE_SECONDS: Final = 0.05
"""A page that polls 20 times a second is already a bad one."""


class Shopper(FastHttpUser):
    """Everybody who talks to the shop. `crowd` is set when a run begins that may begin."""

    abstract = True
    wait_time = constant(0)
    crowd: ClassVar[Crowd] = closed_crowd()

    @property
    def calls(self) -> Calls:
        # Of the crowd as it is now: a worker's users may be there before its share of the run is.
        return Calls(self.client, self.crowd.plan.shop_secret)

    def order(self) -> tuple[Order, float] | None:
        """The next order and when it was due; None when there is none to be begun any more."""
        due = self.crowd.next_due()
        if due is None:
            self.crowd.idle()
            return None
        return next(self.crowd.orders), due

    def settle(self, send: Callable[[bool], Verdict]) -> Verdict:
        """Send until there is a definite answer, or no time left; InDoubt stays InDoubt.

        `send` is told whether it is called for the first time.
        """
        verdict, in_doubt = send(True), False
        for _ in range(ATTEMPTS_MAX):
            match verdict:
                case Again(pause) | InDoubt(pause):
                    self.crowd.books.outcomes.retried += isinstance(verdict, Again)
                    in_doubt = in_doubt or isinstance(verdict, InDoubt)
                    self.crowd.pause(pause, in_doubt=in_doubt)
                case _:
                    return verdict
            if self.crowd.stopping and not in_doubt:
                break
            verdict = send(False)
        # An earlier sending may have gone through, whatever the last one says.
        return InDoubt(0) if in_doubt and isinstance(verdict, Again) else verdict


class OneOrder(Shopper):
    """The whole life of an order: token, reserve, pay or leave.

    What inherits from it has one task: Locust adds the tasks of all base classes together.
    """

    abstract = True

    def token_for(self, order: Order) -> str | None:
        plan = self.crowd.plan
        if not plan.needs_token:
            return None
        return self.calls.token(plan.admin_url, plan.admin_secret, order)

    def reserve(self, order: Order, due: float, token: str | None) -> Verdict | None:
        """Send an order to its definite answer, and note it. None when the user was stopped."""
        crowd, books = self.crowd, self.crowd.books
        books.sent(crowd.now)
        verdict: Verdict | None = None

        def send(first: bool) -> Verdict:
            late_ms = max(0.0, crowd.now - due) * 1_000 if first and crowd.plan.per_second else None
            return self.calls.reserve(order, token, late_ms)

        try:
            verdict = NO_TOKEN if token == "" else self.ask(send)
        finally:
            # Also when the user is killed: what was sent may have arrived.
            note(crowd, order, due, verdict)
        return verdict

    def ask(self, send: Callable[[bool], Verdict]) -> Verdict:
        return self.settle(send)

    def pay_or_leave(self, order: Order, reservation_id: str) -> None:
        """Think it over, then pay, or never come back: the units are given back by the engine."""
        crowd, books = self.crowd, self.crowd.books
        if not order.pays:
            books.outcomes.left += 1
            return
        verdict: Verdict | None = Again(0)
        try:
            # Whoever is stopped while they think has sent nothing.
            crowd.pause(order.pace * crowd.plan.think_seconds)
            verdict = None
            verdict = self.settle(lambda _: self.calls.confirm(reservation_id))
        finally:
            # Not a moment earlier: books are emptied whenever they are sent to the master.
            outcomes = books.outcomes
            match verdict:
                case Accepted():
                    outcomes.paid += 1
                    outcomes.paid_units += order.quantity
                case Refused():
                    outcomes.too_late += 1
                case Again():
                    outcomes.left += 1
                case _:
                    outcomes.pay_unknown += 1
                    outcomes.pay_unknown_units += order.quantity
                    if isinstance(verdict, Broken):
                        books.note(f"payment of {reservation_id}: {verdict.what}")


class Buyer(OneOrder):
    """One order a request."""

    weight = 8

    @task
    def buy(self) -> None:
        if (found := self.order()) is None:
            return
        order, due = found
        verdict = self.reserve(order, due, self.token_for(order))
        if isinstance(verdict, Accepted) and verdict.held:
            self.crowd.beside(self.pay_or_leave, order, verdict.id)


class Impatient(OneOrder):
    """Sends every order twice, the second time before the first is answered.

    Both must get the same answer.
    """

    weight = 1

    @task
    def buy(self) -> None:
        if (found := self.order()) is None:
            return
        order, due = found
        token = self.token_for(order)
        self.first: Verdict | None = None
        self.second = gevent.spawn_later(IMPATIENCE_SECONDS, self.repeat, order, token)
        try:
            verdict = self.reserve(order, due, token)
            again = self.second.get()
        finally:
            self.second.kill()
        # Only two definite answers can be compared.
        if is_definite(self.first) and is_definite(again):
            books = self.crowd.books
            books.sent(self.crowd.now)
            if again == self.first:
                books.repeated(self.crowd.now, due)
            else:
                books.fail(f"order {order.command_id}: {self.first}, and {again} when repeated")
        if isinstance(verdict, Accepted) and verdict.held:
            self.crowd.beside(self.pay_or_leave, order, verdict.id)

    def ask(self, send: Callable[[bool], Verdict]) -> Verdict:
        self.first = self.settle(send)
        if is_definite(self.first):
            return self.first
        # It is one order: what the repeat was answered is its answer too.
        again: Verdict = self.second.get()
        return again if is_definite(again) or isinstance(again, InDoubt) else self.first

    def repeat(self, order: Order, token: str | None) -> Verdict:
        if token == "":
            return NO_TOKEN
        return self.settle(lambda _: self.calls.reserve(order, token))


class ListBuyer(Shopper):
    """A gateway that collects orders and sends them as lists."""

    weight = 1

    @task
    def buy(self) -> None:
        crowd = self.crowd
        due = crowd.next_due()
        if due is None:
            crowd.idle()
            return
        open_orders = {
            order.command_id: order
            for order in (next(crowd.orders) for _ in range(crowd.plan.list_size))
        }
        crowd.books.sent(crowd.now, len(open_orders))
        verdicts: dict[str, Verdict] = {}
        try:
            self.send_until_answered(open_orders, verdicts, due)
        finally:
            note_list(crowd, open_orders, verdicts, due)

    def send_until_answered(
        self, orders: dict[str, Order], verdicts: dict[str, Verdict], due: float
    ) -> None:
        waiting = list(orders.values())
        for attempt in range(ATTEMPTS_MAX):
            late = self.crowd.now - due if not attempt and self.crowd.plan.per_second else None
            found = self.calls.reserve_list(waiting, None if late is None else late * 1_000)
            for order, verdict in zip(waiting, found, strict=True):
                # In doubt once is in doubt until there is a definite answer.
                was = verdicts.get(order.command_id)
                if not (isinstance(was, InDoubt) and isinstance(verdict, Again)):
                    verdicts[order.command_id] = verdict
            unsure = [each for each in found if isinstance(each, Again | InDoubt)]
            if not unsure:
                return
            waiting = [
                each for each in waiting if isinstance(verdicts[each.command_id], Again | InDoubt)
            ]
            self.crowd.books.outcomes.retried += sum(isinstance(each, Again) for each in found)
            doubts = any(isinstance(verdicts[each.command_id], InDoubt) for each in waiting)
            self.crowd.pause(max(each.after_seconds for each in unsure), in_doubt=doubts)
            if self.crowd.stopping and not doubts:
                return


class Reader(Shopper):
    """Looks: the list of SKUs, one of them, what a buyer has."""

    weight = 1
    wait_time = constant(READ_PAUSE_SECONDS)

    @task(3)
    def look_at_a_sku(self) -> None:
        self.read(f"/v1/skus/{next(self.crowd.orders).sku}", "read sku")

    @task(1)
    def look_at_all(self) -> None:
        self.read("/v1/skus", "read skus")

    @task(2)
    def look_at_a_buyer(self) -> None:
        self.read(f"/v1/buyers/{next(self.crowd.orders).buyer}/reservations", "read buyer")

    def read(self, path: str, name: str) -> None:
        if not self.crowd.stopping:
            self.calls.read(path, name)


def is_definite(verdict: Verdict | None) -> bool:
    return isinstance(verdict, Accepted | Refused)


def note(crowd: Crowd, order: Order, due: float, verdict: Verdict | None) -> None:
    """Put the end of one order into the books."""
    books, now = crowd.books, crowd.now
    match verdict:
        case Accepted():
            books.answer(now, due, 1, order.quantity, {})
        case Refused(reason):
            books.answer(now, due, 0, 0, {reason: 1})
        case Again() if crowd.stopping:
            books.outcomes.sent -= 1  # Nothing happened, and nobody waits any more.
        case Again():
            books.fail(f"order {order.command_id}: told to try again {ATTEMPTS_MAX} times")
        case Broken(what):
            books.fail(f"order {order.command_id}: {what}")
        case _:
            books.outcomes.unknown += 1
            books.outcomes.unknown_units += order.quantity


def note_list(
    crowd: Crowd, orders: dict[str, Order], verdicts: dict[str, Verdict], due: float
) -> None:
    """Put the end of a list into the books: all of it was answered at the same moment."""
    accepted = units = 0
    refused: dict[str, int] = {}
    for command_id, order in orders.items():
        verdict: Any = verdicts.get(command_id)
        match verdict:
            case Accepted():
                accepted, units = accepted + 1, units + order.quantity
            case Refused(reason):
                refused[reason] = refused.get(reason, 0) + 1
            case _:
                note(crowd, order, due, verdict)
    if accepted or refused:
        crowd.books.answer(crowd.now, due, accepted, units, refused)
