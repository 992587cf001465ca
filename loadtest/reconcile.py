"""Three books that must agree: the buyers' answers, the engine's counters, the store's rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

import msgspec

from engine.cqrs.command_side.batch import CloseReason
from engine.cqrs.command_side.statistics import Statistics
from engine.cqrs.event_store import Value
from loadtest.simulation.crowd import Tally

K = TypeVar("K")


class Check(msgspec.Struct, frozen=True):
    """One comparison: of how many `unit`, and with which figures on both sides."""

    name: str
    unit: str
    ok: bool
    checked: int
    detail: str


class Deltas(msgspec.Struct, frozen=True):
    """What the engine's counters gained between two snapshots."""

    accepted: int
    rejected: int
    repeated: int
    batch_sizes: dict[int, int]
    closed_by: dict[CloseReason, int]
    rounds_waited: dict[int, int]
    transactions: int

    @property
    def answers(self) -> int:
        return self.accepted + self.rejected + self.repeated


def deltas(before: Statistics, after: Statistics) -> Deltas:
    """Counters only grow, so what is missing in `before` was zero."""
    return Deltas(
        accepted=after.accepted - before.accepted,
        rejected=sum(after.rejected.values()) - sum(before.rejected.values()),
        repeated=after.repeated - before.repeated,
        batch_sizes=_gained(before.batch_sizes, after.batch_sizes),
        closed_by=_gained(before.closed_by, after.closed_by),
        rounds_waited=_gained(before.rounds_waited, after.rounds_waited),
        transactions=after.transactions - before.transactions,
    )


def _gained(before: Mapping[K, int], after: Mapping[K, int]) -> dict[K, int]:
    return {key: more for key, times in after.items() if (more := times - before.get(key, 0))}


def reconcile(
    tally: Tally,
    gained: Deltas,
    rows_before: Sequence[Mapping[str, Value]],
    rows_after: Sequence[Mapping[str, Value]],
    *,
    complete: bool,
) -> list[Check]:
    """Compare the books. `rows_*` are the `stock` table just before and after the orders.

    `complete` is false when the run was stopped: what an earlier run of the same sale sold may
    then not have been asked for again, so the store may hold more than these buyers know of.
    """
    definite = tally.decided + tally.contradicted
    # A batch that became durable after its buyers had given up waiting is counted by the engine.
    surplus = gained.answers - definite
    answers = Check(
        "every answer of the engine reached its buyer",
        "answers",
        0 <= surplus <= tally.unknown_answers,
        definite,
        f"engine {gained.answers:,}, buyers {definite:,}, in doubt {tally.unknown_answers:,}",
    )
    added = _versions(rows_after) - _versions(rows_before)
    events = Check(
        "every accepted order added one event to the store",
        "orders",
        added == gained.accepted,
        gained.accepted,
        f"engine {gained.accepted:,}, store {added:,}",
    )
    reserved = {str(row["sku"]): int(row["reserved"]) for row in rows_after}
    exact = complete and not tally.unknown and not tally.failed
    wrong = [
        f"{sku}: buyers {sold:,}, store {reserved.get(sku, 0):,}"
        for sku, sold in tally.sold.items()
        if (sold != reserved.get(sku, 0) if exact else sold > reserved.get(sku, 0))
    ]
    stored = sum(reserved.get(sku, 0) for sku in tally.sold)
    units = Check(
        "the buyers hold what the store says is reserved",
        "units",
        not wrong,
        stored,
        "; ".join(wrong[:5]) or f"buyers {sum(tally.sold.values()):,}, store {stored:,}",
    )
    return [answers, events, units]


def _versions(rows: Sequence[Mapping[str, Value]]) -> int:
    return sum(int(row["version"]) for row in rows)
