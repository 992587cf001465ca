"""The queue of one partition in a gateway: merged, in order, told in time, and nothing left over."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from itertools import count
from typing import Any

import pytest

from engine.cluster.lane import (
    AGAIN_SECONDS,
    HEADER_BYTES,
    IN_FLIGHT_MAX,
    PUBLISH_SECONDS_MAX,
    Lane,
)
from engine.cluster.wire import Wire
from engine.cqrs.command_side.mailbox import Request
from engine.cqrs.command_side.statistics import Counters
from engine.cqrs.messages import Command, Outcome, Rejected
from engine.errors import (
    BrokerUnavailable,
    DeadlineExceeded,
    EngineClosed,
    InvalidCommand,
    OutcomeUnknown,
    Overloaded,
    PartitionLost,
)
from engine.testing.scripted_broker import ScriptedServer
from engine.testing.virtual_clock import VirtualClock, settle
from tests.cqrs.bank_account import ACCOUNT, Deposit, bank_registry

WIRE = Wire(bank_registry())
DONE: Outcome = Rejected("done")


class Bench:
    """A lane whose replies a test gives by hand."""

    def __init__(self, commands_max: int = 3, delay_seconds: float = 0.0) -> None:
        self.clock = VirtualClock()
        self.server = ScriptedServer(self.clock)
        self.server.make()
        self.broker = self.server.connect()
        numbers: Iterator[int] = count(0, 1)
        self.told = Counters()
        self.lane = Lane(
            *(0, self.broker, WIRE, "inbox", commands_max, delay_seconds, numbers.__next__),
            *(self.clock, self.told),
        )

    def send(self, *ids: str, seconds: float = 10.0, amount: int = 1) -> asyncio.Future[Any]:
        future: asyncio.Future[list[Outcome]] = asyncio.get_running_loop().create_future()
        now = self.clock.monotonic()
        commands: list[Command] = [Deposit(each, "a", amount) for each in ids]
        request = Request(commands, future, now, now + seconds)
        self.lane.submit(ACCOUNT, ("account", "a"), request)
        return future

    def messages(self) -> list[list[str]]:
        """The ids of the commands in each stored message."""
        return [
            [command.id for run in message.runs for command in WIRE.decode_run(run)]
            for message in (WIRE.decode_message(each.payload) for each in self.server.stored)
        ]

    def reply_all(self) -> None:
        for number in list(self.lane.messages):
            self.lane.reply(number, [DONE] * (self.lane.commands_of(number) or 0))

    def assert_empty(self) -> None:
        assert self.lane.queue_depth == 0
        assert self.lane.messages == {}
        assert not self.lane._publishing
        assert not self.lane._queue.queue


async def test_what_comes_in_one_turn_is_one_message_up_to_its_size_and_in_order() -> None:
    bench = Bench(commands_max=3)
    sent = [bench.send(f"{n}") for n in range(7)]
    await settle()
    assert bench.messages() == [["0", "1", "2"], ["3", "4", "5"], ["6"]]
    assert bench.lane.queue_depth == 7
    bench.reply_all()
    assert [each.result() for each in sent] == [[DONE]] * 7
    bench.assert_empty()


async def test_company_is_waited_for_as_long_as_the_settings_say_or_until_it_is_full() -> None:
    bench = Bench(commands_max=3, delay_seconds=0.01)
    bench.send("0")
    bench.clock.advance(0.009)
    await settle()
    assert bench.messages() == []
    bench.send("1")
    bench.clock.advance(0.001)
    await settle()
    assert bench.messages() == [["0", "1"]]
    for n in range(2, 5):
        bench.send(f"{n}")
    await settle()
    assert bench.messages() == [["0", "1"], ["2", "3", "4"]]
    bench.reply_all()
    await bench.lane.close()


async def test_a_list_goes_over_several_messages_and_comes_back_as_one() -> None:
    bench = Bench(commands_max=3)
    sent = bench.send(*"abcdefg")
    await settle()
    assert bench.messages() == [["a", "b", "c"], ["d", "e", "f"], ["g"]]
    for number, ids in ((2, "g"), (0, "abc"), (1, "def")):
        assert not sent.done()
        bench.lane.reply(number, [Rejected(each) for each in ids])
    assert sent.result() == [Rejected(each) for each in "abcdefg"]
    bench.assert_empty()


async def test_few_messages_are_on_their_way_and_the_rest_is_merged_meanwhile() -> None:
    bench = Bench(commands_max=100)
    bench.server.acks_to_lose = 0
    for n in range(IN_FLIGHT_MAX):
        bench.send(f"first {n}")
        await asyncio.sleep(0)
    bench.broker.is_cut = True
    late = [bench.send(f"late {n}") for n in range(5)]
    await settle()
    bench.broker.is_cut = False
    bench.clock.advance(0.3)
    await settle()
    bench.clock.advance(0.3)
    await settle()
    assert bench.messages()[-1] == [f"late {n}" for n in range(5)]
    bench.reply_all()
    assert all(each.done() for each in late)
    bench.assert_empty()


async def test_a_lost_acknowledgement_has_the_message_sent_again_and_stored_once() -> None:
    bench = Bench()
    bench.server.acks_to_lose = 2
    sent = bench.send("0")
    for _ in range(3):
        await settle()
        bench.clock.advance(0.25)
    await settle()
    assert bench.messages() == [["0"]]
    assert bench.server.repeats == 2
    assert next(iter(bench.lane.messages.values())).sequence == 1
    bench.reply_all()
    assert sent.result() == [DONE]
    bench.assert_empty()


async def test_the_same_message_is_not_sent_so_late_that_it_could_be_stored_twice() -> None:
    bench = Bench()
    bench.server.acks_to_lose = 10**9
    sent = bench.send("0", seconds=600)
    for _ in range(int(PUBLISH_SECONDS_MAX / 0.2) + 2):
        await settle()
        bench.clock.advance(0.2)
    await settle()
    assert isinstance(sent.result()[0], OutcomeUnknown)
    assert bench.messages() == [["0"]]
    bench.assert_empty()


async def test_a_full_stream_refuses_who_comes_and_takes_the_next() -> None:
    bench = Bench()
    bench.server.is_full = True
    sent = bench.send("0", "1")
    await settle()
    assert [type(each) for each in sent.result()] == [Overloaded] * 2
    bench.assert_empty()
    bench.server.is_full = False
    later = bench.send("2")
    await settle()
    bench.reply_all()
    assert later.result() == [DONE]


async def test_a_stream_that_is_full_after_a_lost_acknowledgement_leaves_it_in_doubt() -> None:
    bench = Bench()
    bench.server.acks_to_lose = 1
    sent = bench.send("0", seconds=1)
    await settle()
    bench.server._ids.clear()
    bench.server.is_full = True
    for _ in range(8):
        bench.clock.advance(0.2)
        await settle()
    assert isinstance(sent.result()[0], OutcomeUnknown)
    bench.assert_empty()


async def test_a_deadline_in_the_queue_says_that_nothing_happened() -> None:
    bench = Bench(delay_seconds=5)
    sent = bench.send("0", "1", seconds=1)
    bench.clock.advance(1)
    assert isinstance(sent.result()[0], DeadlineExceeded)
    assert (bench.told.expired, bench.told.unknown) == (2, 0)
    bench.clock.advance(10)
    await settle()
    assert bench.messages() == []
    bench.assert_empty()


async def test_a_deadline_after_publishing_says_that_it_is_not_known() -> None:
    bench = Bench()
    short, long = bench.send("0", seconds=1), bench.send("1", seconds=2)
    await settle()
    bench.clock.advance(1)
    assert isinstance(short.result()[0], OutcomeUnknown)
    assert not long.done()
    assert bench.lane.queue_depth == 2
    # The reply comes late, for the one who still waits.
    bench.reply_all()
    assert long.result() == [DONE]
    assert (bench.told.expired, bench.told.unknown) == (0, 1)
    bench.assert_empty()


async def test_errors_are_counted_as_they_are_told_and_once() -> None:
    bench = Bench(commands_max=9)
    early = bench.send("0", seconds=1)
    late = bench.send("1", "2", "3", "4", seconds=5)
    await settle()
    bench.clock.advance(1)
    assert early.done()
    told: list[Outcome] = [
        DeadlineExceeded("late"),
        OutcomeUnknown(""),
        Overloaded(1, 1, 0.1),
        PartitionLost("gone"),
    ]
    bench.lane.reply(0, [DeadlineExceeded("late"), *told])
    assert late.done()
    found = bench.told
    assert (found.unknown, found.expired, found.overloaded, found.unserved) == (2, 1, 1, 1)


async def test_each_command_is_wanted_until_its_own_deadline_or_a_little_less() -> None:
    bench = Bench()
    bench.send("0", seconds=1)
    bench.send("1", seconds=7)
    await settle()
    message = WIRE.decode_message(bench.server.stored[0].payload)
    now_us = bench.clock.wall_us()
    first, second = (run.deadline_us - now_us for run in message.runs)
    assert 1_000_000 * 31 / 32 <= first <= 1_000_000
    assert 7_000_000 * 31 / 32 <= second <= 7_000_000
    bench.clock.advance(7)
    bench.assert_empty()
    await settle()


async def test_callers_who_leave_are_dropped_from_the_queue_and_from_what_is_under_way() -> None:
    bench = Bench(delay_seconds=1)
    gone, stays = bench.send("0"), bench.send("1")
    gone.cancel()
    bench.clock.advance(1)
    await settle()
    assert bench.messages() == [["1"]]
    stays.cancel()
    # Its reply is lost: nobody waits, and its room is given back at its deadline.
    bench.clock.advance(10)
    bench.assert_empty()


async def test_a_reply_for_a_number_that_nobody_knows_changes_nothing() -> None:
    bench = Bench()
    sent = bench.send("0")
    await settle()
    assert not bench.lane.reply(77, [DONE])
    assert bench.lane.reply(0, [DONE])
    assert not bench.lane.reply(0, [Rejected("twice")])
    assert sent.result() == [DONE]


async def test_what_is_sent_again_is_another_message_with_those_who_still_wait() -> None:
    bench = Bench()
    gone, stays = bench.send("0"), bench.send("1")
    await settle()
    gone.cancel()
    (first,) = bench.lane.messages.values()
    bench.lane.send_again(first)
    bench.lane.send_again(first)
    await settle()
    assert bench.messages() == [["0", "1"], ["1"]]
    assert bench.server.stored[0].message_id != bench.server.stored[1].message_id
    # The first reply was only late, and comes for nobody.
    assert not bench.lane.reply(first.number, [DONE, DONE])
    bench.reply_all()
    assert stays.result() == [DONE]
    bench.assert_empty()


async def test_a_message_that_would_be_too_large_is_sent_in_parts_in_the_same_order() -> None:
    bench = Bench(commands_max=100)
    bench.broker.payload_bytes_max = 1_024 + 300
    sent = [bench.send(f"{n:020}") for n in range(20)]
    await settle()
    parts = bench.messages()
    assert len(parts) > 2
    assert [each for part in parts for each in part] == [f"{n:020}" for n in range(20)]
    assert all(len(each.payload) <= 300 for each in bench.server.stored)
    bench.reply_all()
    assert all(each.result() == [DONE] for each in sent)
    bench.assert_empty()


async def test_a_list_that_needs_several_messages_keeps_its_order_when_the_first_does_not_arrive() -> (
    None
):
    bench = Bench(commands_max=3)
    publish = bench.broker.publish

    async def fail_once(*_: object) -> int:
        bench.broker.publish = publish  # type: ignore[method-assign]
        raise BrokerUnavailable("the test says so")

    bench.broker.publish = fail_once  # type: ignore[method-assign,assignment]
    sent = bench.send(*"abcdefg")
    await settle()
    assert bench.messages() == []
    bench.clock.advance(AGAIN_SECONDS)
    await settle()
    assert bench.messages() == [["a", "b", "c"], ["d", "e", "f"], ["g"]]
    bench.reply_all()
    assert sent.result() == [DONE] * 7
    bench.assert_empty()


async def test_a_message_that_fits_whole_is_not_split() -> None:
    bench = Bench(commands_max=100)
    sent = [bench.send(f"{n}") for n in range(20)]
    await settle()
    (whole,) = bench.server.stored
    bench.broker.payload_bytes_max = HEADER_BYTES + len(whole.payload) + 1
    (message,) = bench.lane.messages.values()
    bench.lane.send_again(message)
    await settle()
    assert bench.messages() == [[f"{n}" for n in range(20)]] * 2
    bench.reply_all()
    assert all(each.result() == [DONE] for each in sent)


async def test_a_command_that_no_message_can_hold_fails_alone() -> None:
    bench = Bench(commands_max=100)
    bench.broker.payload_bytes_max = 1_024 + 300
    good, large, strange, last = (
        *(bench.send("0"), bench.send("x" * 400), bench.send("1", amount=2**70)),
        bench.send("2"),
    )
    await settle()
    for each, what in ((large, "it has 4"), (strange, "OverflowError")):
        (error,) = each.result()
        assert isinstance(error, InvalidCommand)
        assert what in str(error)
    bench.reply_all()
    assert [good.result(), last.result()] == [[DONE], [DONE]]
    bench.assert_empty()


@pytest.mark.parametrize("is_cut", [True, False])
async def test_closing_answers_everybody_and_publishes_nothing_more(is_cut: bool) -> None:
    bench = Bench(commands_max=1)
    bench.broker.is_cut = is_cut
    sent = [bench.send(f"{n}") for n in range(40)]
    await asyncio.sleep(0)
    await bench.lane.close()
    await bench.lane.close()
    kinds = [type(each.result()[0]) for each in sent]
    assert kinds[0] is OutcomeUnknown
    assert kinds[-1] is EngineClosed
    before = bench.messages()
    await settle()
    assert bench.messages() == before
    bench.assert_empty()


async def test_nothing_is_left_over_after_a_long_day() -> None:
    bench = Bench(commands_max=5)
    for n in range(300):
        future = bench.send(f"{n}", seconds=1 + n % 3)
        if n % 7 == 0:
            bench.server.acks_to_lose = 1
        if n % 5 == 0:
            future.cancel()
        await settle()
        if n % 3:
            bench.reply_all()
        bench.clock.advance(0.3)
    bench.clock.advance(600)
    await settle()
    bench.assert_empty()
    assert bench.lane._deadline.at == float("inf")
