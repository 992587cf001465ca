"""A gateway that sends again what lost its reply does not say that nothing happened."""

from __future__ import annotations

import asyncio
from itertools import count
from typing import cast

import pytest

from engine.cluster.broker import Broker, BrokerFull
from engine.cluster.lane import HEADER_BYTES, Lane
from engine.cluster.wire import Wire
from engine.cqrs.command_side.mailbox import Request
from engine.cqrs.command_side.statistics import Counters
from engine.cqrs.messages import Outcome, Rejected
from engine.errors import (
    CommandIdReused,
    DeadlineExceeded,
    OutcomeUnknown,
    Overloaded,
    SeckillError,
    StoreUnavailable,
)
from engine.inventory.commands import Reserve
from engine.inventory.events import Reserved
from engine.inventory.sale import sale_registry
from engine.testing.scripted_broker import ScriptedServer
from engine.testing.virtual_clock import VirtualClock, settle

REGISTRY = sale_registry()
DEADLINE_SECONDS = 60.0


class Stream:
    """Stands for the broker: takes messages until it is full."""

    message_bytes_max = 1_000_000

    def __init__(self) -> None:
        self.is_full = False
        self.sequences = count(1)

    async def publish(self, *_: object) -> int:
        if self.is_full:
            raise BrokerFull("no room")
        return next(self.sequences)


class Sender:
    """A lane with one order to send, in message 0."""

    def __init__(self) -> None:
        self.stream, self.clock = Stream(), VirtualClock()
        self.lane = Lane(
            *(0, cast(Broker, self.stream), Wire(REGISTRY), "inbox", 100, 0.0),
            *(count().__next__, self.clock, Counters()),
        )
        self.told: asyncio.Future[list[Outcome]] = asyncio.get_running_loop().create_future()

    async def send(self) -> None:
        now = self.clock.monotonic()
        order = Reserve("c-1", "PHONE", "ann")
        request = Request((order,), self.told, now, now + DEADLINE_SECONDS)
        self.lane.submit(REGISTRY.types["stock"], ("stock", "PHONE"), request)
        await settle()

    async def send_again(self) -> None:
        """As when the owner shows it as decided, and no reply has come."""
        self.lane.send_again(self.lane.messages[0])
        await settle()

    async def close(self) -> Outcome:
        """What was told."""
        await self.lane.close()
        return self.told.result()[0]


@pytest.fixture
async def sender() -> Sender:
    return Sender()


async def test_a_stream_that_is_full_took_nothing_the_first_time(sender: Sender) -> None:
    sender.stream.is_full = True
    await sender.send()
    assert isinstance(await sender.close(), Overloaded)


async def test_a_stream_that_is_full_the_second_time_may_have_taken_it_the_first_time(
    sender: Sender,
) -> None:
    await sender.send()
    sender.stream.is_full = True
    await sender.send_again()
    assert isinstance(await sender.close(), OutcomeUnknown)


NOTHING_HAPPENED = pytest.mark.parametrize(
    "error",
    [StoreUnavailable("down"), DeadlineExceeded("late")],
    ids=["the database is down", "too late"],
)


@NOTHING_HAPPENED
async def test_that_nothing_happened_is_told_of_a_message_that_was_sent_once(
    sender: Sender, error: SeckillError
) -> None:
    await sender.send()
    assert sender.lane.reply(0, [error])
    assert await sender.close() is error


@NOTHING_HAPPENED
async def test_that_nothing_happened_the_second_time_says_nothing_of_the_first(
    sender: Sender, error: SeckillError
) -> None:
    await sender.send()
    await sender.send_again()
    assert not sender.lane.reply(0, [error])
    assert sender.lane.reply(1, [error])
    assert isinstance(await sender.close(), OutcomeUnknown)


@pytest.mark.parametrize(
    "outcome",
    [(Reserved("c-1", "ann", 1),), Rejected("sold_out"), CommandIdReused("c-1")],
    ids=["done", "refused", "the id of another request"],
)
async def test_what_is_decided_is_told_also_the_second_time(
    sender: Sender, outcome: Outcome
) -> None:
    await sender.send()
    await sender.send_again()
    assert sender.lane.reply(1, [outcome])
    assert await sender.close() == outcome


async def test_an_owner_that_cannot_read_it_knows_nothing_of_the_owner_before(
    sender: Sender,
) -> None:
    await sender.send()
    await sender.send_again()
    sender.lane.fail(sender.lane.messages[1], lambda _: StoreUnavailable("another version"))
    assert isinstance(await sender.close(), OutcomeUnknown)


class Crowd:
    """Many buyers whose orders fill one message, and need several when they are sent again."""

    def __init__(self) -> None:
        self.clock = VirtualClock()
        self.server = ScriptedServer(self.clock)
        self.server.make()
        self.broker = self.server.connect()
        self.lane = Lane(
            *(0, self.broker, Wire(REGISTRY), "inbox", 4_000, 0.0),
            *(count().__next__, self.clock, Counters()),
        )
        now = self.clock.monotonic()
        loop = asyncio.get_running_loop()
        self.told: list[asyncio.Future[list[Outcome]]] = [loop.create_future() for _ in range(400)]
        for number, future in enumerate(self.told):
            order = Reserve(f"c-{number}", "PHONE", "ann")
            # Deadlines that differ by less than they are rounded by, until they come close.
            request = Request((order,), future, now, now + 10 + number / 1_000)
            self.lane.submit(REGISTRY.types["stock"], ("stock", "PHONE"), request)

    async def send_again(self, bytes_max: int = 0) -> None:
        """When time has passed; 0 lets a message be as long as the first one was."""
        await settle()
        (first,) = self.server.stored
        self.broker.payload_bytes_max = HEADER_BYTES + (bytes_max or len(first.payload))
        self.clock.advance(9)
        await settle()
        (sent,) = self.lane.messages.values()
        self.lane.send_again(sent)

    def kinds(self) -> set[type]:
        return {type(each.result()[0]) for each in self.told}


@pytest.fixture
async def crowd() -> Crowd:
    return Crowd()


async def test_what_no_longer_fits_when_it_is_sent_again_is_sent_in_parts_at_once_and_in_order(
    crowd: Crowd,
) -> None:
    await crowd.send_again()
    await settle()
    _, *parts = crowd.server.stored
    assert len(parts) > 1
    wire = Wire(REGISTRY)
    messages = [wire.decode_message(each.payload) for each in parts]
    ids = [c.id for each in messages for run in each.runs for c in wire.decode_run(run)]
    assert ids == [f"c-{number}" for number in range(400)]
    assert crowd.lane.queue_depth == crowd.lane.unanswered == 400
    for number in list(crowd.lane.messages):
        size = crowd.lane.commands_of(number) or 0
        crowd.lane.reply(number, [StoreUnavailable("down")] * size)
    assert crowd.kinds() == {OutcomeUnknown}
    await crowd.lane.close()


async def test_of_parts_that_do_not_arrive_nobody_says_that_nothing_happened(crowd: Crowd) -> None:
    await crowd.send_again()
    crowd.broker.is_cut = True
    for _ in range(10):
        await settle()
        crowd.clock.advance(0.2)
    assert crowd.kinds() == {OutcomeUnknown}
    await crowd.lane.close()


async def test_a_stream_that_is_full_for_a_part_may_have_taken_it_the_first_time(
    crowd: Crowd,
) -> None:
    await settle()
    crowd.server.is_full = True
    await crowd.send_again()
    await settle()
    assert crowd.kinds() == {OutcomeUnknown}
    await crowd.lane.close()


async def test_a_command_that_no_longer_fits_may_have_been_executed_the_first_time(
    crowd: Crowd,
) -> None:
    await crowd.send_again(bytes_max=10)
    assert crowd.kinds() == {OutcomeUnknown}
    assert crowd.lane.queue_depth == 0
    await crowd.lane.close()
