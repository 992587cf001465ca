"""Commands and outcomes arrive as they were sent, in their order."""

from __future__ import annotations

import msgspec
import pytest

from engine.cluster.wire import Addressed, Wire, WireError
from engine.cluster_settings import ClusterSettings
from engine.cqrs.messages import Ask, Command, Found, Outcome, Rejected
from engine.errors import (
    AggregateHalted,
    CommandFailed,
    CommandIdReused,
    OutcomeUnknown,
    SeckillError,
)
from engine.inventory.commands import Confirm, Reserve
from engine.inventory.events import LineReserved, Reserved
from engine.inventory.sale import sale_registry

WIRE = Wire(sale_registry())


def order(number: int, sku: str = "HOT") -> Reserve:
    return Reserve(f"c-{number}", sku, f"buyer-{number}", 1)


ACCEPTED: list[Outcome] = [
    (Reserved("c-1", "ann", 1),),
    (LineReserved("c-2", "bob", 2, held_until_us=7, order_id="o-1"),),
]
REFUSED: list[Outcome] = [Rejected("sold_out"), Rejected("over_limit", "2 of 2")]
FAILED: list[Outcome] = [
    CommandFailed("it broke"),
    CommandIdReused("c-1"),
    OutcomeUnknown("c-2"),
    AggregateHalted(("stock", "HOT"), "broken"),
]


@pytest.mark.parametrize(
    "outcomes",
    [
        *([], ACCEPTED, REFUSED, [*ACCEPTED, *REFUSED, *ACCEPTED]),
        *(FAILED, [*FAILED, *ACCEPTED, *REFUSED]),
    ],
    ids=["none", "accepted", "refused", "both", "failed", "everything"],
)
def test_outcomes_arrive_as_they_were_sent(outcomes: list[Outcome]) -> None:
    reply = WIRE.decode_reply(WIRE.encode_outcomes(5, outcomes))
    assert reply.number == 5
    assert [plain_of(each) for each in WIRE.decode_outcomes(reply)] == [
        plain_of(each) for each in outcomes
    ]


def plain_of(outcome: Outcome) -> object:
    """Errors are equal only to themselves."""
    if isinstance(outcome, SeckillError):
        return type(outcome), str(outcome)
    return outcome


def test_an_answer_to_a_question_arrives_among_others() -> None:
    answer = (Reserved("c-1", "ann", 1),)
    found = [Found(answer), Found(Rejected("sold_out")), Found(None), *ACCEPTED]
    reply = WIRE.decode_reply(WIRE.encode_outcomes(5, found))
    assert WIRE.decode_outcomes(reply) == found


def test_commands_of_one_kind_are_one_run_whoever_sent_them() -> None:
    assert runs_of([("stock", 9, [order(1), order(2, "OTHER")]), ("stock", 9, (order(3),))]) == [
        ("Reserve", "stock", [order(1), order(2, "OTHER"), order(3)])
    ]


def test_commands_of_several_kinds_and_types_keep_their_order() -> None:
    confirm, question = Confirm("c-4", "HOT", "c-1"), Ask("c-9", "HOT")
    parts: list[Addressed] = [
        ("stock", 9, [order(1), confirm, order(2)]),
        ("stock", 9, [question]),
        ("order", 9, [question]),
    ]
    assert runs_of(parts) == [
        ("Reserve", "stock", [order(1)]),
        ("Confirm", "stock", [confirm]),
        ("Reserve", "stock", [order(2)]),
        ("Ask", "stock", [question]),
        ("Ask", "order", [question]),
    ]


def runs_of(parts: list[Addressed]) -> list[tuple[str, str, list[Command]]]:
    message = WIRE.decode_message(WIRE.encode_commands("inbox", 5, parts))
    assert (message.inbox, message.number) == ("inbox", 5)
    assert {each.deadline_us for each in message.runs} == {9}
    return [(each.kind, each.aggregate_type, WIRE.decode_run(each)) for each in message.runs]


@pytest.mark.parametrize("plain", [True, False])
def test_outcomes_that_cannot_be_read_are_told(plain: bool) -> None:
    data = msgspec.msgpack.encode([5, plain, [["a", "newer", "kind"]]])
    reply = WIRE.decode_reply(data)
    with pytest.raises(WireError, match="no outcomes"):
        WIRE.decode_outcomes(reply)


def test_a_reply_of_another_version_is_told() -> None:
    with pytest.raises(WireError, match="no message of outcomes"):
        WIRE.decode_reply(msgspec.msgpack.encode([5, []]))


@pytest.mark.parametrize("length", [1, 36, 64])
def test_a_reply_fits_where_commands_take_half_of_the_room(length: int) -> None:
    count, room = ClusterSettings().message_commands_max, 1_000_000
    ids = [f"{n:x}".rjust(length, "0") for n in range(count)]
    orders = [Reserve(each, "S", each, 1) for each in ids]
    message = WIRE.encode_commands("inbox", 5, [("stock", 9, orders)])
    kept: list[Outcome] = [(Reserved(each, each, 1, 1 << 50),) for each in ids]
    reply = WIRE.encode_outcomes(5, kept)
    assert len(reply) - len(message) <= room // 2, "a message of half the room has too long a reply"
