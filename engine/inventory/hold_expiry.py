"""Gives back what was reserved and not paid in time. It keeps no state: due holds are looked up.

    orders: held, and its time is up --> Release(if_due), or CancelOrder(if_due) for an order's line

The stock decides by its own clock whether a hold is due, so a lagging read model, a clock that
was set, a second one of these or one that starts anew can only be late or be refused.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from engine.clock import Clock
from engine.cqrs.event_store import Value
from engine.cqrs.messages import Command, Outcome, Rejected
from engine.cqrs.partitioning import partition_of
from engine.cqrs.query_side.read_model import ReadStore, Select
from engine.cqrs.send import NAMESPACE
from engine.errors import SEND_AGAIN, Overloaded, PartitionLost, SeckillError
from engine.inventory.commands import Release
from engine.inventory.order_messages import CancelOrder
from engine.inventory.stock import SECOND_US

logger = logging.getLogger(__name__)

LOOK_SECONDS: Final = 0.5
"""How often it looks: a hold is given back about that long after its time, plus the lag."""

HOLDS_AT_ONCE: Final = 2_000
BUSY: Final = (*SEND_AGAIN, PartitionLost)
"""Errors that say nothing about the holds themselves: their partition takes no commands now."""

LEFT_ALONE_SECONDS: Final = 5.0
"""For so long nothing is sent to a partition that was busy; then it is tried beside the looks, which
would else wait for its deadline anew each time."""

ORDER_IS_OVER: Final = frozenset({"ended", "unknown_order"})

ExecuteMany = Callable[[Sequence[Command]], Awaitable[list[Outcome]]]


class HoldExpiry:
    """Looks for due holds until cancelled."""

    def __init__(
        self,
        views: ReadStore,
        execute_many: ExecuteMany,
        clock: Clock,
        at_once: int = HOLDS_AT_ONCE,
        is_mine: Callable[[str], bool] = lambda _: True,
        partitions: int = 1,
    ) -> None:
        """`at_once` is how many commands one list may have; the engine's queue must take them.

        Holds of SKUs that are not `is_mine` are left to others. `partitions` is how many there are.
        """
        self._is_mine = is_mine
        self._partitions = partitions
        self._busy: dict[int, SeckillError] = {}
        self._try_at: dict[int, float] = {}
        self._trying: dict[int, asyncio.Task[list[Outcome]]] = {}
        self._views = views
        self._execute_many = execute_many
        self._clock = clock
        self._at_once = at_once
        self._complaints: set[str] = set()

    async def run(self) -> None:
        try:
            while True:
                given_back = await self._look()
                # After a full page the next one is due as soon as the projection has seen this one.
                await self._clock.sleep(
                    LOOK_SECONDS if given_back < self._at_once else LOOK_SECONDS / 10
                )
        finally:
            for task in self._trying.values():
                task.cancel()

    async def _look(self) -> int:
        try:
            given_back = await self.give_back_due()
        except SeckillError as error:
            self._complain(error)
            return 0
        if not self._busy:
            self._complaints.clear()
        return given_back

    async def give_back_due(self) -> int:
        """Look once; return how many holds and orders were ended. Raises StoreUnavailable.

        A page full of holds that cannot be given back, of a SKU that is halted say, hides those
        behind it; the look goes on behind them. What waits in a partition that is busy is due again.
        """
        # A full queue told so at once, and has room a moment later.
        for number in [each for each, why in self._busy.items() if isinstance(why, Overloaded)]:
            del self._busy[number]
        now_us = self._clock.wall_us()
        given_back = stuck = 0
        while True:
            due = await self._views.select(
                Select(
                    "orders",
                    {"state": "held"},
                    at_most=("held_until_us", now_us),
                    order_by=("held_until_us",),
                    limit=self._at_once,
                    skip=stuck,
                )
            )
            mine = [each for each in due if self._is_mine(str(each["sku"]))]
            outcomes = await self._give_back(mine, now_us // SECOND_US)
            failed = sum(not isinstance(each, tuple) for each in outcomes)
            given_back += len(outcomes) - failed
            left = failed + len(due) - len(mine)
            if not left or len(due) < self._at_once:
                return given_back
            if len(self._busy) == self._partitions or _is_overloaded(outcomes):
                return given_back
            stuck += left

    async def _give_back(self, due: list[dict[str, Value]], attempt: int) -> list[Outcome]:
        """Give holds back, alone or with their orders.

        `attempt` is the second: a refusal ("not due") is remembered under its id.
        """
        alone = [each for each in due if not each["order_id"]]
        lines = [each for each in due if each["order_id"]]
        outcomes = await self._send([_release(each, attempt) for each in alone])
        return outcomes + await self._end_orders(lines, attempt) if lines else outcomes

    async def _end_orders(self, lines: list[dict[str, Value]], attempt: int) -> list[Outcome]:
        """Cancel the orders of due lines; checkout gives their lines back.

        A line of an order that is over already is a stray of a second checkout: given back here.
        """
        orders = list(dict.fromkeys(str(each["order_id"]) for each in lines))
        outcomes = await self._send(
            [CancelOrder(_id("cancel", each, attempt), each, if_due=True) for each in orders]
        )
        over = {
            order
            for order, outcome in zip(orders, outcomes, strict=True)
            if isinstance(outcome, Rejected) and outcome.reason in ORDER_IS_OVER
        }
        strays = [_release(each, attempt) for each in lines if each["order_id"] in over]
        return outcomes + await self._send(strays)

    async def _send(self, commands: Sequence[Command]) -> list[Outcome]:
        """Send commands. What fails is found due again, and keeps nothing else from being sent."""
        places = [partition_of(each.aggregate_id, self._partitions) for each in commands]
        lists: dict[int, list[Command]] = {}
        for number, command in zip(places, commands, strict=True):
            lists.setdefault(number, []).append(command)
        sent = await asyncio.gather(*(self._send_to(*each) for each in lists.items()))
        outcomes = {number: iter(each) for number, each in zip(lists, sent, strict=True)}
        return [next(outcomes[number]) for number in places]

    async def _send_to(self, number: int, commands: Sequence[Command]) -> list[Outcome]:
        """Send commands to one partition; one that is busy is not waited for."""
        busy = self._busy.get(number)
        if busy is None:
            return await self._try(number, commands)
        if number not in self._trying and self._clock.monotonic() >= self._try_at[number]:
            task = asyncio.create_task(self._try(number, commands), name=f"holds-of-{number}")
            self._trying[number] = task
            task.add_done_callback(lambda _: self._trying.pop(number))
        return [busy] * len(commands)

    async def _try(self, number: int, commands: Sequence[Command]) -> list[Outcome]:
        try:
            outcomes = await self._execute_many(commands)
        except SeckillError as error:
            outcomes = [error] * len(commands)
        failed = [each for each in outcomes if isinstance(each, SeckillError)]
        if failed:
            self._complain(failed[0])
        busy = next((each for each in failed if isinstance(each, BUSY)), None)
        if busy is None:
            self._busy.pop(number, None)
        else:
            self._busy[number] = busy
            self._try_at[number] = self._clock.monotonic() + LEFT_ALONE_SECONDS
        return outcomes

    def _complain(self, error: SeckillError) -> None:
        """Log an error, but not the same one again and again."""
        if str(error) not in self._complaints:
            self._complaints.add(str(error))
            logger.warning("due holds wait: %s", error)


def _is_overloaded(outcomes: Sequence[Outcome]) -> bool:
    """Whether the queues are full: the rest of the look can wait."""
    return any(isinstance(each, Overloaded) for each in outcomes)


def _release(row: dict[str, Value], attempt: int) -> Release:
    sku, reservation_id = str(row["sku"]), str(row["reservation_id"])
    until = f"{reservation_id}/{row['held_until_us']}"
    return Release(
        _id("release", f"{sku}/{until}", attempt),
        sku,
        reservation_id,
        if_due=True,
        order_id=str(row["order_id"]),
    )


def _id(verb: str, target: str, attempt: int) -> str:
    return uuid.uuid5(NAMESPACE, f"hold-expiry/{verb}/{target}/{attempt}").hex
