"""A message becomes one request for each SKU in it, and is answered in the order of its commands."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from engine.clock import SystemClock
from engine.cluster.broker import Broker
from engine.cluster.deliveries import Deliveries
from engine.cluster.intake import PULL_MESSAGES, Intake, Limits
from engine.cluster.wire import Wire
from engine.cqrs.aggregate import AggregateType
from engine.cqrs.command_side.mailbox import Request
from engine.cqrs.command_side.partition import Partition
from engine.cqrs.event_store import Source
from engine.cqrs.messages import Command, Rejected
from engine.cqrs.partitioning import partition_of
from engine.errors import StreamKey
from engine.inventory.commands import Confirm, Reserve
from engine.inventory.sale import sale_registry
from engine.testing.scripted_broker import ScriptedServer
from engine.testing.virtual_clock import VirtualClock, settle

REGISTRY = sale_registry()
WIRE = Wire(REGISTRY)
PARTITIONS = 2
MINE = [each for each in "ABCDEFGH" if partition_of(each, PARTITIONS) == 1]
OTHER = next(each for each in "ABCDEFGH" if partition_of(each, PARTITIONS) == 0)


class Desk:
    """Stands for a partition and for the way back, and keeps what came."""

    def __init__(self) -> None:
        self.requests: list[tuple[StreamKey, Request]] = []
        self.replies: list[tuple[str, bytes]] = []
        self.queue_depth = 0
        self.deliveries = Deliveries(Source("life", 0), lambda: None)
        self.deliveries.begin("life", 100)
        self.intake = Intake(
            *(1, cast(Partition, self), self.deliveries, cast(Broker, None), WIRE, REGISTRY),
            *(
                PARTITIONS,
                Limits(1_000, 100),
                lambda *reply: self.replies.append(reply),
                SystemClock(),
            ),
        )

    def submit(self, _: AggregateType[Any], stream: StreamKey, request: Request) -> None:
        self.requests.append((stream, request))

    def take(self, commands: list[Command]) -> None:
        far = SystemClock().wall_us() + 60_000_000
        data = WIRE.encode_commands("inbox", 7, [("stock", far, commands)])
        self.intake.take(1, data)

    def make_durable(self) -> None:
        mark = self.deliveries.mark(())
        assert mark is not None
        self.deliveries.stored(mark)


def order(number: int, sku: str) -> Reserve:
    return Reserve(f"c-{number}", sku, f"buyer-{number}", 1)


@pytest.mark.parametrize(
    "commands",
    [
        [order(n, MINE[0]) for n in range(5)],
        [order(n, MINE[n % 3]) for n in range(7)],
        [order(0, MINE[1]), Confirm("c-8", MINE[0], "c-1"), order(1, MINE[1]), order(2, MINE[0])],
    ],
    ids=["one SKU", "several SKUs", "several kinds"],
)
async def test_outcomes_are_in_the_order_of_the_commands(commands: list[Command]) -> None:
    desk = Desk()
    desk.take(commands)
    skus = [stream[1] for stream, _ in desk.requests]
    assert skus == list(dict.fromkeys(each.aggregate_id for each in commands))
    for (_, sku), request in desk.requests:
        # Each SKU has its own commands, in their order.
        assert list(request.commands) == [each for each in commands if each.aggregate_id == sku]
        request.answer(0, [Rejected("no", each.id) for each in request.commands])
    await asyncio.sleep(0)
    assert desk.replies == [], "told before it is durable that the message is decided"
    desk.make_durable()
    ((inbox, data),) = desk.replies
    reply = WIRE.decode_reply(data)
    assert (inbox, reply.number) == ("inbox", 7)
    assert WIRE.decode_outcomes(reply) == [Rejected("no", each.id) for each in commands]


async def test_a_message_with_a_command_of_another_partition_is_answered_with_nothing() -> None:
    desk = Desk()
    desk.intake._known_end = 0
    desk.take([order(1, MINE[0]), order(2, OTHER)])
    assert desk.requests == []
    desk.make_durable()
    ((_, data),) = desk.replies
    assert WIRE.decode_outcomes(WIRE.decode_reply(data)) == []


async def test_of_what_an_owner_before_may_have_executed_nobody_says_that_nothing_happened() -> (
    None
):
    desk = Desk()
    desk.intake._known_end = 1
    desk.take([order(1, MINE[0]), order(2, OTHER)])
    desk.make_durable()
    assert desk.replies == []


class Waiting:
    """A partition in which everything waits, and a stream with more than fits."""

    def __init__(self, limits: Limits, commands_each: int) -> None:
        self.queue_depth = 0
        self.clock = VirtualClock()
        self.server = ScriptedServer(self.clock)
        self.server.make()
        self.broker = self.server.connect()
        far = self.clock.wall_us() + 60_000_000
        for number in range(4 * PULL_MESSAGES):
            commands = [order(n, MINE[0]) for n in range(commands_each)]
            data = WIRE.encode_commands("inbox", number, [("stock", far, commands)])
            self.server.store(1, data)
        deliveries = Deliveries(Source(self.server.life.name, 0), lambda: None)
        self.intake = Intake(
            *(1, cast(Partition, self), deliveries, self.broker, WIRE, REGISTRY),
            *(PARTITIONS, limits, lambda *_: None, self.clock),
        )

    def submit(self, _: AggregateType[Any], __: StreamKey, request: Request) -> None:
        self.queue_depth += len(request.commands)

    async def read(self) -> None:
        """Until no more is taken."""
        before = -1
        while before != self.queue_depth:
            before = self.queue_depth
            for _ in range(10):
                await settle()


@pytest.mark.parametrize(
    ("limits", "commands_each", "waiting"),
    [
        (Limits(1_000, 40), 40, 1_000),
        # One message more than there is room for, since it cannot be known how many it has.
        (Limits(1_000, 40), 30, 1_020),
        (Limits(10, 40), 40, 40),
        (Limits(70, 1), 1, 70),
    ],
)
async def test_no_more_is_read_than_may_wait_or_one_message(
    limits: Limits, commands_each: int, waiting: int
) -> None:
    found = Waiting(limits, commands_each)
    reading = asyncio.create_task(found.intake.run())
    await found.read()
    assert found.queue_depth == waiting
    # What was decided makes room for the next.
    found.queue_depth = 0
    found.clock.advance(1)
    await found.read()
    assert found.queue_depth == waiting
    reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)
