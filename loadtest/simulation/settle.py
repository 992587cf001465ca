"""The end of a sale with holds: wait until every hold has ended, then compare the books."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from engine.clock import Clock
from engine.cqrs.event_store import Value
from engine.engine import Engine
from engine.inventory.checkout import CHECKOUT
from loadtest.reconcile import Check
from loadtest.simulation.crowd import Crowd, Tally
from loadtest.workload import Workload

LOOK_SECONDS: Final = 0.05
SETTLE_SECONDS_MAX: Final = 60.0
"""After the last hold's time; far more than giving back takes, so that a hang fails in words."""


async def settle(engine: Engine, workload: Workload, crowd: Crowd, clock: Clock) -> None:
    """Return when nothing of this sale is held any more and everything has seen that.

    Also when the crowd was stopped, and after `SETTLE_SECONDS_MAX`: then the books tell.
    """
    give_up_at = clock.monotonic() + workload.hold_seconds + SETTLE_SECONDS_MAX
    while not crowd.stopped and clock.monotonic() < give_up_at:
        # Before the stock: what waits may reserve, and then wait no more.
        is_waiting = any(
            each.is_waiting for each in await engine.queries.dead_letters(CHECKOUT.name)
        )
        rows = await engine.reader.read_rows("stock")
        if not is_waiting and not any(int(each["reserved"]) for each in _ours(rows, workload)):
            break
        await clock.sleep(LOOK_SECONDS)
    # A manager that caught up may have sent commands, whose events are to be seen as well.
    seen: list[int] = []
    while not crowd.stopped and (newest := await _positions(engine)) != seen:
        seen = newest
        await engine.queries.caught_up()


async def reconcile_payments(
    engine: Engine, workload: Workload, tally: Tally, *, complete: bool
) -> list[Check]:
    """Compare what the buyers know of their payments with the store.

    `complete` is false when the run was stopped: then holds are open, and an earlier run may have
    been told of payments that this one did not ask for again.
    """
    rows = _ours(await engine.reader.read_rows("stock"), workload)
    stored = {str(row["sku"]): int(row["paid"]) for row in rows}
    # An order that was paid just now has lines that are held until checkout confirms them.
    most = {str(row["sku"]): int(row["paid"]) + int(row["reserved"]) for row in rows}
    units = tally.payments.units
    exact = complete and not tally.unknown and not tally.failed
    wrong = [
        f"{sku}: buyers {units.get(sku, 0):,}, store {paid:,}"
        for sku, paid in stored.items()
        if (units.get(sku, 0) != paid if exact else units.get(sku, 0) > most[sku])
    ]
    paid = Check(
        "the buyers paid for what the store says is paid",
        "units",
        not wrong,
        sum(stored.values()),
        "; ".join(wrong[:5]),
    )
    if not complete:
        return [paid]
    open_holds = [f"{row['sku']}: {row['reserved']:,} held" for row in rows if row["reserved"]]
    ended = Check(
        "every hold was paid or given back in the end",
        "SKUs",
        not open_holds,
        len(rows),
        "; ".join(open_holds[:5]),
    )
    gone = [
        f"{row['sku']}: {row['available']:,} left and {row['paid']:,} paid of {workload.stock:,}"
        for row in rows
        if int(row["available"]) + int(row["reserved"]) + int(row["paid"]) != workload.stock
    ]
    whole = Check(
        "every unit is paid for or for sale", "SKUs", not gone, len(rows), "; ".join(gone[:5])
    )
    letters = [each for name in ("orders", CHECKOUT.name) for each in await _letters(engine, name)]
    taken_in = Check(
        "every event reached the read model and the checkout",
        "commits",
        not letters,
        sum(await _positions(engine)),
        "; ".join(letters[:5]),
    )
    return [paid, ended, whole, taken_in]


async def _letters(engine: Engine, name: str) -> list[str]:
    return [
        f"{name}: {each.aggregate_type} {each.aggregate_id}: {each.reason or 'waits'}"
        for each in await engine.queries.dead_letters(name)
    ]


async def _positions(engine: Engine) -> list[int]:
    return [await engine.reader.read_position(n) for n in range(engine.reader.partitions)]


def _ours(rows: Sequence[Mapping[str, Value]], workload: Workload) -> list[Mapping[str, Value]]:
    skus = set(workload.skus)
    return [row for row in rows if row["sku"] in skus]
