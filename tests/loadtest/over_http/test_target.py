"""The buyers' counts against the shop's."""

from __future__ import annotations

import msgspec
import pytest

from engine.inventory.audit import AuditReport, Units
from loadtest.over_http.target import ShopBooks, Target, reconcile_shop
from loadtest.shop_client import About, ShopClient, StoreAbout
from loadtest.swarm.books import Outcomes

REPORT = AuditReport(
    ok=True,
    oversold=0,
    lost=0,
    phantom=0,
    duplicated=0,
    over_limit=0,
    checked_events=0,
    checked_commits=0,
    streams=0,
    checks=(),
)

ABOUT = About("1", StoreAbout("sqlite", "3", "strict"), "none")


def verdicts(found: Outcomes, reservations: int, units: int, paid_units: int) -> list[bool]:
    shop = ShopBooks(REPORT, reservations, units, paid_units)
    return [each.ok for each in reconcile_shop(found, shop)]


def test_without_doubt_every_figure_must_be_equal() -> None:
    found = Outcomes(sent=9, accepted=5, units=12, paid=3, paid_units=7)
    assert verdicts(found, 5, 12, 7) == [True, True, True]
    assert verdicts(found, 4, 12, 7) == [False, True, True]
    assert verdicts(found, 6, 12, 7) == [False, True, True]
    assert verdicts(found, 5, 13, 7) == [True, False, True]
    assert verdicts(found, 5, 12, 6) == [True, True, False]


@pytest.mark.parametrize(
    ("shop", "ok"), [((4, 12, 7), False), ((5, 12, 7), True), ((7, 16, 9), True), ((8, 17, 10), False)]
)  # fmt: skip
def test_whose_answer_is_in_doubt_may_have_been_sold_to_or_not(
    shop: tuple[int, int, int], ok: bool
) -> None:
    found = Outcomes(
        accepted=5, units=12, paid_units=7, unknown=2, unknown_units=4, pay_unknown_units=2
    )
    assert all(verdicts(found, *shop)) is ok


def test_what_the_shop_gained_is_counted_and_not_what_was_there() -> None:
    before = msgspec.structs.replace(
        REPORT, reservations=10, units=Units(added=50, final=3, paid=4, held=5, left=38)
    )
    after = msgspec.structs.replace(
        REPORT, reservations=17, units=Units(added=50, final=3, paid=9, held=2, given_back=6, left=36)
    )  # fmt: skip
    target = Target(ShopClient("http://127.0.0.1:1", None, ""), ABOUT, before)
    found = target.books(after)
    assert (found.reservations, found.units, found.paid_units) == (7, 8, 5)
    assert Target(target.client, ABOUT, None).books(before).units == 12


def test_the_figures_of_both_sides_are_named() -> None:
    first, *_ = reconcile_shop(Outcomes(accepted=1_000, unknown=2), ShopBooks(REPORT, 999, 0, 0))
    assert first.detail == "buyers 1,000 and 2 in doubt, shop 999"
    assert first.checked == 999
