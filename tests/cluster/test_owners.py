"""Engines take what they are best for and give back what another one is; nothing of them stays."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from engine.cluster.membership import Heartbeat
from engine.cluster.owner import AWAY_SECONDS_MAX
from engine.cluster.owners import AGAIN_SECONDS, PLACES_SECONDS, UNABLE_SECONDS
from engine.cqrs.event_store import PartitionPlace, StoredSnapshot
from engine.errors import PartitionLost, StoreUnavailable
from engine.testing.faulty_store import FaultyStore
from tests.cluster.shop import DEAD_AFTER_SECONDS, PARTITIONS, account_in, engines, shop
from tests.cqrs.bank_account import Deposit, Deposited

ONE, TWO = engines()


async def test_one_engine_owns_everything_and_a_second_one_gets_its_own_without_a_fence() -> None:
    async with shop() as found:
        await found.start(ONE, "engine")
        await found.until(lambda: len(found.owned(ONE)) == PARTITIONS)
        kept = found.owned(ONE)[0]
        await found.start(TWO, "engine")
        await found.until(lambda: list(found.owned(ONE)) == [0] and list(found.owned(TWO)) == [1])
        # Its own stayed as it was; the other was given back before it was taken.
        assert found.owned(ONE)[0] is kept
        assert found.owned(TWO)[1].holding().epoch == 2


async def test_who_leaves_gives_back_and_the_other_takes_over_at_once() -> None:
    async with shop() as found:
        await found.start(ONE, "engine")
        await found.start(TWO, "engine")
        await found.until(lambda: list(found.owned(TWO)) == [1])
        before = found.clock.monotonic()
        await found.run(found.nodes.pop(ONE).close())
        await found.until(lambda: len(found.owned(TWO)) == PARTITIONS)
        assert found.clock.monotonic() - before < DEAD_AFTER_SECONDS


async def test_a_dead_engine_loses_its_partitions_and_no_other_moves() -> None:
    async with shop() as found:
        await found.start(ONE, "engine")
        await found.start(TWO, "engine")
        await found.until(lambda: list(found.owned(TWO)) == [1])
        kept = found.owned(TWO)[1]
        await found.kill(ONE)
        await found.until(lambda: len(found.owned(TWO)) == PARTITIONS)
        assert found.owned(TWO)[1] is kept


async def test_a_partition_that_is_not_given_back_in_time_is_taken_all_the_same() -> None:
    async with shop() as found:
        await found.start(ONE, "engine")
        await found.until(lambda: len(found.owned(ONE)) == PARTITIONS)
        old = found.owned(ONE)[1]
        give_back, free = old.give_back, asyncio.Event()

        async def late() -> None:
            await free.wait()
            await give_back()

        old.give_back = late  # type: ignore[method-assign]
        before = found.clock.monotonic()
        await found.start(TWO, "engine")
        await found.until(lambda: 1 in found.owned(TWO))
        assert found.clock.monotonic() - before >= DEAD_AFTER_SECONDS
        await found.start("gateway", "gateway")
        await found.serve("gateway")
        # The old owner reads it as well, and cannot write.
        sent = await found.ask("gateway", Deposit("1", account_in(1), 5))
        assert sent == (Deposited("1", 5),)
        await found.go_on(1)
        assert isinstance(old.partition.stopped, PartitionLost)
        assert await found.events() == ["1"]
        free.set()


async def test_a_store_or_a_broker_that_is_away_is_tried_again() -> None:
    async with shop() as found:
        store = FaultyStore(found.store)
        store.acquire_failures = 3
        await found.start(ONE, "engine", store)
        await found.until(lambda: len(found.owned(ONE)) == PARTITIONS)
        await found.kill(ONE)
        found.server.looks_to_fail = 5
        await found.start(TWO, "engine")
        await found.until(lambda: len(found.owned(TWO)) == PARTITIONS)
        assert found.server.looks_to_fail == 0
        assert store.acquire_failures == 0


async def test_a_node_without_a_database_leaves_its_partitions_to_one_that_has_it() -> None:
    async with shop() as found:
        store = FaultyStore(found.store)
        store.is_away = True
        await found.start(TWO, "engine", store)
        await found.go_on(5)
        await found.start(ONE, "engine")
        await found.until(lambda: sorted(found.owned(ONE)) == [0, 1])
        kept = found.owned(ONE)[1]
        # Not asked back before its database answers, however long that takes.
        await found.go_on(5 * UNABLE_SECONDS)
        assert found.owned(ONE)[1] is kept
        store.is_away = False
        await found.until(lambda: list(found.owned(TWO)) == [1])
        assert kept.partition.stopped is not None
        assert not isinstance(kept.partition.stopped, PartitionLost)
        assert found.owned(TWO)[1].holding().epoch == kept.holding().epoch + 1


async def test_an_owner_that_is_cut_off_from_its_database_is_relieved_by_who_is_not() -> None:
    async with shop() as found:
        store = FaultyStore(found.store)
        await found.start(ONE, "engine", store)
        await found.start(TWO, "engine")
        await found.start("gateway", "gateway")
        await found.serve("gateway")
        await found.until(lambda: list(found.owned(TWO)) == [1])
        store.is_away = True
        sent = found.send("gateway", Deposit("1", account_in(0), 5))
        await found.until(lambda: sorted(found.owned(TWO)) == [0, 1] and not found.owned(ONE))
        await found.until(sent.done)
        assert await sent == (Deposited("1", 5),)
        assert await found.events() == ["1"]
        # Once: it does not go to and fro before the database answers.
        await found.go_on(5 * UNABLE_SECONDS)
        assert found.owned(TWO)[0].holding().epoch == 2
        store.is_away = False
        await found.until(lambda: list(found.owned(ONE)) == [0])


async def test_a_database_that_nobody_reaches_leaves_its_partition_where_it_is() -> None:
    async with shop() as found:
        stores = [FaultyStore(found.store), FaultyStore(found.store)]
        await found.start(ONE, "engine", stores[0])
        await found.start(TWO, "engine", stores[1])
        await found.start("gateway", "gateway")
        await found.serve("gateway")
        await found.until(lambda: list(found.owned(ONE)) == [0] and list(found.owned(TWO)) == [1])
        kept = found.owned(ONE)[0]
        for each in stores:
            each.is_away = True
        sent = found.send("gateway", Deposit("1", account_in(0), 5))
        await found.go_on(3 * AWAY_SECONDS_MAX)
        assert kept.is_cut_off
        stores[0].is_away = False
        await found.until(sent.done)
        assert await sent == (Deposited("1", 5),)
        assert found.owned(ONE)[0] is kept


async def test_when_nobody_reaches_a_database_the_best_takes_its_partition_as_soon_as_it_answers() -> (
    None
):
    async with shop() as found:
        stores = [FaultyStore(found.store), FaultyStore(found.store)]
        for each in stores:
            each.is_away = True
        await found.start(ONE, "engine", stores[0])
        await found.start(TWO, "engine", stores[1])
        await found.go_on(2 * UNABLE_SECONDS)
        assert not found.owned(ONE)
        assert not found.owned(TWO)
        for each in stores:
            each.is_away = False
        await found.go_on(3 * AGAIN_SECONDS)
        assert list(found.owned(ONE)) == [0]
        assert list(found.owned(TWO)) == [1]


async def test_giving_back_does_not_keep_the_partition_for_its_snapshots() -> None:
    async with shop() as found:
        store = FaultyStore(found.store)
        few = {"residents__snapshot_events_min": 10}
        await found.start(ONE, "engine", store, **few)
        await found.start("gateway", "gateway")
        await found.serve("gateway")
        # A tenth of the events after which a snapshot is due anyhow is enough for one at closing.
        await found.ask("gateway", Deposit("1", account_in(1), 5))
        saved: list[str] = []

        async def slow(snapshot: StoredSnapshot, *_: object) -> None:
            saved.append(snapshot.aggregate_id)
            await found.clock.sleep(DEAD_AFTER_SECONDS)

        store.save_snapshot = slow  # type: ignore[assignment,method-assign]
        before = found.clock.monotonic()
        await found.start(TWO, "engine")
        await found.until(lambda: list(found.owned(TWO)) == [1])
        assert found.clock.monotonic() - before < DEAD_AFTER_SECONDS
        assert saved == []


async def test_an_engine_that_stood_still_does_not_take_what_others_own() -> None:
    async with shop() as found:
        await found.start(ONE, "engine")
        await found.start(TWO, "engine")
        await found.until(lambda: list(found.owned(ONE)) == [0] and list(found.owned(TWO)) == [1])
        epochs = [found.owned(ONE)[0].holding().epoch, found.owned(TWO)[1].holding().epoch]
        # Every timer of a minute at once, and nothing heard in between.
        found.clock.advance(60)
        await found.go_on(2 * DEAD_AFTER_SECONDS)
        assert [
            found.owned(ONE)[0].holding().epoch,
            found.owned(TWO)[1].holding().epoch,
        ] == epochs


async def test_what_is_being_dropped_when_the_node_closes_is_dropped_to_its_end() -> None:
    async with shop() as found:
        node = await found.start(ONE, "engine")
        await found.until(lambda: len(found.owned(ONE)) == PARTITIONS)
        owners = node.owners
        assert owners is not None
        owner = owners.owned[0]
        leaving = asyncio.Event()

        async def leave(_: int) -> None:
            leaving.set()
            await found.clock.sleep(1)

        owners._leave = leave
        owners._lost(owner)
        await leaving.wait()
        await found.run(node.close())
        assert owner._loop_task is not None
        assert owner._loop_task.done()
        assert owner._tasks == []


async def test_a_failure_while_giving_back_is_shown_and_the_close_goes_on() -> None:
    async with shop() as found:
        node = await found.start(ONE, "engine")
        await found.until(lambda: len(found.owned(ONE)) == PARTITIONS)
        owners = node.owners
        assert owners is not None
        leave = owners._leave

        async def fail_once(number: int) -> None:
            if number == 0:
                owners._leave = leave
                raise ZeroDivisionError("a bug in who follows")
            await leave(number)

        owners._leave = fail_once
        await found.run(node.close())
        assert list(owners.owned) == [0]
        assert owners._leaving == set()
        await found.run(owners.give_back_all())
        assert owners.owned == {}


async def test_an_owner_that_is_lost_before_it_is_given_back_is_dropped_and_taken_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with shop() as found:
        node = await found.start(ONE, "engine")
        await found.until(lambda: len(found.owned(ONE)) == PARTITIONS)
        owners = node.owners
        assert owners is not None
        owner = owners.owned[1]
        owners._begin(1, owners._give_back(1))
        owners._lost(owner, "the test says so")
        await found.until(lambda: found.owned(ONE).get(1) not in (owner, None))
        assert owner._loop_task is not None
        assert owner._loop_task.done()
        assert not [each for each in caplog.records if each.levelname == "ERROR"]


async def test_what_another_node_shows_with_a_higher_epoch_is_dropped_at_once() -> None:
    async with shop() as found:
        node = await found.start(ONE, "engine")
        await found.until(lambda: len(found.owned(ONE)) == PARTITIONS)
        lost, kept = found.owned(ONE)[0], found.owned(ONE)[1]
        assert node.owners is not None
        higher = msgspec.structs.replace(lost.holding(), epoch=2)
        node.members.show(Heartbeat(TWO, "boot", "engine", (higher, kept.holding())))
        node.owners.look()
        assert list(found.owned(ONE)) == [1]
        assert found.owned(ONE)[1] is kept


SEEN_SECONDS = PLACES_SECONDS + 4 * AGAIN_SECONDS
"""By then what happened in the store was seen, looked at again, dropped and taken anew."""


class TellingStore(FaultyStore):
    """Tells what it is told to of partition 0, and counts how often it is asked."""

    asked = 0
    is_away = False
    database = ""
    moving_to = ""

    async def read_places(self) -> list[PartitionPlace]:
        self.asked += 1
        if self.is_away:
            raise StoreUnavailable("the test says so")
        first, *others = await super().read_places()
        told = msgspec.structs.replace(first, database=self.database, moving_to=self.moving_to)
        return [told, *others]


async def test_a_quiet_partition_that_somebody_else_fenced_is_taken_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with shop() as found:
        await found.start(ONE, "engine")
        await found.until(lambda: len(found.owned(ONE)) == PARTITIONS)
        old, kept = found.owned(ONE)[0], found.owned(ONE)[1]
        # As a move does, that nobody in the cluster hears of.
        await found.run(found.store.acquire(0))
        await found.go_on(SEEN_SECONDS)
        assert found.owned(ONE)[0] is not old
        assert found.owned(ONE)[0].holding().epoch == 3
        assert old._loop_task is not None
        assert old._loop_task.done()
        assert found.owned(ONE)[1] is kept
        assert "partition 0 is lost: its epoch is 2 and ours was 1" in caplog.messages


async def test_a_partition_that_is_being_moved_is_dropped_until_it_lives_where_it_goes(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with shop() as found:
        store = TellingStore(found.store)
        await found.start(ONE, "engine", store)
        await found.until(lambda: len(found.owned(ONE)) == PARTITIONS)
        store.database, store.moving_to = "db1", "db2"
        store.acquire_failures = 2 * int(SEEN_SECONDS)
        await found.go_on(SEEN_SECONDS)
        assert list(found.owned(ONE)) == [1]
        assert "partition 0 is lost: it is being moved to db2" in caplog.messages
        store.database, store.acquire_failures = "db2", 0
        await found.until(lambda: 0 in found.owned(ONE))
        kept = found.owned(ONE)[0]
        await found.go_on(2 * SEEN_SECONDS)
        assert found.owned(ONE)[0] is kept


async def test_a_store_that_cannot_be_asked_takes_nothing_from_its_owner() -> None:
    async with shop() as found:
        store = TellingStore(found.store)
        await found.start(ONE, "engine", store)
        await found.until(lambda: len(found.owned(ONE)) == PARTITIONS)
        kept = found.owned(ONE)[0]
        store.is_away, store.asked = True, 0
        await found.run(found.store.acquire(0))
        await found.go_on(2 * SEEN_SECONDS)
        assert store.asked > 1
        assert found.owned(ONE)[0] is kept
        store.is_away = False
        await found.until(lambda: found.owned(ONE).get(0) not in (kept, None))


async def test_an_owner_that_takes_its_partition_back_is_not_dropped_for_it() -> None:
    async with shop() as found:
        await found.start(ONE, "engine")
        await found.until(lambda: len(found.owned(ONE)) == PARTITIONS)
        owner = found.owned(ONE)[0]
        owners = found.nodes[ONE].owners
        assert owners is not None
        lease = await found.run(found.store.acquire(0, owner._committer.lease))
        doubted = owners._check_places(await found.run(found.store.read_places()), {})
        assert doubted == {0: 1}
        # What it did is known to it only now.
        owner._committer._lease = lease
        assert owners._check_places(await found.run(found.store.read_places()), doubted) == {}
        assert found.owned(ONE)[0] is owner
