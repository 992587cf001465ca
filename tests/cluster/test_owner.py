"""A partition is taken over, worked on, given back or lost; what was told stays told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from engine.cluster.intake import CUT_ASKED_TIMES, CUT_SECONDS, Limits
from engine.cluster.owner import Owner
from engine.cluster.pull_consumer import PullConsumer
from engine.config import load_settings
from engine.cqrs.command_side.live_rows import LiveRows
from engine.cqrs.command_side.partition_maker import PartitionMaker
from engine.cqrs.command_side.statistics import Counters
from engine.cqrs.event_store import Lease, Source
from engine.cqrs.messages import Command, Rejected
from engine.cqrs.query_side.subscription import Feed
from engine.errors import BrokerUnavailable, StoreUnavailable
from engine.testing.faulty_store import FaultyStore
from engine.testing.virtual_clock import settle
from tests.cluster.shop import Shop, account_in
from tests.cqrs.bank_account import Deposit, Withdraw

A = account_in(0)
DEADLINE_SECONDS = 600
LIMITS = Limits(queue_max=9, message_commands_max=1)


class Bench:
    """Owners of partition 0 by hand, and commands published by hand; `told` is what they answered."""

    def __init__(self) -> None:
        self.shop = Shop()
        self.server = self.shop.server
        self.clock = self.shop.clock
        self.store = FaultyStore(self.shop.store)
        self.server.make()
        self.broker = self.server.connect()
        self.told: list[object] = []
        self.lost: list[Owner] = []
        self.owners: list[Owner] = []
        settings = load_settings(environ={})
        self.maker = PartitionMaker(
            *(self.store, self.shop.registry, settings, self.clock, Counters(), Feed(), LiveRows())
        )

    def publish(self, command: Command) -> int:
        deadline_us = self.clock.wall_us() + DEADLINE_SECONDS * 1_000_000
        data = self.shop.wire.encode_commands("inbox", 1, [("account", deadline_us, [command])])
        return self.server.store(0, data)

    async def take(self) -> Owner:
        owner = await self.clock.run(
            Owner.take(0, self.maker, self.broker, _nothing_to_prepare, self.clock)
        )
        self.owners.append(owner)
        owner.start(self.shop.wire, self.shop.registry, 2, LIMITS, self._reply, self.lost.append)
        return owner

    def _reply(self, inbox: str, payload: bytes) -> None:
        wire = self.shop.wire
        self.told += wire.decode_outcomes(wire.decode_reply(payload))

    async def epoch(self) -> int:
        lease = await self.shop.store.acquire(0)
        return lease.epoch


async def _nothing_to_prepare(_: int) -> None:
    pass


@asynccontextmanager
async def bench() -> AsyncIterator[Bench]:
    found = Bench()
    try:
        yield found
    finally:
        for each in found.owners:
            await found.clock.run(each.drop())


async def test_what_was_told_is_not_decided_again_by_who_takes_over_from_a_living_owner() -> None:
    async with bench() as found:
        await found.take()
        acquire = found.store.acquire

        async def late(partition: int, held: Lease | None = None) -> Lease:
            # Between the new owner's first look at the stream and its epoch, the old one decides.
            found.publish(Withdraw("1", A, 5))
            await settle()
            await settle()
            assert found.told == [Rejected("insufficient_balance")]
            return await acquire(partition, held)

        found.store.acquire = late  # type: ignore[method-assign]
        owner = await found.take()
        found.store.acquire = acquire  # type: ignore[method-assign]
        assert owner.holding().source.done == 1
        found.publish(Deposit("2", A, 50))
        await settle()
        assert [type(each) for each in found.told] == [Rejected, tuple]


async def test_who_cannot_reach_the_broker_disturbs_nobody() -> None:
    async with bench() as found:
        owner = await found.take()
        before = owner.holding().epoch
        found.broker.is_cut = True
        with pytest.raises(BrokerUnavailable):
            await found.take()
        found.broker.is_cut = False
        assert await found.epoch() == before + 1


async def test_a_store_that_is_away_is_an_error_and_the_next_try_goes_on() -> None:
    async with bench() as found:
        found.store.acquire_failures = 1
        with pytest.raises(StoreUnavailable):
            await found.take()
        found.publish(Deposit("1", A, 5))
        await found.take()
        await settle()
        assert len(found.told) == 1


async def test_a_fenced_owner_ends_and_tells_nothing() -> None:
    async with bench() as found:
        old = await found.take()
        found.owners.remove(old)
        await old._stop_reading()
        new = await found.take()
        found.publish(Deposit("1", A, 5))
        await settle()
        assert (found.lost, len(found.told)) == ([], 1)
        # What the old one still has in its queue cannot be written.
        old._deliveries._nudge()
        old._deliveries._is_anew = True
        old._deliveries._nudge()
        await settle()
        assert found.lost == [old]
        assert len(found.told) == 1
        assert new.partition.stopped is None
        await found.clock.run(old.drop())


async def test_a_lost_end_of_the_stream_is_believed_only_when_it_is_said_for_long() -> None:
    async with bench() as found:
        for n in range(3):
            found.publish(Deposit(f"{n}", A, 5))
        first = await found.take()
        await settle()
        assert first.holding().source.done == 3
        await found.clock.run(first.give_back())
        found.server.last = 2  # A leader that was stopped for a while, and says what it knew then.
        started = found.clock.monotonic()
        found.clock.call_later(CUT_SECONDS * 1.5, lambda: setattr(found.server, "last", 3))
        second = await found.take()
        assert second.holding().source.done == 3
        assert found.clock.monotonic() - started == 2 * CUT_SECONDS
        await found.clock.run(second.give_back())
        found.server.cut(2)
        started = found.clock.monotonic()
        third = await found.take()
        assert found.clock.monotonic() - started == CUT_ASKED_TIMES * CUT_SECONDS
        assert third.holding().source.done == 2
        found.publish(Deposit("new", A, 5))
        await settle()
        assert await found.shop.events() == ["0", "1", "2", "new"]


async def test_a_life_of_the_stream_that_is_new_is_stored_at_once() -> None:
    async with bench() as found:
        await found.take()
        await settle()
        found.server.wipe()
        await found.clock.run(found.clock.sleep(5))
        lease = await found.shop.store.acquire(0)
        assert lease.source == Source(found.server.life.name)


async def test_a_stream_that_is_made_anew_while_it_is_asked_for_is_not_taken_for_the_old_one() -> (
    None
):
    async with bench() as found:
        found.publish(Deposit("0", A, 5))
        consume = found.broker.consume

        async def late(partition: int, first_sequence: int) -> PullConsumer:
            found.broker.consume = consume  # type: ignore[method-assign]
            found.server.wipe()
            found.publish(Withdraw("1", A, 50))
            return await consume(partition, first_sequence)

        found.broker.consume = late  # type: ignore[method-assign]
        owner = await found.take()
        await found.clock.run(found.clock.sleep(1))
        assert found.told == [Rejected("insufficient_balance")]
        assert owner.holding().source == Source(found.server.life.name, 1)
        await found.clock.run(owner.drop())
        found.publish(Deposit("2", A, 50))
        await found.take()
        await found.clock.run(found.clock.sleep(1))
        # The next owner knows in which life it was decided.
        assert await found.shop.events() == ["2"]


async def test_an_owner_whose_reading_fails_is_lost() -> None:
    async with bench() as found:

        async def broken(*_: object) -> object:
            raise ZeroDivisionError("a bug in who reads")

        found.broker.consume = broken  # type: ignore[method-assign,assignment]
        owner = await found.take()
        await settle()
        assert found.lost == [owner]


async def test_what_is_decided_is_removed_from_the_stream_after_a_while() -> None:
    async with bench() as found:
        await found.take()
        for n in range(3):
            found.publish(Deposit(f"{n}", A, 5))
        found.server.store(1, b"of another partition")
        await found.clock.run(found.clock.sleep(11))
        assert [each.partition for each in found.server.messages] == [1]


async def test_what_is_not_decided_stays_in_the_stream() -> None:
    async with bench() as found:
        owner = await found.take()
        for n in range(3):
            found.publish(Deposit(f"{n}", A, 5))
        await settle()
        assert owner.holding().source.done == 3
        found.store.is_away = True
        for n in range(3, 6):
            found.publish(Deposit(f"{n}", A, 5))
        await found.clock.run(found.clock.sleep(11))
        assert owner.holding().source.done == 3
        assert [each.sequence for each in found.server.messages] == [4, 5, 6]


async def test_giving_back_finishes_what_is_here_and_is_idempotent() -> None:
    async with bench() as found:
        owner = await found.take()
        found.publish(Deposit("1", A, 5))
        await asyncio.sleep(0)
        await settle()
        await found.clock.run(owner.give_back())
        await found.clock.run(owner.give_back())
        assert len(found.told) == 1
