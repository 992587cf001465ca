"""The read models `orders` and `sales`, folded a second time from the events for the audit.

Nothing here is shared with `orders_table.py` or `sales_table.py`. Rows and checkpoints are looked at
as they were at one moment before the events are read. The events up to the checkpoint of each
partition are folded here, so that a read model may lag, or be fed meanwhile. What waits behind a
dead letter is left out with its whole SKU. Memory grows with the rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final, TypeAlias

from engine.cqrs.event_store import PartitionPlace, StoredCommit, Value
from engine.cqrs.query_side.read_model import LiveModel, ReadModelSnapshot
from engine.inventory.audit_report import AuditCheck
from engine.inventory.audit_sale_events import (
    Added,
    AnySaleEvent,
    Extended,
    GivenBack,
    Opened,
    Paid,
    PaidTooLate,
    Refused,
    Removed,
    Sold,
    SoldLine,
)

SECOND_US: Final = 1_000_000
PAGE_ROWS: Final = 2_000
NAMES_MAX: Final = 5
"""SKUs that a note names; all are counted."""

Row: TypeAlias = dict[str, Value]
Rows: TypeAlias = dict[tuple[Value, Value], Row]


def fold_orders(rows: Rows, sku: str, at_us: int, events: Sequence[AnySaleEvent]) -> None:
    """What a commit makes of the rows of `orders`, which are keyed by SKU and reservation."""
    for event in events:
        match event:
            case Sold(command_id=name, buyer=buyer, quantity=quantity, held_until_us=until_us):
                rows[sku, name] = {
                    "buyer": buyer,
                    "state": "held" if until_us else "final",
                    "order_id": event.order_id if isinstance(event, SoldLine) else "",
                    "quantity": quantity,
                    "held_until_us": until_us,
                    "reserved_at_us": at_us,
                }
            case Paid(reservation_id=name) | GivenBack(reservation_id=name):
                if row := rows.get((sku, name)):
                    row["state"] = "paid" if isinstance(event, Paid) else "released"
            case Extended(reservation_id=name, held_until_us=until_us):
                if row := rows.get((sku, name)):
                    row["held_until_us"] = until_us


FIGURES: Final = (
    *("orders", "sold", "paid", "given_back", "paid_too_late", "added", "withdrawn"),
    *("refused_sold_out", "refused_over_limit", "refused_paused", "refused_closed"),
)


def fold_sales(rows: Rows, sku: str, at_us: int, events: Sequence[AnySaleEvent]) -> None:
    """What a commit adds to the row of its second in `sales`; a second of nothing has no row."""
    for event in events:
        for name, number in _figures(event):
            if number:
                row = rows.setdefault((sku, at_us // SECOND_US), dict.fromkeys(FIGURES, 0))
                row[name] = int(row[name]) + number


def _figures(event: AnySaleEvent) -> tuple[tuple[str, int], ...]:
    match event:
        case Sold(quantity=quantity):
            return (("orders", 1), ("sold", quantity))
        case Paid(quantity=quantity):
            return (("paid", quantity),)
        case GivenBack(quantity=quantity):
            return (("given_back", quantity),)
        case PaidTooLate():
            return (("paid_too_late", 1),)
        case Opened(stock=quantity) | Added(quantity=quantity):
            return (("added", quantity),)
        case Refused():
            return (
                ("refused_sold_out", event.sold_out),
                ("refused_over_limit", event.over_limit),
                ("refused_paused", event.paused),
                ("refused_closed", event.closed),
            )
        case Removed(quantity=quantity):
            return (("withdrawn", quantity),)
    return ()


Fold: TypeAlias = Callable[[Rows, str, int, Sequence[AnySaleEvent]], None]

MODELS: Final[Mapping[str, tuple[tuple[str, str], Fold]]] = {
    "orders": (("sku", "reservation_id"), fold_orders),
    "sales": (("sku", "second"), fold_sales),
}
"""Of each read model, whose one table has its name: the key and the fold."""


class _Model:
    """One read model in one place, with the rows it should have."""

    def __init__(
        self,
        name: str,
        snapshot: ReadModelSnapshot,
        live: LiveModel,
        check: AuditCheck,
        away: frozenset[int],
    ) -> None:
        """`away` are the partitions whose rows are kept in another place."""
        self.name = name
        self.live = live
        self.check = check
        self.due: Rows = {}
        self.left_out = {each.aggregate_id for each in live.letters}
        self.read = dict.fromkeys(live.reached, 0)
        self.behind = 0
        self._snapshot = snapshot
        self._away = away
        self._key, self._fold = MODELS[name]

    def fold(self, commit: StoredCommit, events: Sequence[AnySaleEvent | None] | None) -> None:
        """Take in a commit of a SKU; None stands for what could not be read."""
        sku = commit.aggregate_id
        if sku in self.left_out or commit.position > self.live.reached.get(commit.partition, 0):
            return
        readable = [each for each in events or () if each is not None]
        if events is None or len(readable) < len(events):
            # What is wrong with it was said; no row of this SKU can be told right from wrong.
            self.left_out.add(sku)
            return
        self._fold(self.due, sku, commit.committed_at_us, readable)

    def pass_by(self, commit: StoredCommit) -> None:
        """Note how far the events go, of whatever type they are."""
        number, position = commit.partition, commit.position
        self.read[number] = max(self.read.get(number, 0), position)
        if number not in self._away:
            self.behind += position > self.live.reached.get(number, 0)

    async def compare(self) -> list[str]:
        """Compare all rows page by page; return what should be known besides."""
        for number, position in sorted(self.live.reached.items()):
            if position > self.read[number]:
                self.check.fail(
                    f"{self.name} has taken in position {position:,} of partition {number} "
                    f"and the events end at {self.read[number]:,}"
                )
        table = next((each for each in self.live.tables if each.name == self.name), None)
        if table is None or table.key != self._key:
            return [f"{self._place} was made by another version of the program: not compared"]
        after: tuple[Value, ...] = ()
        page: list[Row] | None = []
        while not after or page:
            page = await self._snapshot.page(self.live, table, after, PAGE_ROWS)
            if page is None:
                return [
                    f"{self._place}: a rebuild ended meanwhile; audit again to compare all of it"
                ]
            for row in page:
                self._compare_row(row)
            if not page:
                break
            after = tuple(page[-1][name] for name in table.key)
        for sku, rest in self.due:
            if sku not in self.left_out:
                self.check.checked += 1
                self.check.fail(f"{self.name} {sku!r} {rest!r}: the row is missing")
        return list(self._notes())

    def _compare_row(self, row: Row) -> None:
        key = (row[self._key[0]], row[self._key[1]])
        due = self.due.pop(key, None)
        if key[0] in self.left_out:
            return
        self.check.checked += 1
        where = f"{self.name} {key[0]!r} {key[1]!r}"
        if due is None:
            self.check.fail(f"{where}: no event made this row")
            return
        wrong = [
            f"{column} is {row.get(column)!r} and should be {value!r}"
            for column, value in due.items()
            if row.get(column) != value
        ]
        if wrong:
            self.check.fail(f"{where}: {', '.join(wrong)}")

    def _notes(self) -> Iterator[str]:
        if self.behind:
            commits = "commit" if self.behind == 1 else "commits"
            yield f"{self._place} is {self.behind:,} {commits} behind: compared up to there"
        if self.left_out:
            names = ", ".join(sorted(self.left_out)[:NAMES_MAX])
            more = ", ..." if len(self.left_out) > NAMES_MAX else ""
            yield (
                f"{self._place} without {len(self.left_out):,} SKUs that have dead letters or "
                f"unreadable events: {names}{more}"
            )

    @property
    def _place(self) -> str:
        return f"read model {self.name} in {self._snapshot.location}"


class ReadModelChecks:
    """Every read model that is there, in every place; one check for each name."""

    def __init__(self) -> None:
        self.checks: list[AuditCheck] = []
        self._models: list[_Model] = []

    async def look(
        self, snapshots: Sequence[ReadModelSnapshot], places: Sequence[PartitionPlace]
    ) -> None:
        """Find what is there and how far it is; `places` are where the partitions live.

        Raises StoreUnavailable.
        """
        # A store of one place has no name for it, and may keep read models in a file beside it.
        homes = {each.partition: each.location for each in places if each.database}
        for name in MODELS:
            check = AuditCheck(f"the read model {name} is the fold of its events", "rows")
            for snapshot in snapshots:
                if (live := await snapshot.live(name)) is not None:
                    away = frozenset(
                        number for number, home in homes.items() if home != snapshot.location
                    )
                    self._models.append(_Model(name, snapshot, live, check, away))
                    if check not in self.checks:
                        self.checks.append(check)

    def pass_by(self, commit: StoredCommit) -> None:
        for each in self._models:
            each.pass_by(commit)

    def fold(self, commit: StoredCommit, events: Sequence[AnySaleEvent | None] | None) -> None:
        for each in self._models:
            each.fold(commit, events)

    async def compare(self) -> list[str]:
        """Compare everything; return notes. Raises StoreUnavailable."""
        return [note for each in self._models for note in await each.compare()]
