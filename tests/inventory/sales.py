"""Random sales, and the books they leave: commits and rows as a store would hold them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import google_crc32c
import msgspec
from hypothesis import strategies as st

from engine.cqrs.event_store import (
    PartitionPlace,
    RowChange,
    SnapshotPart,
    StoredCommit,
    StoredSnapshot,
    StoreInfo,
    StreamInfo,
    Value,
)
from engine.cqrs.messages import Answer, Command, Commit, Event, Rejected
from engine.errors import StreamKey
from engine.inventory.commands import (
    CloseSale,
    Confirm,
    ExtendHold,
    OpenSale,
    PauseSale,
    Release,
    Reserve,
    Restock,
    ResumeSale,
    Withdraw,
)
from engine.inventory.history import History, HistoryOrder
from engine.inventory.stock import SECOND_US, Stock, decide, evolve, initial
from engine.inventory.stock_table import stock_changes

Row = dict[str, Value]


def sales(*skus: str) -> st.SearchStrategy[list[Command]]:
    """Commands to one sale or several; all but a few begin with their OpenSale."""
    names = st.sampled_from(skus or ("PHONE",))
    opening = st.tuples(
        *(
            st.builds(OpenSale, st.just(""), st.just(sku), _few, _limits, _hold_seconds)
            for sku in skus or ("PHONE",)
        )
    )
    return st.tuples(st.sampled_from([1, 1, 1, 0]), opening, st.lists(_commands(names))).map(
        lambda drawn: _numbered([*(drawn[1] * drawn[0]), *drawn[2]])
    )


_few = st.integers(0, 12)
_limits = st.integers(0, 5)
_hold_seconds = st.sampled_from([0, 3])
_reservations = st.integers(1, 12).map(lambda number: f"c{number}")


def _commands(skus: st.SearchStrategy[str]) -> st.SearchStrategy[Command]:
    """Mostly orders, of few buyers and few units, so that the rules meet."""
    unnamed = st.just("")
    orders = st.builds(Reserve, unnamed, skus, st.sampled_from("abc"), st.integers(1, 4))
    return st.one_of(
        *[orders] * 4,
        *[
            st.builds(Confirm, unnamed, skus, _reservations),
            st.builds(Release, unnamed, skus, _reservations, st.booleans()),
            st.builds(ExtendHold, unnamed, skus, _reservations),
        ]
        * 2,
        st.builds(OpenSale, unnamed, skus, _few, _limits, _hold_seconds),
        st.builds(Restock, unnamed, skus, st.integers(1, 6)),
        st.builds(Withdraw, unnamed, skus, st.integers(1, 6)),
        st.builds(PauseSale, unnamed, skus),
        st.builds(ResumeSale, unnamed, skus),
        st.builds(CloseSale, unnamed, skus),
    )


def _numbered(asked: Sequence[Command]) -> list[Command]:
    return [
        msgspec.structs.replace(command, id=f"c{number}") for number, command in enumerate(asked, 1)
    ]


def time_of(command_id: str) -> int:
    """When a command of a random sale is decided: one comes every second."""
    number = command_id.removeprefix("c")
    return int(number) * SECOND_US if number.isdigit() else 0


def run_sale(
    asked: Sequence[Command], state: Stock | None = None
) -> tuple[Stock, list[Event], list[Answer]]:
    """Decide commands in order; return the state, the events and the answers."""
    state = initial() if state is None else state
    events: list[Event] = []
    answers: list[Answer] = []
    for command in asked:
        answer = decide(state, command, time_of(command.id))
        answers.append(answer)
        if not isinstance(answer, Rejected):
            for event in answer:
                state = evolve(state, event)
            events += answer
    return state, events, answers


def apply_change(row: Row | None, change: RowChange) -> Row:
    """Do what a store does with a guarded row change; a guard that fails is an AssertionError."""
    assert (row is None) == change.insert
    changed: Row = dict(row or {"sku": change.key})
    assert all(changed[column] == value for column, value in change.expect.items())
    changed.update(change.put)
    for column, number in change.add.items():
        value = changed[column]
        assert isinstance(value, int)
        changed[column] = value + number
        assert value + number >= 0
    return changed


class Books:
    """An EventReader over plain lists, which a test may falsify at will.

    `commits[partition]` and `rows[sku]` are what is stored. `on_read` is called before every read
    with the method's name, so that a test can act as a writer that goes on meanwhile.
    """

    def __init__(self, partitions: int = 1) -> None:
        self.commits: list[list[StoredCommit]] = [[] for _ in range(partitions)]
        self.rows: dict[str, Row] = {}
        self.versions: dict[StreamKey, int] = {}
        self.on_read: Callable[[str], None] = lambda _: None
        self.has_stock_table = True

    @property
    def partitions(self) -> int:
        return len(self.commits)

    @property
    def info(self) -> StoreInfo:
        return StoreInfo("books", "1", "none", "test")

    def write(self, sku: str, *events: Event, partition: int = 0, row: bool = True) -> None:
        """Append a commit as the engine would; with `row` the stock row follows."""
        first = self.versions.get(("stock", sku), 0) + 1
        at_us = max(time_of(event.command_id) for event in events)
        self.write_raw("stock", sku, msgspec.json.encode(events), len(events), partition, at_us)
        if row:
            for change in stock_changes(Commit("stock", sku, first, events)):
                self.rows[sku] = apply_change(self.rows.get(sku), change)

    def write_raw(
        self, kind: str, name: str, data: bytes, count: int, partition: int = 0, at_us: int = 0
    ) -> StoredCommit:
        """Append bytes as the next commit of `count` events, with the right checksum."""
        before = self.versions.get((kind, name), 0)
        self.versions[kind, name] = before + count
        stored = self.commits[partition]
        commit = StoredCommit(
            partition=partition,
            position=len(stored) + 1,
            aggregate_type=kind,
            aggregate_id=name,
            first_version=before + 1,
            last_version=before + count,
            events=data,
            checksum=google_crc32c.value(data),
            committed_at_us=at_us,
        )
        stored.append(commit)
        return commit

    def falsify(self, index: int, partition: int = 0, **fields: object) -> None:
        """Replace fields of a stored commit. New `events` get the right checksum by default."""
        if isinstance(data := fields.get("events"), bytes):
            fields = {"checksum": google_crc32c.value(data), **fields}
        stored = self.commits[partition]
        stored[index] = msgspec.structs.replace(stored[index], **fields)

    def renumber(self) -> None:
        """Make positions and versions gapless again, as a careful forger would."""
        versions: dict[StreamKey, int] = {}
        for stored in self.commits:
            for index, commit in enumerate(stored):
                count = len(msgspec.json.decode(commit.events))
                last = versions[commit.stream] = versions.get(commit.stream, 0) + count
                stored[index] = msgspec.structs.replace(
                    commit, position=index + 1, first_version=last - count + 1, last_version=last
                )

    async def read_partition(
        self, partition: int, after_position: int, limit: int
    ) -> list[StoredCommit]:
        self.on_read("read_partition")
        later = [each for each in self.commits[partition] if each.position > after_position]
        return later[:limit]

    async def read_position(self, partition: int) -> int:
        return len(self.commits[partition])

    async def read_stream(
        self, stream: StreamKey, after_version: int, limit: int
    ) -> list[StoredCommit]:
        self.on_read("read_stream")
        return [
            each
            for stored in self.commits
            for each in stored
            if each.stream == stream and each.first_version > after_version
        ][:limit]

    async def read_streams(self) -> list[StreamInfo]:
        self.on_read("read_streams")
        streams = sorted({each.stream for stored in self.commits for each in stored})
        return [
            StreamInfo(*stream, own[-1].partition, own[-1].last_version, len(own))
            for stream in streams
            if (
                own := [each for stored in self.commits for each in stored if each.stream == stream]
            )
        ]

    async def read_rows(self, table: str, partition: int | None = None) -> list[Row]:
        assert partition is None, "the audit reads all"
        self.on_read("read_rows")
        if not self.has_stock_table:
            raise ValueError(f"this store has no table {table!r}")
        return [dict(row) for _, row in sorted(self.rows.items())]

    async def read_row(self, table: str, key: str) -> Row | None:
        self.on_read("read_row")
        return self.rows.get(key)

    async def read_places(self) -> list[PartitionPlace]:
        return []

    async def load_snapshot(self, stream: StreamKey) -> StoredSnapshot | None:
        return None

    async def read_snapshot_parts(
        self, stream: StreamKey, from_number: int, limit: int
    ) -> list[SnapshotPart]:
        return []

    async def close(self) -> None:
        pass


def hold_sale(
    asked: Sequence[Command],
    cuts: Sequence[int] = (),
    partition_of: Callable[[str], int] = lambda _: 0,
    partitions: int = 1,
) -> tuple[Books, History]:
    """Run a whole sale honestly: batches end at `cuts`; every order is in the history."""
    books = Books(partitions)
    orders: dict[str, HistoryOrder] = {}
    states: dict[str, Stock] = {}
    bounds = sorted({0, *cuts, len(asked)})
    for start, stop in pairwise(bounds):
        batches: dict[str, list[Command]] = {}
        for command in asked[start:stop]:
            batches.setdefault(command.aggregate_id, []).append(command)
        for sku, batch in batches.items():
            states[sku], events, answers = run_sale(batch, states.get(sku))
            if events:
                books.write(sku, *events, partition=partition_of(sku))
            for command, answer in zip(batch, answers, strict=True):
                if isinstance(command, Reserve):
                    orders[command.id] = noted(command, answer)
    return books, History(orders)


def noted(order: Reserve, answer: Answer) -> HistoryOrder:
    """What a client's history holds of an order and its one answer."""
    if isinstance(answer, Rejected):
        told = HistoryOrder(order.aggregate_id, order.buyer, order.quantity, "rejected")
        told.reason = answer.reason
        return told
    return HistoryOrder(order.aggregate_id, order.buyer, order.quantity, "ok")
