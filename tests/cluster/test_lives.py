"""A stream that is older than the one that fed a partition last never feeds it again."""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest

from engine.clock import Clock
from engine.cluster.broker import StreamLife
from engine.cluster.deliveries import Deliveries
from engine.cluster.lives import OlderStream, check_not_older
from engine.cluster.membership import decode_heartbeat
from engine.cluster.owners import UNABLE_SECONDS
from engine.cqrs.event_store import Source
from engine.cqrs.messages import Rejected
from engine.errors import PartitionLost
from engine.testing.scripted_broker import ScriptedServer
from tests.cluster.shop import (
    DEAD_AFTER_SECONDS,
    HEARTBEAT_SECONDS,
    PARTITIONS,
    Shop,
    account_in,
    shop,
)
from tests.cqrs.bank_account import Deposit, Deposited, Withdraw

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
A = account_in(0)

EARLY = [
    "seckill-commands 2026-01-01 12:00:00+00:00",
    "seckill-commands 2026-01-01 12:00:00.000001+00:00",
    # As text it would be the smaller one, and the next one's hour the same.
    "other-commands 2026-01-01 13:00:00.5+01:00",
    "seckill-commands 2026-01-01 13:30:00+00:00",
]


@pytest.mark.parametrize(("early", "late"), list(pairwise(EARLY)))
def test_the_older_one_is_told_by_the_times(early: str, late: str) -> None:
    check_not_older(late, early)
    check_not_older(early, early)
    with pytest.raises(OlderStream) as error:
        check_not_older(early, late)
    for each in (*early.split(" ", 1), *late.split(" ", 1), "cluster.prefix"):
        assert each in str(error.value)


@pytest.mark.parametrize(
    "name", ["", "life 1", "seckill-commands None", "seckill-commands 2020-01-01"]
)
def test_what_does_not_say_when_it_was_made_is_not_older(name: str) -> None:
    check_not_older(name, EARLY[0])
    check_not_older(EARLY[0], name)


def test_what_is_read_of_a_partition_stays_as_it_was_when_an_older_stream_comes() -> None:
    deliveries = Deliveries(Source(EARLY[1], 7, ((9, 9),)), lambda: None)
    with pytest.raises(OlderStream):
        deliveries.begin(EARLY[0], 100)
    assert deliveries.source == Source(EARLY[1], 7, ((9, 9),))
    assert deliveries.received == 7
    assert not deliveries.is_due


class DatedServer(ScriptedServer):
    """Brokers of a prefix, whose stream was made some hours after noon."""

    def __init__(self, clock: Clock, prefix: str, hours: int) -> None:
        super().__init__(clock)
        self._prefix, self._hours = prefix, hours

    @property
    def life(self) -> StreamLife:
        made = NOON + timedelta(hours=self._hours)
        return StreamLife(f"{self._prefix}-commands {made}", super().life.last)

    def make_anew(self, hours: int) -> None:
        self._hours = hours
        self.wipe()


async def one_and_other(found: Shop) -> tuple[DatedServer, DatedServer]:
    """Two engines, the second of which has another prefix, and has taken everything over."""
    mine = found.server = DatedServer(found.clock, "seckill", 0)
    await found.start("engine", "engine")
    await found.start("gateway", "gateway")
    await found.serve("gateway")
    assert await found.ask("gateway", Withdraw("1", A, 5)) == Rejected("insufficient_balance")
    other = found.server = DatedServer(found.clock, "other", 1)
    await found.start("stranger", "engine")
    await found.start("strange gateway", "gateway")
    await found.until(lambda: len(found.owned("stranger")) == PARTITIONS)
    assert await found.ask("strange gateway", Deposit("2", A, 5)) == (Deposited("2", 5),)
    return mine, other


def cannot(found: Shop, name: str = "engine") -> tuple[int, ...]:
    owners = found.nodes[name].owners
    assert owners is not None
    return owners.cannot()


def epochs(found: Shop, name: str) -> list[int]:
    return [each.holding().epoch for each in found.owned(name).values()]


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [
        each.getMessage()
        for each in caplog.records
        if each.levelno == logging.ERROR and each.name == "engine.cluster.owners"
    ]


async def test_a_node_with_an_older_stream_takes_nothing_back_and_says_why(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with shop() as found:
        await one_and_other(found)
        await found.until(lambda: cannot(found) == (0, 1))
        # It had to take them to find out, and nobody tells their owner, who takes them back.
        await found.until(lambda: epochs(found, "stranger") == [4] * PARTITIONS)
        kept = dict(found.owned("stranger"))
        # It looks again now and then, without disturbing who has them.
        await found.go_on(5 * UNABLE_SECONDS)
        assert found.owned("stranger") == kept
        assert found.owned("engine") == {}
        first, second = sorted(said(caplog))
        assert first.startswith("partition 0 is not taken: it was last fed by the stream other-")
        assert second.startswith("partition 1 is not taken: ")
        # Nobody reads what this gateway would send.
        assert isinstance(await found.ask("gateway", Deposit("3", A, 5)), PartitionLost)
        await found.kill("stranger")
        await found.go_on(2 * DEAD_AFTER_SECONDS + 2 * UNABLE_SECONDS)
        assert found.owned("engine") == {}
        assert await found.events() == ["2"]


async def test_each_node_with_an_older_stream_goes_on_to_show_that_it_cannot() -> None:
    async with shop() as found:
        mine, _ = await one_and_other(found)
        found.server = mine
        await found.start("second", "engine")
        await found.until(lambda: cannot(found) == cannot(found, "second") == (0, 1))
        await found.go_on(HEARTBEAT_SECONDS)
        before = len(mine.sent)
        await found.go_on(3 * UNABLE_SECONDS)
        shown = [decode_heartbeat(data) for to, data in mine.sent[before:] if ".nodes." in to]
        engines = [each for each in shown if each is not None and each.role == "engine"]
        assert {each.cannot for each in engines} == {(0, 1)}


async def test_a_stream_that_was_removed_and_made_anew_feeds_its_partitions_again() -> None:
    async with shop() as found:
        mine, _ = await one_and_other(found)
        await found.kill("stranger")
        await found.until(lambda: cannot(found) == (0, 1))
        mine.make_anew(2)
        await found.until(lambda: len(found.owned("engine")) == PARTITIONS)
        await found.serve("gateway")
        assert await found.ask("gateway", Deposit("3", A, 5)) == (Deposited("3", 5),)
        assert cannot(found) == ()
        # What was refused over the stream that is gone is not decided again.
        assert await found.events() == ["2", "3"]


async def test_an_owner_whose_stream_becomes_an_older_one_ends(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with shop() as found:
        mine = found.server = DatedServer(found.clock, "seckill", 1)
        await found.start("engine", "engine")
        await found.until(lambda: len(found.owned("engine")) == PARTITIONS)
        await found.go_on(1)
        # As when its connection finds other brokers, or some that were restored from a backup.
        mine.make_anew(0)
        deadline_us = found.clock.wall_us() + 600_000_000
        data = found.wire.encode_commands("in", 1, [("account", deadline_us, [Deposit("1", A, 5)])])
        mine.store(0, data)
        await found.until(lambda: cannot(found) == (0, 1))
        assert found.owned("engine") == {}
        assert await found.events() == []
        assert len(said(caplog)) == PARTITIONS
