"""The three books agree in an honest run, and every way to disagree is found."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from engine.cqrs.command_side.statistics import Statistics
from engine.cqrs.event_store import Value
from engine.inventory.commands import Reserve
from engine.inventory.events import Reserved
from loadtest.reconcile import Deltas, deltas, reconcile
from loadtest.settings import WorkloadSettings
from loadtest.simulation.crowd import Tally
from loadtest.workload import generate

Rows = list[Mapping[str, Value]]


def tally_of(accepted: int) -> Tally:
    """Ten orders of one SKU, of which the first `accepted` were accepted, the others refused."""
    tally = Tally(generate(WorkloadSettings(buyers=10)))
    for number in range(accepted):
        order = Reserve(f"1-{number}", "SKU-1", f"buyer-{number}")
        tally.count(number, order, (Reserved(order.id, order.buyer, 1),))
    tally.rejected["sold_out"] = 10 - accepted
    return tally


def gained(accepted: int = 4, rejected: int = 6, repeated: int = 0) -> Deltas:
    return Deltas(accepted, rejected, repeated, {}, {}, {}, 0)


def rows(version: int, reserved: int) -> Rows:
    return [{"sku": "SKU-1", "version": version, "reserved": reserved}]


def failed(
    tally: Tally, counters: Deltas, before: Rows, after: Rows, *, complete: bool = True
) -> list[str]:
    checks = reconcile(tally, counters, before, after, complete=complete)
    return [check.detail for check in checks if not check.ok]


def test_books_that_agree_pass() -> None:
    assert failed(tally_of(4), gained(), rows(1, 0), rows(5, 4)) == []


def test_books_of_a_resumed_run_agree() -> None:
    # Three of the four were accepted by the run before; the engine counts them as repeats.
    assert failed(tally_of(4), gained(1, 6, 3), rows(4, 3), rows(5, 4)) == []


@pytest.mark.parametrize(
    ("counters", "after", "detail"),
    [
        (gained(rejected=7), rows(5, 4), "engine 11, buyers 10"),
        (gained(rejected=5), rows(5, 4), "engine 9, buyers 10"),
        (gained(), rows(4, 4), "engine 4, store 3"),
        (gained(), rows(6, 4), "engine 4, store 5"),
        (gained(), rows(5, 3), "SKU-1: buyers 4, store 3"),
        (gained(), rows(5, 5), "SKU-1: buyers 4, store 5"),
    ],
)
def test_a_difference_is_found_with_both_figures(
    counters: Deltas, after: Rows, detail: str
) -> None:
    (found,) = failed(tally_of(4), counters, rows(1, 0), after)
    assert detail in found


def test_an_answer_that_came_too_late_for_its_buyer_is_no_difference() -> None:
    tally = tally_of(4)
    tally.unknown_answers = tally.unknown = 1
    assert failed(tally, gained(accepted=5), rows(1, 0), rows(6, 5)) == []


def test_a_stopped_run_may_know_less_than_the_store_but_never_more() -> None:
    assert failed(tally_of(4), gained(), rows(10, 9), rows(14, 13), complete=False) == []
    assert failed(tally_of(4), gained(), rows(1, 0), rows(5, 3), complete=False)


def test_deltas_are_what_the_counters_gained() -> None:
    def counted(accepted: int, rejected: dict[str, int], sizes: dict[int, int]) -> Statistics:
        numbers = dict.fromkeys(Statistics.__struct_fields__, 0)
        changed = {
            "accepted": accepted,
            "rejected": rejected,
            "batch_sizes": sizes,
            "closed_by": {"idle": sum(sizes.values())},
            "rounds_waited": sizes,
            "transactions": sum(sizes.values()),
        }
        return Statistics(**{**numbers, **changed})  # type: ignore[arg-type]

    found = deltas(counted(1, {}, {1: 1}), counted(5, {"sold_out": 2}, {1: 1, 3: 2}))
    assert found == Deltas(4, 2, 0, {3: 2}, {"idle": 2}, {3: 2}, 2)
    assert found.answers == 6
