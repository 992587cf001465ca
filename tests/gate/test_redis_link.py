"""One call at a time, in bounded time, and no answer is ever taken for another's."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import msgspec
import pytest

from engine.config import GateSettings
from engine.gate import redis_gate
from engine.gate.gate import PASS, SOLD_OUT, Verdict
from engine.gate.redis_gate import RedisGate
from engine.gate.redis_link import CONNECT_SECONDS_MAX, PAUSE_SECONDS_MAX, PAUSE_SECONDS_MIN
from engine.gate.redis_scripts import CHECK, Script
from engine.testing.gate_contract import order
from engine.testing.virtual_clock import VirtualClock, settle

SETTINGS = GateSettings(timeout_ms_max=50)
TIMEOUT_SECONDS = 0.05


class Wire:
    """A server that calls only SKUs named SOLD-* sold out, and answers when the test says so.

    Like a socket: answers come in the order of the questions, and one that was not read is read by
    whoever asks next.
    """

    def __init__(self) -> None:
        self.connections: list[WireConnection] = []
        self.refusing = False
        self.answering = True

    async def connect(self) -> WireConnection:
        if self.refusing:
            raise ConnectionRefusedError("refused")
        self.connections.append(WireConnection(self))
        return self.connections[-1]

    @property
    def calls(self) -> list[int]:
        """How many orders each CHECK was for."""
        return [count for each in self.connections for count in each.calls]


class WireConnection:
    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._generation = b""
        self._answers: asyncio.Queue[bytes] = asyncio.Queue()
        self._held: list[bytes] = []
        self.calls: list[int] = []
        self.closed = False

    async def run(self, script: Script, keys: Sequence[bytes], args: Sequence[bytes]) -> bytes:
        assert not self.closed
        if script is CHECK:
            skus = [sku for each in args[4:] for sku in msgspec.msgpack.decode(each)[::2]]
            self.calls.append(len(skus))
            numbers = ",".join("-1" if sku.startswith("SOLD") else "0" for sku in skus)
            answer = args[1] + b" " + numbers.encode()
        else:
            answer = args[0] if len(args) == 2 else args[1]
        (self._answers.put_nowait if self._wire.answering else self._held.append)(answer)
        read = await self._answers.get()
        # From the socket through a stream and a parser, as in a driver.
        for _ in range(3):
            await asyncio.sleep(0)
        return read

    def answer(self) -> None:
        for each in self._held:
            self._answers.put_nowait(each)
        self._held.clear()

    async def close(self) -> None:
        self.closed = True


class Asked:
    """A gate on a wire, open and trusted."""

    def __init__(self) -> None:
        self.clock = VirtualClock()
        self.wire = Wire()
        self.gate = RedisGate(self.wire.connect, "the wire", SETTINGS, self.clock)

    async def open(self) -> Asked:
        await self.gate._link.open()
        await settle()
        return self

    def check(self, *skus: str) -> asyncio.Task[list[Verdict]]:
        return asyncio.create_task(self.gate.check([order(sku) for sku in skus]))


async def test_an_answer_that_comes_too_late_is_nobodys() -> None:
    asked = await Asked().open()
    asked.wire.answering = False
    late = asked.check("SOLD")
    await settle()
    asked.clock.advance(TIMEOUT_SECONDS)
    assert await late == [PASS]
    asked.wire.connections[0].answer()
    asked.wire.answering = True
    asked.clock.advance(PAUSE_SECONDS_MIN)
    await settle()
    assert await asked.check("BAG") == [PASS]
    assert await asked.check("SOLD") == [SOLD_OUT]
    assert [each.closed for each in asked.wire.connections] == [True, False]
    await asked.gate.close()


async def test_an_answer_to_a_call_that_was_cancelled_is_nobodys() -> None:
    asked = await Asked().open()
    asked.wire.answering = False
    feeding = asyncio.create_task(asked.gate.clear(["PHONE"]))
    await settle()
    feeding.cancel()
    await asyncio.gather(feeding, return_exceptions=True)
    asked.wire.connections[0].answer()
    asked.wire.answering = True
    asked.clock.advance(PAUSE_SECONDS_MIN)
    await settle()
    assert await asked.check("SOLD", "BAG") == [SOLD_OUT, PASS]
    assert [each.closed for each in asked.wire.connections] == [True, False]
    await asked.gate.close()


async def test_checks_that_arrive_during_a_call_go_together_in_the_next() -> None:
    asked = await Asked().open()
    asked.wire.answering = False
    tasks = [asked.check("SOLD")]
    await settle()
    tasks += [asked.check("BAG" if n % 2 else "SOLD") for n in range(20)]
    await settle()
    assert asked.wire.calls == [1]
    asked.wire.answering = True
    asked.wire.connections[0].answer()
    answers = await asyncio.gather(*tasks)
    assert answers == [[SOLD_OUT], *([PASS] if n % 2 else [SOLD_OUT] for n in range(20))]
    assert asked.wire.calls == [1, 20]
    await asked.gate.close()


async def test_one_call_takes_so_many_orders_and_a_longer_list_lets_others_in_between(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(redis_gate, "ORDERS_TOGETHER_MAX", 5)
    asked = await Asked().open()
    asked.wire.answering = False
    tasks = [asked.check("BAG")]
    await settle()
    tasks += [asked.check(*["BAG"] * each) for each in (2, 2, 2, 9, 1)]
    await settle()
    asked.wire.answering = True
    asked.wire.connections[0].answer()
    await asyncio.gather(*tasks)
    assert asked.wire.calls == [1, 4, 2, 5, 1, 4]
    await asked.gate.close()


async def test_more_than_may_wait_pass_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_gate, "ORDERS_WAITING_MAX", 3)
    asked = await Asked().open()
    asked.wire.answering = False
    waiting = [asked.check("SOLD")]
    await settle()
    waiting += [asked.check("SOLD", "SOLD"), asked.check("SOLD")]
    await settle()
    assert await asked.check("SOLD") == [PASS]
    assert not any(each.done() for each in waiting)
    asked.wire.answering = True
    asked.wire.connections[0].answer()
    assert await asyncio.gather(*waiting) == [[SOLD_OUT], [SOLD_OUT] * 2, [SOLD_OUT]]
    await asked.gate.close()


async def test_when_a_call_is_not_answered_whoever_waits_passes_with_it() -> None:
    asked = await Asked().open()
    asked.wire.answering = False
    tasks = [asked.check("SOLD")]
    await settle()
    tasks += [asked.check("SOLD") for _ in range(5)]
    await settle()
    asked.clock.advance(TIMEOUT_SECONDS)
    assert await asyncio.gather(*tasks) == [[PASS]] * 6
    counted = asked.gate.statistics()
    assert (counted.calls, counted.failures, counted.unasked, counted.passed) == (1, 1, 6, 6)
    await asked.gate.close()


async def test_waiting_for_the_feeds_call_counts_towards_the_time() -> None:
    asked = await Asked().open()
    feeding = asyncio.create_task(asked.gate.rebuild(["A"]))
    asked.wire.answering = False
    await settle()
    check = asked.check("SOLD")
    await settle()
    asked.clock.advance(TIMEOUT_SECONDS)
    assert await check == [PASS]
    await asyncio.gather(feeding, return_exceptions=True)
    assert not asked.gate.trusted
    await asked.gate.close()


async def test_while_away_nobody_is_asked_and_the_pause_doubles() -> None:
    asked = await Asked().open()
    asked.wire.answering = False
    waiting = asked.check("SOLD")
    await settle()
    asked.wire.refusing = True
    asked.clock.advance(TIMEOUT_SECONDS)
    assert await waiting == [PASS]
    pause, failures = PAUSE_SECONDS_MIN, 1
    for _ in range(8):
        asked.clock.advance(pause - 0.01)
        await settle()
        assert asked.gate.statistics().failures == failures
        asked.clock.advance(0.01)
        await settle()
        failures += 1
        assert asked.gate.statistics().failures == failures
        assert await asked.gate.check([order("SOLD")]) == [PASS]
        pause = min(2 * pause, PAUSE_SECONDS_MAX)
    assert asked.wire.calls == [1]
    asked.wire.refusing, asked.wire.answering = False, True
    asked.clock.advance(PAUSE_SECONDS_MAX)
    await settle()
    assert await asked.check("SOLD") == [SOLD_OUT]
    await asked.gate.close()


async def test_a_server_that_connects_and_never_answers_is_asked_less_and_less() -> None:
    asked = await Asked().open()
    asked.wire.answering = False
    for _ in range(12):
        check = asked.check("SOLD")
        await settle()
        asked.clock.advance(TIMEOUT_SECONDS)
        assert await check == [PASS]
        asked.clock.advance(1.0)
        await settle()
    assert len(asked.wire.calls) <= 8
    await asked.gate.close()


async def test_a_loop_that_was_held_up_still_reads_the_answer_that_came_meanwhile() -> None:
    asked = await Asked().open()
    asked.wire.answering = False
    check = asked.check("SOLD")
    await settle()
    # Both are there at the loop's next turn.
    asked.clock.advance(10.0)
    asked.wire.connections[0].answer()
    assert await check == [SOLD_OUT]
    assert asked.gate.connected
    await asked.gate.close()


async def test_who_waited_too_long_passes_unasked_and_redis_is_not_blamed() -> None:
    asked = await Asked().open()
    asked.wire.answering = False
    first = asked.check("SOLD")
    await settle()
    second = asked.check("SOLD")
    await settle()
    asked.wire.answering = True
    asked.clock.advance(10.0)
    asked.wire.connections[0].answer()
    assert [await first, await second] == [[SOLD_OUT], [PASS]]
    assert asked.wire.calls == [1]
    assert asked.gate.connected
    await asked.gate.close()


async def test_an_answer_for_another_number_of_orders_ends_the_connection() -> None:
    asked = await Asked().open()
    asked.wire.connections[0]._answers.put_nowait(b" 0,0,0")
    assert await asked.check("SOLD") == [PASS]
    assert asked.wire.connections[0].closed
    assert not asked.gate.connected
    await asked.gate.close()


async def test_closing_lets_whoever_waits_pass() -> None:
    asked = await Asked().open()
    asked.wire.answering = False
    tasks = [asked.check("SOLD")]
    await settle()
    tasks.append(asked.check("SOLD"))
    await settle()
    await asked.gate.close()
    assert await asyncio.gather(*tasks) == [[PASS], [PASS]]
    assert asked.wire.connections[0].closed


async def test_closing_at_the_moment_of_connecting_leaves_no_connection_open() -> None:
    arrived: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    asked = Asked()
    asked.wire.refusing = True
    await asked.open()
    asked.wire.refusing = False
    connect = asked.wire.connect

    async def slow() -> WireConnection:
        await arrived
        return await connect()

    asked.gate._link._connect = slow
    asked.clock.advance(PAUSE_SECONDS_MIN)
    await settle()
    arrived.set_result(None)
    await asked.gate.close()
    assert [each.closed for each in asked.wire.connections] == [True]


async def test_a_connection_that_comes_too_late_is_closed() -> None:
    asked = Asked()
    asked.wire.refusing = True
    await asked.open()
    asked.wire.refusing = False
    connect = asked.wire.connect

    async def does_not_stop() -> WireConnection:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            pass
        return await connect()

    asked.gate._link._connect = does_not_stop
    asked.clock.advance(PAUSE_SECONDS_MIN)
    await settle()
    asked.clock.advance(CONNECT_SECONDS_MAX)
    await settle()
    assert [each.closed for each in asked.wire.connections] == [True]
    assert not asked.gate.connected
    await asked.gate.close()
