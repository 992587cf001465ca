"""Every rule of a SKU, as examples and as properties of random sales."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given as forall
from hypothesis import strategies as st

from engine.cqrs.messages import Command, Event, Rejected
from engine.errors import InvalidCommand
from engine.inventory.commands import (
    QUANTITY_MAX,
    STOCK_MAX,
    CloseSale,
    OpenSale,
    PauseSale,
    Reserve,
    Restock,
    ResumeSale,
    Withdraw,
)
from engine.inventory.events import (
    Released,
    Reserved,
    Restocked,
    SaleClosed,
    SaleOpened,
    SalePaused,
    SaleResumed,
    Withdrawn,
)
from engine.inventory.stock import STOCK, Stock, decide, evolve, initial
from engine.testing.given_when_then import Scenario, given
from tests.inventory.sales import run_sale, sales, time_of

SKU = "PHONE"
OPENED = SaleOpened("open", 5, 2)
UNLIMITED = SaleOpened("open", 5, 0)
PAUSED = SalePaused("pause")
CLOSED = SaleClosed("close")


def reserve(buyer: str, quantity: int = 1, *, number: int = 1) -> Reserve:
    return Reserve(f"{buyer}-{number}", SKU, buyer, quantity)


def sale(*events: Event) -> Scenario[Stock]:
    return given(STOCK, *events)


# -- opening


def test_a_new_sku_is_put_on_sale() -> None:
    sale().when(OpenSale("c1", SKU, 5, 2)).then(SaleOpened("c1", 5, 2)).then_state(
        phase="open", available=5, reserved=0, limit_per_buyer=2
    )


def test_a_sale_without_units_opens_sold_out() -> None:
    sale().when(OpenSale("c1", SKU, 0), reserve("alice")).then(SaleOpened("c1", 0, 0), "sold_out")


@pytest.mark.parametrize("later", [(), (PAUSED,), (CLOSED,), (PAUSED, CLOSED)])
def test_a_sku_is_opened_once(later: tuple[Event, ...]) -> None:
    sale(OPENED, *later).when(OpenSale("again", SKU, 9)).then("already_open")


@pytest.mark.parametrize(
    "command",
    [
        reserve("alice"),
        Restock("c1", SKU, 1),
        Withdraw("c1", SKU, 1),
        PauseSale("c1", SKU),
        ResumeSale("c1", SKU),
        CloseSale("c1", SKU),
    ],
    ids=lambda command: type(command).__name__,
)
def test_a_sku_that_was_never_opened_is_unknown(command: Command) -> None:
    sale().when(command).then("unknown_sku").then_state(phase="new", available=0)


# -- reserving


def test_a_buyer_gets_all_units_or_none() -> None:
    sale(UNLIMITED).when(reserve("alice", 6), reserve("bob", 5)).then(
        "sold_out", Reserved("bob-1", "bob", 5)
    ).then_state(available=0, reserved=5)


def test_the_last_unit_is_sold_and_the_next_buyer_is_told_sold_out() -> None:
    sale(SaleOpened("open", 1, 0)).when(reserve("alice"), reserve("bob")).then(
        Reserved("alice-1", "alice", 1), "sold_out"
    ).then_state(available=0, reserved=1)


def test_a_large_order_that_does_not_fit_leaves_room_for_a_small_one_behind_it() -> None:
    sale(UNLIMITED).when(reserve("alice", 4), reserve("bob", 3), reserve("carol", 1)).then(
        Reserved("alice-1", "alice", 4), "sold_out", Reserved("carol-1", "carol", 1)
    )


def test_the_limit_holds_over_several_orders_of_a_buyer_and_for_each_buyer_alone() -> None:
    sale(OPENED).when(
        reserve("alice", 1, number=1),
        reserve("alice", 2, number=2),
        reserve("alice", 1, number=3),
        reserve("alice", 1, number=4),
        reserve("bob", 2),
    ).then(
        Reserved("alice-1", "alice", 1),
        "over_limit",
        Reserved("alice-3", "alice", 1),
        "over_limit",
        Reserved("bob-1", "bob", 2),
    ).then_state(available=1, reserved=4)


def test_the_limit_counts_what_was_bought_before() -> None:
    sale(OPENED, Reserved("old", "alice", 2)).when(reserve("alice")).then("over_limit")


def test_without_a_limit_nobody_is_remembered() -> None:
    sale(UNLIMITED).when(reserve("alice", 3, number=1), reserve("alice", 2, number=2)).then(
        Reserved("alice-1", "alice", 3), Reserved("alice-2", "alice", 2)
    ).then_state(bought={})


def test_an_order_above_limit_and_stock_is_told_sold_out() -> None:
    sale(OPENED).when(reserve("alice", 6)).then("sold_out")


@pytest.mark.parametrize(
    ("events", "reason"),
    [((PAUSED,), "paused"), ((CLOSED,), "closed"), ((PAUSED, CLOSED), "closed")],
)
def test_nothing_is_sold_while_paused_or_closed(events: tuple[Event, ...], reason: str) -> None:
    sale(OPENED, *events).when(reserve("alice")).then(reason).then_state(available=5)


# -- changing the stock


def test_restocked_units_are_sold() -> None:
    sale(SaleOpened("open", 0, 0)).when(
        reserve("alice"), Restock("c1", SKU, 2), reserve("alice", 2, number=2)
    ).then("sold_out", Restocked("c1", 2), Reserved("alice-2", "alice", 2))


def test_a_sku_holds_no_more_than_the_ceiling_sold_units_included() -> None:
    sale(SaleOpened("open", STOCK_MAX - 1, 0), Reserved("r", "alice", 10)).when(
        Restock("c1", SKU, 2), Restock("c2", SKU, 1), Restock("c3", SKU, 1)
    ).then("stock_too_large", Restocked("c2", 1), "stock_too_large")


def test_only_unsold_units_are_withdrawn_all_or_none() -> None:
    sale(UNLIMITED, Reserved("r", "alice", 3)).when(
        Withdraw("c1", SKU, 3), Withdraw("c2", SKU, 2), Withdraw("c3", SKU, 1)
    ).then("not_enough_left", Withdrawn("c2", 2), "not_enough_left").then_state(
        available=0, reserved=3
    )


def test_stock_changes_while_paused() -> None:
    sale(OPENED, PAUSED).when(Restock("c1", SKU, 1), Withdraw("c2", SKU, 6)).then(
        Restocked("c1", 1), Withdrawn("c2", 6)
    ).then_state(phase="paused", available=0)


# -- pausing and closing


def test_a_paused_sale_goes_on_where_it_stopped() -> None:
    sale(OPENED).when(
        reserve("alice", 2),
        PauseSale("c1", SKU),
        reserve("alice", 1, number=2),
        ResumeSale("c2", SKU),
        reserve("alice", 1, number=3),
        reserve("bob"),
    ).then(
        Reserved("alice-1", "alice", 2),
        SalePaused("c1"),
        "paused",
        SaleResumed("c2"),
        "over_limit",
        Reserved("bob-1", "bob", 1),
    ).then_state(phase="open", available=2)


def test_a_sale_is_paused_once_and_resumed_only_when_paused() -> None:
    sale(OPENED).when(
        ResumeSale("c1", SKU), PauseSale("c2", SKU), PauseSale("c3", SKU), ResumeSale("c4", SKU)
    ).then("not_paused", SalePaused("c2"), "paused", SaleResumed("c4"))


@pytest.mark.parametrize("before", [(), (PAUSED,)])
def test_a_sale_is_closed_from_open_and_from_paused(before: tuple[Event, ...]) -> None:
    sale(OPENED, *before).when(CloseSale("c1", SKU)).then(SaleClosed("c1")).then_state(
        phase="closed"
    )


@pytest.mark.parametrize(
    "command",
    [
        Restock("c1", SKU, 1),
        Withdraw("c1", SKU, 1),
        PauseSale("c1", SKU),
        ResumeSale("c1", SKU),
        CloseSale("c1", SKU),
    ],
    ids=lambda command: type(command).__name__,
)
def test_nothing_changes_after_the_close(command: Command) -> None:
    sale(OPENED, CLOSED).when(command).then("closed").then_state(phase="closed", available=5)


# -- strangers


class Foreign(Command, frozen=True, gc=False):
    pass


class Odd(Event, frozen=True, gc=False, tag="odd.1"):
    pass


def test_a_command_or_event_without_a_rule_is_an_error() -> None:
    with pytest.raises(TypeError, match="no rule for Foreign"):
        decide(evolve(initial(), OPENED), Foreign("c1", SKU), 0)
    with pytest.raises(TypeError, match="cannot apply Odd"):
        evolve(initial(), Odd("c1"))


# -- what is checked at the door


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (Reserve("", SKU, "alice"), "command id must have 1 to 64 characters, got 0"),
        (Reserve("c", "", "alice"), "aggregate id must have 1 to 64 characters, got 0"),
        (Reserve("c", SKU, ""), "buyer must have 1 to 64 characters, got 0"),
        (Reserve("c", SKU, "b" * 10_240), "buyer must have 1 to 64 characters, got 10,240"),
        (Reserve("c", SKU, "a "), "buyer must not end with a space, got 'a '"),
        (Reserve("c", f"{SKU} ", "a"), "must not end with a space"),
        (Reserve("c ", SKU, "a"), "must not end with a space"),
        (OpenSale("c", f"{SKU} ", 1, 0), "must not end with a space"),
        (Reserve("c", SKU, "a\nb"), r"buyer must be printable text, got 'a\\nb'"),
        (Reserve("c", SKU, "\ud800"), r"buyer must be printable text, got '\\ud800'"),
        (Reserve("c", SKU, "alice", 0), "quantity must be from 1 to 1,000,000, got 0"),
        (Reserve("c", SKU, "alice", -1), "quantity must be from 1 to 1,000,000, got -1"),
        (Reserve("c", SKU, "alice", QUANTITY_MAX + 1), "quantity must be from 1 to 1,000,000"),
        (Reserve("c", SKU, "alice", True), "quantity must be a whole number, got True"),
        (OpenSale("c", SKU, -1), "stock must be from 0 to 1,000,000,000, got -1"),
        (OpenSale("c", SKU, STOCK_MAX + 1), "stock must be from 0 to 1,000,000,000"),
        (OpenSale("c", SKU, 1, -1), "limit per buyer must be from 0 to 1,000,000,000, got -1"),
        (Restock("c", SKU, 0), "quantity must be from 1 to 1,000,000,000, got 0"),
        (Withdraw("c", SKU, 0), "quantity must be from 1 to 1,000,000,000, got 0"),
        (PauseSale("", SKU), "command id must have 1 to 64 characters, got 0"),
    ],
)
def test_a_malformed_command_is_refused_with_what_is_allowed(
    command: Command, message: str
) -> None:
    with pytest.raises(InvalidCommand, match=message):
        command.check()


@pytest.mark.parametrize(
    "command",
    [
        Reserve("c" * 64, "s" * 64, "b" * 64, QUANTITY_MAX),
        Reserve("c", "Schuh größe 42", "买家", 1),
        OpenSale("c", SKU, STOCK_MAX, STOCK_MAX),
        OpenSale("c", SKU, 0, 0),
        Restock("c", SKU, STOCK_MAX),
        CloseSale("c", SKU),
    ],
)
def test_a_command_at_its_bounds_is_taken(command: Command) -> None:
    command.check()


@forall(
    fields=st.tuples(*[st.one_of(st.text(max_size=70), st.none(), st.integers())] * 3),
    quantity=st.one_of(st.integers(-2, QUANTITY_MAX + 2), st.booleans(), st.floats(), st.text()),
)
def test_the_quick_check_of_an_order_refuses_what_the_slow_one_does(
    fields: tuple[object, object, object], quantity: object
) -> None:
    """`Reserve.check` decides in one expression and must not take what the words would refuse."""
    order = Reserve(*fields, quantity)  # type: ignore[arg-type]
    good = (
        all(
            isinstance(text, str)
            and 0 < len(text) <= 64
            and text.isprintable()
            and not text.endswith(" ")
            for text in fields
        )
        and type(quantity) is int
        and 1 <= quantity <= QUANTITY_MAX
    )
    if good:
        order.check()
    else:
        with pytest.raises(InvalidCommand):
            order.check()


# -- properties of random sales


@forall(sales())
def test_units_are_conserved_and_never_below_zero(asked: list[Command]) -> None:
    state = initial()
    put_in = 0
    held: dict[str, int] = {}
    reserved: dict[str, Reserved] = {}
    for command in asked:
        answer = decide(state, command, time_of(command.id))
        if isinstance(answer, Rejected):
            continue
        for event in answer:
            state = evolve(state, event)
            match event:
                case SaleOpened(stock=units) | Restocked(quantity=units):
                    put_in += units
                case Withdrawn(quantity=units):
                    put_in -= units
                case Reserved(buyer=buyer, quantity=units):
                    held[buyer] = held.get(buyer, 0) + units
                    reserved[event.command_id] = event
                case Released(reservation_id=name, quantity=units):
                    held[reserved[name].buyer] -= units
                case _:
                    pass
        assert state.available >= 0
        assert state.available + state.reserved + state.paid == put_in
        assert state.reserved + state.paid == sum(held.values())
        assert not state.limit_per_buyer or max(held.values(), default=0) <= state.limit_per_buyer


@forall(sales())
def test_a_refused_order_would_have_broken_a_rule(asked: list[Command]) -> None:
    """No false "sold out": a refusal names what stood in the way at that moment."""
    state = initial()
    for command in asked:
        answer = decide(state, command, time_of(command.id))
        if isinstance(answer, Rejected):
            if isinstance(command, Reserve):
                held = state.bought.get(command.buyer, 0)
                assert {
                    "sold_out": command.quantity > state.available,
                    "over_limit": 0 < state.limit_per_buyer < held + command.quantity,
                    "unknown_sku": state.phase == "new",
                    "paused": state.phase == "paused",
                    "closed": state.phase == "closed",
                }[answer.reason]
            continue
        for event in answer:
            state = evolve(state, event)


@forall(sales())
def test_the_state_is_the_fold_of_the_events_alone(asked: list[Command]) -> None:
    state, events, _ = run_sale(asked)
    replayed = initial()
    for event in events:
        replayed = evolve(replayed, event)
    assert replayed == state


@forall(sales(), st.data())
def test_a_snapshot_anywhere_changes_nothing(asked: list[Command], data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, len(asked)))
    state, _, before = run_sale(asked[:cut])
    stored = msgspec.msgpack.decode(msgspec.msgpack.encode(state), type=Stock)
    resumed, _, after = run_sale(asked[cut:], stored)
    whole, _, answers = run_sale(asked)
    assert (resumed, before + after) == (whole, answers)


def test_two_skus_share_nothing() -> None:
    one, other = initial(), initial()
    evolve(one, OPENED)
    evolve(one, Reserved("r", "alice", 1))
    assert other == Stock()
    assert other.bought == {}
