"""A batch becomes ONE guarded change of the SKU's row, and the row stays the fold of the events."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given as forall
from hypothesis import strategies as st

from engine.cqrs.event_store import RowChange
from engine.cqrs.messages import Command, Commit, Event
from engine.errors import ProjectionDiverged
from engine.inventory.events import (
    Reserved,
    Restocked,
    SaleClosed,
    SaleOpened,
    SalePaused,
    SaleResumed,
    Withdrawn,
)
from engine.inventory.stock import SECOND_US
from engine.inventory.stock_table import STOCK_TABLE, stock_changes
from tests.inventory.sales import Row, apply_change, run_sale, sales


def changes(*events: Event, first_version: int = 10) -> tuple[RowChange, ...]:
    return stock_changes(Commit("stock", "PHONE", first_version, events))


def change(*events: Event, first_version: int = 10) -> RowChange:
    """The change, and that it is the only one."""
    (only,) = changes(*events, first_version=first_version)
    return only


def test_the_orders_of_a_batch_are_one_subtraction() -> None:
    assert change(Reserved("1", "a", 2), Reserved("2", "b", 3), Reserved("3", "c", 1)) == RowChange(
        "stock",
        "PHONE",
        add={"available": -6, "reserved": 6},
        put={"version": 12},
        expect={"version": 9},
    )


def test_restocking_and_withdrawing_join_the_same_sum() -> None:
    mixed = change(
        Restocked("1", 10), Reserved("2", "a", 4), Withdrawn("3", 5), Reserved("4", "b", 1)
    )
    assert mixed.add == {"reserved": 5}
    assert mixed.put == {"version": 13}


def test_a_sale_that_opens_and_sells_in_one_batch_is_one_insert() -> None:
    opened = change(
        SaleOpened("1", 10, 2),
        Reserved("2", "a", 2),
        Restocked("3", 3),
        Withdrawn("4", 1),
        SalePaused("5"),
        first_version=1,
    )
    assert opened == RowChange(
        "stock",
        "PHONE",
        insert=True,
        put={
            "phase": "paused",
            "available": 10,
            "reserved": 2,
            "paid": 0,
            "limit_per_buyer": 2,
            "hold_seconds": 0,
            "version": 5,
        },
    )


@pytest.mark.parametrize(
    ("events", "phase"),
    [
        ((SalePaused("1"),), "paused"),
        ((SalePaused("1"), SaleResumed("2")), "open"),
        ((SalePaused("1"), SaleClosed("2")), "closed"),
    ],
)
def test_the_last_phase_of_a_batch_is_put(events: tuple[Event, ...], phase: str) -> None:
    last = change(*events)
    assert last.put == {"version": 9 + len(events), "phase": phase}
    assert last.expect == {"version": 9}


def test_a_batch_that_changes_no_phase_leaves_it_alone() -> None:
    assert "phase" not in change(Restocked("1", 1)).put


class Odd(Event, frozen=True, gc=False, tag="odd.1"):
    pass


def test_an_event_without_a_rule_diverges_and_names_the_stream() -> None:
    with pytest.raises(ProjectionDiverged, match="stock 'PHONE': no rule for Odd") as raised:
        changes(Reserved("1", "a", 1), Odd("2"))
    assert raised.value.stream == ("stock", "PHONE")


@forall(sales(), st.data())
def test_any_split_into_batches_leads_to_the_same_row(
    asked: list[Command], data: st.DataObject
) -> None:
    state, events, _ = run_sale(asked)
    cuts = data.draw(st.sets(st.integers(1, max(1, len(events) - 1))))
    bounds = sorted({0, len(events), *(cut for cut in cuts if cut < len(events))})
    row: Row | None = None
    for start, stop in pairwise(bounds):
        row = apply_change(row, change(*events[start:stop], first_version=start + 1))
        assert set(row) == {STOCK_TABLE.key, *STOCK_TABLE.numbers, *STOCK_TABLE.texts}
    if row is None:
        assert not events
        return
    assert row == {
        "sku": "PHONE",
        "available": state.available,
        "reserved": state.reserved,
        "paid": state.paid,
        "limit_per_buyer": state.limit_per_buyer,
        "hold_seconds": state.hold_us // SECOND_US,
        "version": len(events),
        "phase": state.phase,
    }
