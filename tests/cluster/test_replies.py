"""A reply arrives whole, however large it is, or not at all."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.cluster.replies import HEADER, MARK, UNFINISHED_MAX, Pieces, pieces_of
from engine.cluster.wire import WireError
from tests.cluster.shop import account_in, shop
from tests.cqrs.bank_account import Deposit, Deposited


@given(st.binary(max_size=300), st.integers(HEADER.size + 1, 100))
def test_a_reply_is_put_together_of_pieces_that_each_may_be_sent(
    payload: bytes, bytes_max: int
) -> None:
    reply = b"\x93" + payload
    pieces = list(pieces_of(reply, bytes_max))
    assert max(map(len, pieces)) <= bytes_max
    found = Pieces()
    *before, last = [found.add(each) for each in pieces]
    assert set(before) <= {None}
    assert last == reply
    assert not found._found


@given(st.data())
def test_pieces_of_several_owners_and_a_lost_one_do_not_mix(data: st.DataObject) -> None:
    replies = [bytes([0x90 + n]) * 200 for n in range(3)]
    waiting = [list(pieces_of(each, HEADER.size + 50)) for each in replies]
    lost = data.draw(st.integers(0, 3))
    del waiting[0][lost]
    found, told = Pieces(), []
    while any(waiting):
        owner = data.draw(st.sampled_from([each for each in waiting if each]))
        if (reply := found.add(owner.pop(0))) is not None:
            told.append(reply)
    assert sorted(told) == replies[1:]


def test_a_piece_that_comes_twice_does_not_stand_for_one_that_is_lost() -> None:
    first, second, third = pieces_of(bytes(range(90)), HEADER.size + 30)
    for some in ((first, first, third), (first, second, second), (second, third, first)):
        found = Pieces()
        assert [found.add(each) for each in some] == [None] * 3


def test_replies_that_are_never_finished_are_not_kept_for_ever() -> None:
    found = Pieces()
    for _ in range(3 * UNFINISHED_MAX):
        assert found.add(next(pieces_of(bytes(99), 60))) is None
    assert len(found._found) == UNFINISHED_MAX


@pytest.mark.parametrize("data", [MARK, MARK + bytes(HEADER.size - 1)])
def test_a_damaged_piece_is_refused(data: bytes) -> None:
    with pytest.raises(WireError, match=r"no piece of a reply: it has \d+ bytes"):
        Pieces().add(data)


async def test_a_reply_that_is_too_large_for_the_broker_is_told_at_the_first_time() -> None:
    async with shop() as found:
        await found.start("engine", "engine")
        await found.start("gateway", "gateway")
        await found.serve("gateway")
        found.broker("engine").payload_bytes_max = 10_000
        deposits = [Deposit(f"{n:060}", account_in(0), 5) for n in range(600)]
        stored = len(found.server.stored)
        outcomes = await found.run(found.gateway("gateway").bus.execute_many(deposits))
        assert outcomes == [(Deposited(each.id, 5),) for each in deposits]
        assert len(found.server.stored) == stored + 1
        assert all(
            len(payload) <= 10_000
            for subject, payload in found.server.sent
            if ".replies." in subject
        )
