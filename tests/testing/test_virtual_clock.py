"""The clock of the tests moves only by hand, and runs what is due in the order of its times."""

from __future__ import annotations

import asyncio

import pytest

from engine.testing.virtual_clock import VirtualClock, settle


async def test_time_stands_still_until_it_is_moved() -> None:
    clock = VirtualClock()
    start, start_us = clock.monotonic(), clock.wall_us()
    await settle()
    assert (clock.monotonic(), clock.wall_us()) == (start, start_us)
    clock.advance(2.5)
    assert clock.monotonic() - start == 2.5
    assert clock.wall_us() - start_us == 2_500_000


async def test_timers_run_in_the_order_of_their_times_each_at_its_own() -> None:
    clock = VirtualClock()
    start = clock.monotonic()
    seen: list[tuple[str, float]] = []

    def note(name: str) -> None:
        seen.append((name, clock.monotonic() - start))

    clock.call_later(3, lambda: note("late"))
    clock.call_later(1, lambda: note("early"))
    clock.call_later(1, lambda: note("early too"))
    clock.call_later(5, lambda: note("not yet"))
    clock.advance(4)
    assert seen == [("early", 1), ("early too", 1), ("late", 3)]
    clock.advance(1)
    assert seen[3:] == [("not yet", 5)]


async def test_a_cancelled_timer_does_not_run() -> None:
    clock = VirtualClock()
    seen: list[str] = []
    clock.call_later(1, lambda: seen.append("kept"))
    clock.call_later(1, lambda: seen.append("cancelled")).cancel()
    clock.advance(2)
    assert seen == ["kept"]


async def test_a_timer_armed_by_a_timer_runs_in_the_same_move_when_it_is_due() -> None:
    clock = VirtualClock()
    seen: list[float] = []
    start = clock.monotonic()

    def again() -> None:
        seen.append(clock.monotonic() - start)
        clock.call_later(1, again)

    clock.call_later(1, again)
    clock.advance(3.5)
    assert seen == [1, 2, 3]


async def test_a_sleeper_wakes_when_its_time_has_come_and_not_before() -> None:
    clock = VirtualClock()
    sleeper = asyncio.create_task(clock.sleep(10))
    await settle()
    clock.advance(9.5)
    await settle()
    assert not sleeper.done()
    clock.advance(0.5)
    await settle()
    assert sleeper.done()


async def test_a_sleeper_that_was_cancelled_does_not_break_the_clock() -> None:
    clock = VirtualClock()
    sleeper = asyncio.create_task(clock.sleep(1))
    await settle()
    sleeper.cancel()
    await settle()
    clock.advance(2)
    assert sleeper.cancelled()


async def test_run_jumps_from_timer_to_timer_until_the_work_is_done() -> None:
    clock = VirtualClock()
    start = clock.monotonic()

    async def work() -> float:
        await clock.sleep(60)
        await clock.sleep(3_600)
        return clock.monotonic() - start

    assert await clock.run(work()) == 3_660


async def test_run_tells_when_the_work_can_never_end() -> None:
    with pytest.raises(RuntimeError, match="no timer is due"):
        await VirtualClock().run(asyncio.Event().wait())
