"""Whatever travels over the broker comes out as it went in, and damage is an error that says so."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import Any, Literal, get_args, get_origin

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.cluster.wire import Addressed, CommandMessage, OutcomeMessage, Run, Wire, WireError
from engine.cqrs.aggregate import Registry
from engine.cqrs.messages import Ask, Command, Event, Found, Outcome, Rejected
from engine.errors import (
    AggregateHalted,
    CommandFailed,
    CommandIdReused,
    DeadlineExceeded,
    EngineClosed,
    Fenced,
    InvalidCommand,
    OutcomeUnknown,
    PartitionLost,
    SeckillError,
    StoreUnavailable,
    WrongExpectedVersion,
)
from engine.inventory.sale import sale_registry
from engine.inventory.stock import STOCK, Standing
from tests.cqrs.bank_account import ACCOUNT, COUNTER, bank_registry

REGISTRY = sale_registry()
WIRE = Wire(REGISTRY)
FAR = 2**52
"""A deadline, in microseconds since 1970."""

COMMANDS = sorted(
    ((kind, name) for name, each in REGISTRY.types.items() for kind in each.commands),
    key=lambda each: each[0].__name__,
)
EVENTS = sorted(
    {event for each in REGISTRY.types.values() for event in each.events},
    key=lambda each: each.__name__,
)

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


def built(kind: type) -> st.SearchStrategy[Any]:
    """A message of a type, every field drawn, whatever its rules say."""
    fields = msgspec.structs.fields(kind)
    return st.builds(kind, **{each.name: values_of(each.type) for each in fields})


def values_of(kind: Any) -> st.SearchStrategy[Any]:
    if kind is str:
        return texts
    if kind is int:
        return st.integers(-(2**63), 2**63 - 1)
    if kind is bool:
        return st.booleans()
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return built(kind)
    if get_origin(kind) is Literal:
        return st.sampled_from(get_args(kind))
    item, dots = get_args(kind)
    assert dots is Ellipsis, f"no strategy for {kind}"
    return st.lists(values_of(item), max_size=3).map(tuple)


commands = st.one_of([st.tuples(st.just(name), built(kind)) for kind, name in COMMANDS])
questions = st.tuples(st.sampled_from(sorted(REGISTRY.types)), built(Ask))
events = st.lists(st.one_of([built(each) for each in EVENTS]), min_size=1, max_size=3).map(tuple)
refusals = st.builds(Rejected, texts, texts)
errors = st.one_of(
    [st.builds(each, texts) for each in (CommandIdReused, OutcomeUnknown)]
    + [
        st.builds(each, texts)
        for each in (
            CommandFailed,
            DeadlineExceeded,
            EngineClosed,
            InvalidCommand,
            PartitionLost,
            StoreUnavailable,
        )
    ]
    + [st.builds(AggregateHalted, st.tuples(texts, texts), texts)]
)


def parts_of(commands: list[tuple[str, Command]]) -> list[Addressed]:
    return [(name, FAR, [command]) for name, command in commands]


def sent_and_read(*outcomes: Any) -> list[Any]:
    return WIRE.decode_outcomes(WIRE.decode_reply(WIRE.encode_outcomes(7, outcomes)))


@settings(max_examples=50)
@given(st.lists(st.one_of(commands, questions), max_size=12))
def test_commands_come_back_in_their_order(sent: list[tuple[str, Command]]) -> None:
    message = WIRE.decode_message(WIRE.encode_commands("inbox", 7, parts_of(sent)))
    assert (message.inbox, message.number) == ("inbox", 7)
    assert {run.deadline_us for run in message.runs} <= {FAR}
    found = [(run.aggregate_type, each) for run in message.runs for each in WIRE.decode_run(run)]
    assert found == sent
    assert [type(each) for _, each in found] == [type(each) for _, each in sent]


@pytest.mark.parametrize(("kind", "name"), COMMANDS, ids=str)
def test_every_command_has_its_way(kind: type[Command], name: str) -> None:
    @settings(max_examples=15)
    @given(built(kind))
    def check(command: Command) -> None:
        message = WIRE.decode_message(WIRE.encode_commands("i", 1, [(name, FAR, [command])]))
        assert WIRE.decode_run(message.runs[0]) == [command]

    check()


@settings(max_examples=50)
@given(st.lists(st.one_of(events, refusals), max_size=5))
def test_events_and_refusals_come_back(sent: list[Outcome]) -> None:
    found = sent_and_read(*sent)
    assert found == sent
    assert [type(each) for each in found] == [type(each) for each in sent]


@pytest.mark.parametrize("kind", EVENTS, ids=lambda each: each.__name__)
def test_every_event_has_its_way(kind: type[Event]) -> None:
    @settings(max_examples=15)
    @given(built(kind))
    def check(event: Event) -> None:
        assert sent_and_read((event,)) == [(event,)]

    check()


@given(errors)
def test_errors_come_back_with_their_words(sent: SeckillError) -> None:
    (found,) = sent_and_read(sent)
    assert type(found) is type(sent)
    assert str(found) == str(sent)
    assert vars(found) == vars(sent)


def test_an_error_that_is_met_inside_only_does_not_say_that_nothing_happened() -> None:
    versions = WrongExpectedVersion(frozenset({("stock", "A")}))
    for each in (Fenced(3, 4), versions):
        (found,) = sent_and_read(each)
        assert type(found) is OutcomeUnknown


@given(
    st.one_of(st.none(), events, refusals),
    st.one_of(st.none(), built(Standing)),
)
def test_what_a_question_found_comes_back_with_its_standing(
    answer: Any, standing: Standing | None
) -> None:
    if answer is None or isinstance(answer, Rejected):
        standing = None
    sent = Found(answer, standing)
    (found,) = sent_and_read(sent)
    assert found == sent
    assert type(found.standing) is type(standing)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_message_or_an_error_that_says_so(data: bytes) -> None:
    for decode in (WIRE.decode_message, WIRE.decode_reply):
        with contextlib.suppress(WireError):
            decode(data)


@settings(max_examples=50)
@given(st.data(), commands, events)
def test_damaged_bytes_are_read_as_something_or_refused(
    data: st.DataObject, command: tuple[str, Command], answer: tuple[Event, ...]
) -> None:
    for encoded in (
        WIRE.encode_commands("i", 1, parts_of([command])),
        WIRE.encode_outcomes(1, [answer]),
    ):
        damaged = bytearray(encoded)
        for _ in range(data.draw(st.integers(1, 3))):
            damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
        with contextlib.suppress(WireError):
            for run in WIRE.decode_message(bytes(damaged)).runs:
                WIRE.decode_run(run)
        with contextlib.suppress(WireError):
            WIRE.decode_outcomes(WIRE.decode_reply(bytes(damaged)))


def packed(value: Any) -> msgspec.Raw:
    return msgspec.Raw(msgspec.msgpack.encode(value))


@pytest.mark.parametrize(
    "raw",
    [b"\x91\x83\xa2id\xa1\xff", b"\x91" * 100_000, b"\x91", b"\xc1", b""],
    ids=["no UTF-8", "too deep", "cut off", "no msgpack", "nothing"],
)
def test_damage_that_other_errors_tell_of_is_refused_all_the_same(raw: bytes) -> None:
    with pytest.raises(WireError):
        WIRE.decode_run(Run("Reserve", STOCK.name, FAR, msgspec.Raw(raw)))
    with pytest.raises(WireError):
        WIRE.decode_outcomes(OutcomeMessage(1, False, msgspec.Raw(raw)))
    with pytest.raises(WireError):
        WIRE.decode_message(b"\x94" + raw)
    with pytest.raises(WireError):
        WIRE.decode_reply(b"\x93" + raw)


def test_a_command_of_another_version_is_refused_by_name() -> None:
    with pytest.raises(WireError, match="the command Haggle is not known here"):
        WIRE.decode_run(Run("Haggle", STOCK.name, FAR, packed([])))
    with pytest.raises(WireError, match=r"no Reserve: .*missing required field `buyer`"):
        WIRE.decode_run(Run("Reserve", STOCK.name, FAR, packed([{"id": "1", "aggregate_id": "A"}])))


def test_an_outcome_of_another_version_is_refused_by_name() -> None:
    for outcome in (
        [9, "x"],
        [2, "Haggled", ["x"]],
        [2, "CommandFailed", []],
        [0, [{"type": "no"}]],
    ):
        with pytest.raises(WireError, match=r"not known here|no outcomes"):
            WIRE.decode_outcomes(OutcomeMessage(1, False, packed([outcome])))


def test_a_newer_version_may_add_fields_at_the_end() -> None:
    run = [
        "Reserve",
        "stock",
        FAR,
        [{"id": "1", "aggregate_id": "A", "buyer": "b", "mood": "fine"}],
        9,
    ]
    found = WIRE.decode_message(msgspec.msgpack.encode(["inbox", 1, [run], "", "more"]))
    assert [each.buyer for each in WIRE.decode_run(found.runs[0])] == ["b"]  # type: ignore[attr-defined]
    reply = WIRE.decode_reply(
        msgspec.msgpack.encode([1, False, [[1, "sold_out", "none left", 9]], "more"])
    )
    assert WIRE.decode_outcomes(reply) == [Rejected("sold_out", "none left")]


def test_commands_and_standings_that_could_not_be_told_apart_are_refused() -> None:
    class Deposit(Command, frozen=True):
        pass

    other = replace(ACCOUNT, name="other", commands={Deposit: ()})
    with pytest.raises(ValueError, match="two commands share a name"):
        Wire(Registry([ACCOUNT, other]))
    several = [
        replace(
            COUNTER if kind is int else ACCOUNT,
            standing=lambda _state, _id: None,
            standing_type=kind,
        )
        for kind in (int, str)
    ]
    with pytest.raises(ValueError, match="standings of more than one type"):
        Wire(Registry(several))


def test_any_registry_has_a_wire() -> None:
    wire = Wire(bank_registry())
    reply = wire.decode_reply(wire.encode_outcomes(1, [Rejected("insufficient_balance")]))
    assert wire.decode_outcomes(reply) == [Rejected("insufficient_balance")]
    assert isinstance(wire.decode_message(wire.encode_commands("i", 1, [])), CommandMessage)
