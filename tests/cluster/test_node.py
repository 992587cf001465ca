"""A node shows itself, hears the others, and leaves in good order."""

from __future__ import annotations

import asyncio
import logging

import pytest

from engine.cluster.membership import Heartbeat, decode_heartbeat, encode_heartbeat
from engine.errors import BrokerUnavailable, ConfigError, SeckillError
from engine.testing.scripted_broker import ScriptedBroker
from engine.testing.virtual_clock import settle
from tests.cluster.shop import (
    DEAD_AFTER_SECONDS,
    HEARTBEAT_SECONDS,
    PARTITIONS,
    Shop,
    account_in,
    engines,
    shop,
)
from tests.cqrs.bank_account import Deposit


def shown(found: Shop, name: str) -> list[Heartbeat]:
    """The heartbeats of a node so far."""
    all_of_it = [
        decode_heartbeat(each) for subject, each in found.server.sent if ".nodes." in subject
    ]
    return [each for each in all_of_it if each is not None and each.node == name]


async def test_who_comes_says_hello_and_is_answered_at_once() -> None:
    async with shop() as found:
        await found.start("old", "gateway")
        before = len(shown(found, "old"))
        starting = asyncio.create_task(found.start("new", "gateway"))
        await settle()
        assert shown(found, "new")[0].hello
        assert len(shown(found, "old")) == before + 1
        # Not each other without end.
        assert len(shown(found, "new")) == 1
        while not starting.done():
            found.clock.advance(HEARTBEAT_SECONDS)
            await settle()
        assert {each.node for each in found.nodes["new"].members.live()} == {"old", "new"}


async def test_a_name_that_another_one_has_is_refused_and_the_other_goes_on() -> None:
    async with shop() as found:
        first = await found.start("same", "engine")
        with pytest.raises(ConfigError, match="is called 'same'"):
            await found.start("same", "engine")
        assert not first.failed.done()
        await found.run(found.nodes["same"].close())
        await found.nodes["same"].broker.close()
        found.nodes["same"] = first
        await found.until(lambda: len(found.owned("same")) == PARTITIONS)


async def test_who_has_just_come_gets_no_partition_before_it_is_ready_for_one() -> None:
    async with shop() as found:
        one, other = engines()
        await found.start(one, "engine")
        await found.until(lambda: len(found.owned(one)) == PARTITIONS)
        starting = asyncio.create_task(found.start(other, "engine"))
        await settle()
        while not starting.done():
            if shown(found, other)[-1].joining:
                assert len(found.owned(one)) == PARTITIONS
            found.clock.advance(HEARTBEAT_SECONDS / 5)
            await settle()
        await found.until(lambda: len(found.owned(other)) == 1)


async def test_one_that_hung_gives_way_to_the_one_that_took_its_place(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with shop() as found:
        old = await found.start("same")
        await found.serve("same")
        found.broker("same").is_cut = True
        await found.go_on(2 * DEAD_AFTER_SECONDS)
        new = await found.start("same")
        await found.serve("same")
        epochs = [each.epoch for each in await found.store.read_places()]
        old_broker = old.broker
        assert isinstance(old_broker, ScriptedBroker)
        old_broker.is_cut = False
        await found.until(old.failed.done)
        assert "another process called 'same' started after it" in old.failed.result()
        assert [each.levelno for each in caplog.records if "goes on no more" in each.message] == [
            logging.CRITICAL
        ]
        await found.go_on(4 * DEAD_AFTER_SECONDS)
        assert old.owners is not None
        assert old.owners.owned == {}
        assert len(found.owned("same")) == PARTITIONS
        assert [each.epoch for each in await found.store.read_places()] == epochs
        # Nor does it say that it leaves: that would be said of the other one.
        assert not any(each.leaving for each in shown(found, "same"))
        await found.run(old.close())
        assert not any(each.leaving for each in shown(found, "same"))
        assert not new.failed.done()
        await old_broker.close()


@pytest.mark.parametrize(
    ("later_ms", "boot", "changes", "gives_way"),
    [
        (1, "0", {}, True),
        (0, "z", {}, True),
        (0, "0", {}, False),
        (-1, "z", {}, False),
        (1, "z", {"joining": True, "hello": True}, False),
        (1, "z", {"joining": True}, False),
        (1, "z", {"leaving": True}, False),
    ],
)
async def test_of_two_with_one_name_the_one_that_started_last_stays(
    later_ms: int, boot: str, changes: dict[str, bool], gives_way: bool
) -> None:
    async with shop() as found:
        node = await found.start("same")
        started_at_ms = node.started_at_ms + later_ms
        heartbeat = Heartbeat("same", boot, "engine", started_at_ms=started_at_ms, **changes)  # type: ignore[arg-type]
        found.server.send(node.broker.subject("nodes", "same"), encode_heartbeat(heartbeat))
        await settle()
        assert node.failed.done() is gives_way


async def test_a_client_that_gave_up_ends_the_node_and_nobody_waits_for_replies() -> None:
    async with shop() as found:
        node = await found.start("one")
        await found.serve("one")
        broker = found.broker("one")
        broker.is_cut = True
        waiting = found.send("one", Deposit("d", account_in(0), 1))
        await settle()
        broker._end("gone for good")
        assert node.failed.result() == "gone for good"
        before = found.clock.monotonic()
        await found.run(node.close())
        assert found.clock.monotonic() == before
        assert isinstance(await waiting, SeckillError)


async def test_who_leaves_has_not_failed() -> None:
    async with shop() as found:
        node = await found.start("one")
        await found.run(node.close())
        found.broker("one")._end("closed")
        assert not node.failed.done()


async def test_who_leaves_says_so_and_shows_nothing_of_its_own_any_more() -> None:
    async with shop() as found:
        node = await found.start("one", "engine")
        await found.until(lambda: len(found.owned("one")) == PARTITIONS)
        await found.run(node.close())
        last = shown(found, "one")[-1]
        assert last.leaving
        assert last.holds == ()
        await found.run(node.close())


async def test_a_heartbeat_of_another_version_is_passed_over() -> None:
    async with shop() as found:
        node = await found.start("one", "gateway")
        for payload in (b"", b'{"node": "\xff"}', b'{"vote": 1}'):
            found.server.send(node.broker.subject("nodes", "two"), payload)
        found.server.send(
            node.broker.subject("nodes", "two"), encode_heartbeat(Heartbeat("two", "b", "engine"))
        )
        await settle()
        assert {each.node for each in node.members.live()} == {"one", "two"}


async def test_a_broker_that_is_away_is_no_reason_to_give_anything_up() -> None:
    async with shop() as found:
        await found.start("one", "engine")
        await found.start("two", "gateway")
        await found.serve("two")
        owner = found.owned("one")[0]
        found.server.is_down = True
        await found.go_on(20 * DEAD_AFTER_SECONDS)
        found.server.is_down = False
        await found.go_on(2 * HEARTBEAT_SECONDS)
        assert found.owned("one")[0] is owner
        assert found.gateway("two").stopped() == []


async def test_what_ends_a_task_of_a_node_is_shown(caplog: pytest.LogCaptureFixture) -> None:
    async with shop() as found:
        node = await found.start("one", "gateway")

        async def fail() -> None:
            raise ZeroDivisionError("a bug")

        node.run(fail(), "something")
        await settle()
        (record,) = [each for each in caplog.records if each.levelno == logging.CRITICAL]
        assert "something stopped" in record.getMessage()
        assert record.exc_info


async def test_a_node_that_cannot_start_leaves_nothing_behind() -> None:
    async with shop() as found:
        found.server.is_down = True
        with pytest.raises(BrokerUnavailable):
            await found.start("one", "gateway")
        found.server.is_down = False
