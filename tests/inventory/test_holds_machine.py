"""A sale with holds on a real engine against a model of a few lines, with time that jumps."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from contextlib import AsyncExitStack
from typing import TypeVar

from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from engine.config import COMMAND_SIDE_KEYS, load_settings
from engine.cqrs.messages import Event, Rejected
from engine.engine import Engine
from engine.inventory.audit import audit
from engine.runtime import open_engine
from engine.testing.virtual_clock import VirtualClock

T = TypeVar("T")

SKU = "PHONE"
HOLD_SECONDS = 30
LIMIT = 3

numbers = st.integers(0, 9)
seconds = st.sampled_from([1, 14, 31])
buyers = st.sampled_from("ab")


class Model:
    """The sale as a shop assistant would keep it: a list of slips and a box of units."""

    def __init__(self, units: int) -> None:
        self.box = units
        self.now = 0
        self.paused = False
        # Buyer, quantity, state, deadline, extended.
        self.slips: dict[str, list[object]] = {}

    def taken(self, buyer: str) -> int:
        return sum(
            int(str(slip[1]))
            for slip in self.slips.values()
            if slip[0] == buyer and slip[2] != "released"
        )

    def reserve(self, name: str, buyer: str, quantity: int) -> str:
        if self.paused:
            return "paused"
        if quantity > self.box:
            return "sold_out"
        if self.taken(buyer) + quantity > LIMIT:
            return "over_limit"
        self.box -= quantity
        self.slips[name] = [buyer, quantity, "held", self.now + HOLD_SECONDS, False]
        return "ok"

    def end(self, name: str, how: str, *, only_if_due: bool = False) -> str:
        slip = self.slips.get(name)
        if slip is None:
            return "unknown_reservation"
        if slip[2] != "held":
            if how == "paid" and slip[2] == "released":
                return "refund"
            return f"already_{slip[2]}"
        if only_if_due and self.now < int(str(slip[3])):
            return "not_due"
        slip[2] = how
        if how == "released":
            self.box += int(str(slip[1]))
        return "ok"

    def extend(self, name: str) -> str:
        slip = self.slips.get(name)
        if slip is None:
            return "unknown_reservation"
        if slip[2] != "held":
            return f"already_{slip[2]}"
        if slip[4]:
            return "already_extended"
        slip[3], slip[4] = self.now + HOLD_SECONDS, True
        return "ok"

    def count(self, state: str) -> int:
        return sum(int(str(slip[1])) for slip in self.slips.values() if slip[2] == state)


class HoldsMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.clock = VirtualClock()
        self.stack = AsyncExitStack()
        self.engine: Engine = self.run_(self._open())
        self.model = Model(6)
        self.commands = 0

    def run_(self, call: Awaitable[T]) -> T:
        async def main() -> T:
            return await call

        return self.runner.run(main())

    async def _open(self) -> Engine:
        settings = load_settings(None, {**COMMAND_SIDE_KEYS, "store.url": "memory:"}, {})
        engine = await self.stack.enter_async_context(open_engine(settings, clock=self.clock))
        await engine.open_sale(SKU, stock=6, limit_per_buyer=LIMIT, hold_seconds=HOLD_SECONDS)
        return engine

    def same(self, call: Awaitable[Event | Rejected], expected: str) -> None:
        answer = self.run_(call)
        if isinstance(answer, Rejected):
            assert answer.reason == expected
        else:
            refund = type(answer).__name__ == "HoldExpired"
            assert expected == ("refund" if refund else "ok"), answer

    def fresh(self) -> str:
        self.commands += 1
        return f"command-{self.commands}"

    @rule(buyer=buyers, quantity=st.integers(1, 3))
    def reserve(self, buyer: str, quantity: int) -> None:
        call = self.engine.reserve(SKU, buyer=buyer, quantity=quantity, command_id=self.fresh())
        answer = self.run_(call)
        expected = self.model.reserve(f"command-{self.commands}", buyer, quantity)
        reason = answer.reason if isinstance(answer, Rejected) else "ok"
        assert reason == expected

    def named(self, number: int) -> str:
        """Mostly the newest that are held, sometimes any, sometimes none."""
        held = [name for name, slip in self.model.slips.items() if slip[2] == "held"]
        names = held[-2:] if number < 6 and held else list(self.model.slips)
        return names[number % len(names)] if names and number < 9 else "nobody"

    @rule(number=numbers)
    def confirm(self, number: int) -> None:
        name = self.named(number)
        call = self.engine.confirm(SKU, name, command_id=self.fresh())
        self.same(call, self.model.end(name, "paid"))

    @rule(number=numbers, if_due=st.booleans())
    def release(self, number: int, if_due: bool) -> None:
        name = self.named(number)
        call = self.engine.release(SKU, name, if_due=if_due, command_id=self.fresh())
        self.same(call, self.model.end(name, "released", only_if_due=if_due))

    @rule(number=numbers)
    def extend(self, number: int) -> None:
        name = self.named(number)
        call = self.engine.extend_hold(SKU, name, command_id=self.fresh())
        self.same(call, self.model.extend(name))

    @rule(more=st.integers(1, 3))
    def restock(self, more: int) -> None:
        self.same(self.engine.restock(SKU, quantity=more, command_id=self.fresh()), "ok")
        self.model.box += more

    @rule(less=st.integers(1, 3))
    def withdraw(self, less: int) -> None:
        enough = less <= self.model.box
        call = self.engine.withdraw(SKU, quantity=less, command_id=self.fresh())
        self.same(call, "ok" if enough else "not_enough_left")
        self.model.box -= less * enough

    @rule(really=st.sampled_from([True, False, False]))
    def pause_or_resume(self, really: bool) -> None:
        if not (really or self.model.paused):
            return
        if self.model.paused:
            self.same(self.engine.resume_sale(SKU, command_id=self.fresh()), "ok")
        else:
            self.same(self.engine.pause_sale(SKU, command_id=self.fresh()), "ok")
        self.model.paused = not self.model.paused

    @rule(passed=seconds)
    def wait(self, passed: int) -> None:
        self.clock.advance(passed)
        self.model.now += passed

    @rule(number=numbers, early=st.booleans())
    def expire(self, number: int, early: bool) -> None:
        """Try to end a hold at its very last second, or when that is over."""
        name = self.named(number)
        if (slip := self.model.slips.get(name)) is not None:
            self.wait(max(0, int(str(slip[3])) - self.model.now - early))
        call = self.engine.release(SKU, name, if_due=True, command_id=self.fresh())
        self.same(call, self.model.end(name, "released", only_if_due=True))

    @invariant()
    def the_row_is_what_the_slips_say(self) -> None:
        row = self.run_(self.engine.stock(SKU))
        assert row is not None
        model = self.model
        assert (row.available, row.reserved, row.paid) == (
            model.box,
            model.count("held"),
            model.count("paid"),
        )

    def teardown(self) -> None:
        for name, slip in self.model.slips.items():
            found = self.run_(self.engine.outcome(SKU, name))
            assert found.reservation is not None
            assert found.reservation.state == slip[2]
        report = self.run_(audit(self.engine.reader))
        assert report.ok, [finding for check in report.checks for finding in check.findings]
        self.run_(self.stack.aclose())
        self.runner.close()


HoldsMachine.TestCase.settings = hypothesis_settings(max_examples=150, stateful_step_count=40)
TestHolds = HoldsMachine.TestCase
