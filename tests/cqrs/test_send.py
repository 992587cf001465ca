"""What is sent to a partition out of reach is given up once, and by everybody."""

from __future__ import annotations

import asyncio

import pytest

from engine.clock import SystemClock
from engine.cqrs.messages import Answer, Command, Rejected
from engine.cqrs.partitioning import partition_of
from engine.cqrs.send import PATIENCE_SECONDS, RETRY_SECONDS, Reach, Send, Waits
from engine.errors import (
    SEND_AGAIN,
    DeadlineExceeded,
    EngineClosed,
    OutcomeUnknown,
    Overloaded,
    PartitionLost,
    SeckillError,
    StoreUnavailable,
)
from engine.inventory.commands import CloseSale

PARTITIONS = 4
OWN, THERE, ELSEWHERE = 0, 1, 2
YES = Rejected("yes")


def name_in(partition: int, number: int = 0) -> str:
    names = [f"s-{n}" for n in range(100) if partition_of(f"s-{n}", PARTITIONS) == partition]
    return names[number]


class SleepingClock(SystemClock):
    """Time goes on when somebody sleeps, and only then."""

    now = 0.0

    def monotonic(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.now += seconds
        await asyncio.sleep(0)


class Wire:
    """Sends to partitions, of which those in `down` answer with an error."""

    def __init__(self) -> None:
        self.clock = SleepingClock()
        self.reach = Reach(OWN, PARTITIONS)
        self.down: dict[int, SeckillError] = {}
        self.asked: list[str] = []

    async def execute(self, command: Command) -> Answer:
        self.asked.append(command.aggregate_id)
        error = self.down.get(partition_of(command.aggregate_id, PARTITIONS))
        if error is not None:
            raise error
        return YES

    async def send(self, sku: str, *, is_probe: bool = False, has_reach: bool = True) -> Answer:
        reach = self.reach if has_reach else None
        send = Send(self.execute, "m", ("stock", "a"), 1, self.clock, reach, is_probe=is_probe)
        return await send(CloseSale("id", sku))


ERRORS = {
    Overloaded: Overloaded(1, 1, 0.1),
    DeadlineExceeded: DeadlineExceeded("late"),
    OutcomeUnknown: OutcomeUnknown("id"),
    StoreUnavailable: StoreUnavailable("away"),
}


def test_every_error_that_is_sent_again_is_tried() -> None:
    assert set(SEND_AGAIN) == set(ERRORS)


@pytest.mark.parametrize("error", ERRORS.values())
async def test_patience_is_lost_once(error: SeckillError) -> None:
    wire = Wire()
    wire.down[THERE] = error
    with pytest.raises(Waits, match=str(error)):
        await wire.send(name_in(THERE))
    tries = round(PATIENCE_SECONDS / RETRY_SECONDS)
    assert len(wire.asked) in (tries, tries + 1, tries + 2)
    wire.asked.clear()
    # Nobody else waits for it: no other aggregate there is asked, and other partitions are.
    with pytest.raises(Waits, match=str(error)):
        await wire.send(name_in(THERE, 1))
    assert await wire.send(name_in(ELSEWHERE)) == YES
    assert wire.asked == [name_in(ELSEWHERE)]


@pytest.mark.parametrize("error", [PartitionLost("nobody owns it"), EngineClosed("it stopped")])
async def test_a_partition_that_says_that_it_is_lost_is_not_asked_again(
    error: SeckillError,
) -> None:
    wire = Wire()
    wire.down[THERE] = error
    with pytest.raises(Waits, match=str(error)):
        await wire.send(name_in(THERE))
    assert wire.asked == [name_in(THERE)]


@pytest.mark.parametrize("error", [PartitionLost("nobody owns it"), EngineClosed("it stopped")])
async def test_of_its_own_partition_it_is_told(error: SeckillError) -> None:
    wire = Wire()
    wire.down[OWN] = error
    with pytest.raises(type(error)):
        await wire.send(name_in(OWN))


async def test_its_own_partition_is_waited_for_without_end_and_so_is_any_without_a_reach() -> None:
    for partition, has_reach in ((OWN, True), (THERE, False)):
        wire = Wire()
        wire.down[partition] = ERRORS[Overloaded]
        sending = asyncio.create_task(wire.send(name_in(partition), has_reach=has_reach))
        while wire.clock.now < 10 * PATIENCE_SECONDS:  # noqa: ASYNC110
            await asyncio.sleep(0)
        wire.down.clear()
        assert await sending == YES


async def test_a_look_asks_a_lost_partition_until_the_first_answer_is_no() -> None:
    wire = Wire()
    wire.down[THERE] = ERRORS[Overloaded]
    with pytest.raises(Waits):
        await wire.send(name_in(THERE))
    for _ in range(2):
        wire.asked.clear()
        wire.reach.begin_probing()
        for number in range(3):
            with pytest.raises(Waits):
                await wire.send(name_in(THERE, number), is_probe=True)
        assert wire.asked == [name_in(THERE)]
    wire.down.clear()
    wire.reach.begin_probing()
    assert await wire.send(name_in(THERE, 1), is_probe=True) == YES
    # From now on everybody may.
    assert await wire.send(name_in(THERE, 2)) == YES
