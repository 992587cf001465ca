"""Reserved, then paid or given back: once, late if need be, early never."""

from __future__ import annotations

import pytest

from engine.cqrs.messages import Command, Rejected
from engine.errors import InvalidCommand
from engine.inventory.commands import (
    HOLD_SECONDS_MAX,
    CloseSale,
    Confirm,
    ExtendHold,
    OpenSale,
    PauseSale,
    Release,
    Reserve,
)
from engine.inventory.events import (
    Confirmed,
    HoldExpired,
    HoldExtended,
    Released,
    Reserved,
    SaleOpened,
)
from engine.inventory.stock import SECOND_US, STOCK, Hold, Stock
from engine.testing.given_when_then import Scenario, given

SKU = "PHONE"
MINUTE_US = 60 * SECOND_US
OPENED = SaleOpened("c0", 10, 2, 60)
HELD = Reserved("c1", "alice", 2, MINUTE_US)


def held() -> Scenario[Stock]:
    """Ten units, two of them held for alice, a minute from time 0."""
    return given(STOCK, OPENED, HELD)


def test_a_reservation_says_how_long_it_is_held() -> None:
    given(STOCK, OPENED).when(Reserve("c1", SKU, "alice", 2), at_us=5).then(
        Reserved("c1", "alice", 2, MINUTE_US + 5)
    ).then_state(available=8, reserved=2, held={"c1": Hold("alice", 2, MINUTE_US + 5)})


def test_a_sale_without_holds_knows_no_reservations() -> None:
    sale = given(STOCK, SaleOpened("c0", 10, 0)).when(
        Reserve("c1", SKU, "alice"),
        Confirm("c2", SKU, "c1"),
        Release("c3", SKU, "c1"),
        ExtendHold("c4", SKU, "c1"),
    )
    sale.then(Reserved("c1", "alice", 1), "no_holds", "no_holds", "no_holds").then_state(held={})


def test_a_payment_makes_the_units_the_buyers() -> None:
    held().when(Confirm("c2", SKU, "c1"), at_us=1).then(Confirmed("c2", "c1", 2)).then_state(
        available=8, reserved=0, paid=2, held={}, bought={"alice": 2}
    )


def test_what_is_given_back_is_sold_again_at_once_also_to_the_same_buyer() -> None:
    held().when(
        Reserve("c2", SKU, "alice"), Release("c3", SKU, "c1"), Reserve("c4", SKU, "alice", 2)
    ).then(
        "over_limit", Released("c3", "c1", 2, expired=False), Reserved("c4", "alice", 2, MINUTE_US)
    ).then_state(available=8, reserved=2)


def test_a_hold_runs_out_at_its_time_and_never_before() -> None:
    due = Release("c2", SKU, "c1", if_due=True)
    held().when(due, at_us=MINUTE_US - 1).then("not_due").then_state(reserved=2)
    held().when(due, at_us=MINUTE_US).then(Released("c2", "c1", 2, expired=True))


def test_a_late_payment_is_taken_while_the_units_are_still_held() -> None:
    held().when(Confirm("c2", SKU, "c1"), at_us=9 * MINUTE_US).then(Confirmed("c2", "c1", 2))


def test_a_payment_after_the_release_is_recorded_for_a_refund_every_time() -> None:
    released = given(STOCK, OPENED, HELD, Released("c2", "c1", 2, expired=True))
    released.when(Confirm("c3", SKU, "c1"), Confirm("c4", SKU, "c1")).then(
        HoldExpired("c3", "c1"), HoldExpired("c4", "c1")
    ).then_state(available=10, reserved=0, paid=0)


def test_a_hold_is_extended_once_from_now_on() -> None:
    extended = held().when(ExtendHold("c2", SKU, "c1"), at_us=7)
    extended.when(ExtendHold("c3", SKU, "c1"), at_us=8)
    extended.when(Release("c4", SKU, "c1", if_due=True), at_us=MINUTE_US + 6)
    extended.when(Release("c5", SKU, "c1", if_due=True), at_us=MINUTE_US + 7)
    extended.then(
        HoldExtended("c2", "c1", MINUTE_US + 7),
        "already_extended",
        "not_due",
        Released("c5", "c1", 2, expired=True),
    )


ENDS: dict[str, Command] = {
    "confirm": Confirm("c9", SKU, "c1"),
    "release": Release("c9", SKU, "c1"),
    "expire": Release("c9", SKU, "c1", if_due=True),
    "extend": ExtendHold("c9", SKU, "c1"),
}


@pytest.mark.parametrize("name", ENDS)
def test_what_was_paid_is_over(name: str) -> None:
    paid = given(STOCK, OPENED, HELD, Confirmed("c2", "c1", 2))
    paid.when(ENDS[name], at_us=9 * MINUTE_US).then("already_paid").then_state(paid=2)


@pytest.mark.parametrize("name", ["release", "expire", "extend"])
def test_what_was_released_is_over(name: str) -> None:
    released = given(STOCK, OPENED, HELD, Released("c2", "c1", 2, expired=False))
    released.when(ENDS[name], at_us=9 * MINUTE_US).then("already_released")


@pytest.mark.parametrize("name", ENDS)
def test_nobody_ends_what_never_was(name: str) -> None:
    given(STOCK, OPENED).when(ENDS[name]).then("unknown_reservation")
    given(STOCK).when(ENDS[name]).then("unknown_sku")


@pytest.mark.parametrize("stop", [PauseSale("c2", SKU), CloseSale("c2", SKU)])
def test_who_has_reserved_pays_or_gives_back_also_when_nothing_more_is_sold(stop: Command) -> None:
    held().when(stop, Confirm("c3", SKU, "c1")).then_state(paid=2)
    held().when(stop, Release("c3", SKU, "c1")).then_state(available=10)
    held().when(stop, ExtendHold("c3", SKU, "c1")).then_state(
        held={"c1": Hold("alice", 2, MINUTE_US, extended=True)}
    )


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (OpenSale("c1", SKU, 1, 0, -1), "hold seconds must be from 0 to 2,592,000, got -1"),
        (OpenSale("c1", SKU, 1, 0, HOLD_SECONDS_MAX + 1), "hold seconds must be from 0"),
        (Confirm("c1", SKU, ""), "reservation id must have 1 to 64 characters"),
        (ExtendHold("c1", SKU, "x" * 65), "reservation id must have 1 to 64 characters"),
        (Release("c1", SKU, "c1", if_due=1), "if due must be true or false, got 1"),  # type: ignore[arg-type]
    ],
)
def test_what_is_malformed_is_refused_at_the_door(command: Command, words: str) -> None:
    with pytest.raises(InvalidCommand, match=words):
        command.check()


def test_refusals_are_values() -> None:
    (answer,) = held().when(Confirm("c9", SKU, "c8")).answers
    assert isinstance(answer, Rejected)


def test_an_extension_never_takes_time_away() -> None:
    """Another machine's clock may be behind the one that the reservation was decided by."""
    held().when(ExtendHold("c2", SKU, "c1"), at_us=-MINUTE_US // 2).then(
        HoldExtended("c2", "c1", MINUTE_US)
    )
