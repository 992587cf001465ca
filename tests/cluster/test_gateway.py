"""Orders through a gateway: whatever is lost, done once, and told as it happened."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from engine.cqrs.messages import Rejected
from engine.errors import DeadlineExceeded, OutcomeUnknown, PartitionLost, StoreUnavailable
from engine.testing.faulty_store import FaultyStore
from tests.cluster.shop import (
    DEAD_AFTER_SECONDS,
    HEARTBEAT_SECONDS,
    PARTITIONS,
    account_in,
    engines,
    shop,
)
from tests.cqrs.bank_account import Deposit, Deposited, FeeCharged, Withdraw, Withdrawn

A, B = account_in(0), account_in(1)


def first(count: int, part: str = ".replies.") -> Callable[[str, bytes], bool]:
    """Loses the first messages of a kind."""
    left = [count]

    def loses(subject: str, payload: bytes) -> bool:
        if part not in subject or not left[0]:
            return False
        left[0] -= 1
        return True

    return loses


async def test_commands_go_to_their_owners_and_come_back_in_order() -> None:
    async with shop() as found:
        await found.start("engine", "engine")
        await found.start("gateway", "gateway")
        await found.serve("gateway")
        bus = found.gateway("gateway").bus
        commands = [
            Deposit("1", A, 5),
            Deposit("2", B, 7),
            Withdraw("3", A, 4),
            Withdraw("4", A, 4),
        ]
        assert await found.run(bus.execute_many(commands)) == [
            (Deposited("1", 5),),
            (Deposited("2", 7),),
            (Withdrawn("3", 4), FeeCharged("3", 1)),
            Rejected("insufficient_balance"),
        ]
        told = await found.run(bus.ask("account", A, "3"))
        assert told.answer == (Withdrawn("3", 4), FeeCharged("3", 1))
        assert all(
            not lane.messages and not lane.queue_depth for lane in found.gateway("gateway").lanes
        )


async def test_a_partition_without_an_owner_refuses_its_own_commands_after_the_patience(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    async with shop() as found:
        stubborn = FaultyStore(found.store)
        one, two = engines()
        await found.start(one, "engine")
        await found.start(two, "engine", stubborn)
        await found.start("gateway", "gateway")
        await found.until(lambda: len(found.owned(one)) == len(found.owned(two)) == 1)
        await found.serve("gateway")
        (lost,), (kept,) = found.owned(one), found.owned(two)
        stubborn.acquire_failures = 10**9
        await found.kill(one)
        await found.go_on(DEAD_AFTER_SECONDS + 3 * HEARTBEAT_SECONDS)
        # Its owner is known to be dead; its commands wait for who comes next.
        assert found.gateway("gateway").stopped() == []
        await found.go_on(DEAD_AFTER_SECONDS + 3 * HEARTBEAT_SECONDS)
        refused = await found.ask("gateway", Deposit("1", account_in(lost), 5))
        assert isinstance(refused, PartitionLost)
        assert found.gateway("gateway").statistics().unserved == 1
        assert f"nobody owns partition {lost}" in str(refused)
        assert await found.ask("gateway", Deposit("2", account_in(kept), 5)) == (Deposited("2", 5),)
        assert [each.partition for each in found.gateway("gateway").served()] == [kept]
        assert f"nobody owns partition {lost} now: orders are refused" in caplog.text
        stubborn.acquire_failures = 0
        await found.serve("gateway")
        assert f"somebody owns partition {lost} now" in caplog.text
        assert await found.ask("gateway", Deposit("3", account_in(lost), 5)) == (Deposited("3", 5),)


async def test_a_gateway_that_hears_nothing_refuses_after_its_patience_and_takes_orders_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with shop() as found:
        await found.start("engine", "engine")
        await found.start("gateway", "gateway")
        await found.serve("gateway")
        found.broker("gateway").is_cut = True
        await found.go_on(2 * DEAD_AFTER_SECONDS + 1)
        assert len(found.gateway("gateway").stopped()) == PARTITIONS
        assert "nobody owns partitions 0-1 now" in caplog.text
        found.broker("gateway").is_cut = False
        await found.go_on(2 * HEARTBEAT_SECONDS)
        assert await found.ask("gateway", Deposit("1", A, 5)) == (Deposited("1", 5),)


async def test_a_command_through_two_gateways_at_once_and_an_hour_later_is_one_event() -> None:
    async with shop() as found:
        await found.start("engine", "engine")
        for name in ("one", "two"):
            await found.start(name, "gateway")
            await found.serve(name)
        sent = [found.send(name, Deposit("1", A, 5)) for name in ("one", "two")]
        await found.until(lambda: all(each.done() for each in sent))
        assert [each.result() for each in sent] == [(Deposited("1", 5),)] * 2
        found.clock.advance(3_600)
        await found.go_on(2 * HEARTBEAT_SECONDS)
        assert await found.ask("two", Deposit("1", A, 5)) == (Deposited("1", 5),)
        assert await found.events() == ["1"]
        assert len(found.server.stored) == 3


async def test_a_message_that_comes_again_after_the_broker_forgot_its_id_changes_nothing() -> None:
    async with shop() as found:
        await found.start("engine", "engine")
        await found.start("gateway", "gateway")
        await found.serve("gateway")
        answer = await found.ask("gateway", Deposit("1", A, 5))
        before = len(found.server.sent)
        sequence = found.server.repeat(found.server.stored[0])
        await found.until(lambda: found.owned("engine")[0].holding().source.done >= sequence)
        assert await found.events() == ["1"]
        replies = [each for subject, each in found.server.sent[before:] if ".replies." in subject]
        said = [found.wire.decode_outcomes(found.wire.decode_reply(each)) for each in replies]
        assert said == [[answer]]


async def test_a_refused_command_that_comes_again_after_its_deadline_is_not_executed() -> None:
    async with shop() as found:
        await found.start("engine", "engine")
        await found.start("gateway", "gateway")
        await found.serve("gateway")
        refused = await found.ask("gateway", Withdraw("1", A, 5), 1_000)
        assert refused == Rejected("insufficient_balance")
        # Another owner remembers no refusals.
        await found.kill("engine")
        await found.start("next", "engine")
        await found.until(lambda: len(found.owned("next")) == PARTITIONS)
        await found.go_on(HEARTBEAT_SECONDS)
        await found.ask("gateway", Deposit("2", A, 50))
        sequence = found.server.repeat(found.server.stored[0])
        await found.until(lambda: found.owned("next")[0].holding().source.done >= sequence)
        assert await found.events() == ["2"]


async def test_a_reply_that_is_lost_is_told_after_the_recovery_and_nothing_is_done_twice() -> None:
    async with shop() as found:
        await found.start("engine", "engine")
        await found.start("gateway", "gateway")
        await found.serve("gateway")
        found.server.loses = first(1)
        assert await found.ask("gateway", Deposit("1", A, 5)) == (Deposited("1", 5),)
        assert await found.events() == ["1"]
        assert len(found.server.stored) == 2


async def test_what_was_in_a_stream_that_is_no_more_is_sent_again() -> None:
    async with shop() as found:
        await found.start("engine", "engine")
        await found.start("gateway", "gateway")
        await found.serve("gateway")
        found.broker("engine").is_cut = True
        sent = found.send("gateway", Deposit("1", A, 5))
        await found.until(lambda: found.server.messages)
        found.server.wipe()
        found.broker("engine").is_cut = False
        await found.until(sent.done)
        assert sent.result() == (Deposited("1", 5),)
        assert len(found.server.stored) == 2
        assert await found.events() == ["1"]


async def test_a_reply_that_is_only_late_is_not_asked_for_again() -> None:
    async with shop() as found:
        await found.start("engine", "engine")
        await found.start("gateway", "gateway")
        await found.serve("gateway")
        lost: list[tuple[str, bytes]] = []

        def late(subject: str, payload: bytes) -> bool:
            if ".replies." in subject and not lost:
                lost.append((subject, payload))
                return True
            return False

        found.server.loses = late
        sent = found.send("gateway", Deposit("1", A, 5))
        await found.until(lambda: lost)
        # Many nodes show themselves in one moment; that makes the reply no later.
        for _ in range(50):
            found.gateway("gateway").look()
        found.server.send(*lost[0])
        await found.until(sent.done)
        assert sent.result() == (Deposited("1", 5),)
        assert len(found.server.stored) == 1


async def test_what_a_buyer_is_told_and_what_happened_agree_when_the_owner_dies_before_it_tells() -> (
    None
):
    async with shop() as found:
        await found.start("engine", "engine")
        for name in ("gateway", "other"):
            await found.start(name, "gateway")
            await found.serve(name)
        found.server.loses = first(10**9)
        sent = found.send("gateway", Withdraw("1", A, 5))
        await found.until(lambda: found.owned("engine")[0].holding().source.done == 1)
        # Refused, durably decided, and not told: now there is stock.
        assert not sent.done()
        found.server.loses = lambda subject, payload: False
        await found.kill("engine")
        await found.start("next", "engine")
        await found.until(lambda: len(found.owned("next")) == PARTITIONS)
        deposited = found.send("other", Deposit("2", A, 50))
        await found.until(lambda: sent.done() and deposited.done())
        executed = "1" in await found.events()
        assert sent.result() == (
            (Withdrawn("1", 5), FeeCharged("1", 1))
            if executed
            else Rejected("insufficient_balance")
        )


async def test_a_stream_that_is_made_anew_answers_everybody_who_waits() -> None:
    async with shop() as found:
        await found.start("engine", "engine")
        await found.start("gateway", "gateway")
        await found.serve("gateway")
        assert await found.ask("gateway", Deposit("0", A, 5)) == (Deposited("0", 5),)
        found.server.loses = first(1)
        sent = found.send("gateway", Deposit("1", A, 5))
        await found.until(lambda: found.owned("engine")[0].holding().source.done == 2)
        found.server.wipe()
        await found.until(sent.done)
        assert sent.result() == (Deposited("1", 5),)
        assert await found.events() == ["0", "1"]


async def test_replies_that_nobody_waits_for_or_nobody_can_read_are_passed_over() -> None:
    async with shop() as found:
        await found.start("engine", "engine")
        gateway = (await found.start("gateway", "gateway")).gateway
        await found.serve("gateway")
        assert gateway is not None
        strange = [b"", b"\xff", found.wire.encode_outcomes(4_000, [Rejected("x")])]
        for payload in (*strange, found.wire.encode_outcomes(-1, [])):
            found.server.send(gateway.inbox, payload)
        assert await found.ask("gateway", Deposit("1", A, 5)) == (Deposited("1", 5),)
        assert all(not lane.messages for lane in gateway.lanes)


async def test_an_owner_of_another_version_says_so_at_once() -> None:
    async with shop() as found:
        await found.start("engine", "engine")
        await found.start("gateway", "gateway")
        await found.serve("gateway")
        del found.registry.types["account"]
        answer = await found.ask("gateway", Deposit("1", A, 5))
        assert isinstance(answer, StoreUnavailable)
        assert "another version" in str(answer)
        assert await found.events() == []


async def test_a_deadline_passes_while_nobody_reads() -> None:
    async with shop() as found:
        await found.start("engine", "engine")
        await found.start("gateway", "gateway")
        await found.serve("gateway")
        await found.kill("engine")
        answer = await found.ask("gateway", Deposit("1", A, 5), 1_000)
        assert isinstance(answer, OutcomeUnknown | DeadlineExceeded)
        told = found.gateway("gateway").statistics()
        assert (told.queue_depth, told.unknown + told.expired) == (0, 1)
        await found.start("next", "engine")
        await found.until(lambda: len(found.owned("next")) == PARTITIONS)
        await found.until(lambda: found.owned("next")[0].holding().source.done == 1)
        assert await found.events() == []


async def test_what_expires_at_its_owner_is_counted_once_by_who_tells_it() -> None:
    async with shop() as found:
        stuck = FaultyStore(found.store, ["hang"])
        await found.start("engine", "engine", stuck)
        for name in ("one", "two"):
            await found.start(name, "gateway")
            await found.serve(name)
        flying = found.send("one", Deposit("1", A, 5), 1_000)
        await found.go_on(0.1)
        queued = found.send("one", Deposit("2", A, 5), 1_000)
        await found.until(lambda: flying.done() and queued.done())
        await found.go_on(2 * HEARTBEAT_SECONDS)
        engine = found.gateway("engine").statistics()
        # The owner counts what it drops; it is told by one gateway, and by that alone.
        assert engine.unknown + engine.expired == 2
        counted = [found.gateway(each).statistics() for each in ("one", "two")]
        assert [each.unknown + each.expired for each in counted] == [2, 0]
        stuck.released.set()


async def test_closing_answers_what_is_under_way_and_leaves_nothing_behind() -> None:
    async with shop() as found:
        node = await found.start("all")
        await found.serve("all")
        sent = [found.send("all", Deposit(f"{n}", A, 5)) for n in range(50)]
        await asyncio.sleep(0)
        await found.run(node.close())
        assert [each.result() for each in sent] == [(Deposited(f"{n}", 5),) for n in range(50)]
        assert found.owned("all") == {}
