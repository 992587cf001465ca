"""Refusals by reason reach the read model `sales`: each once, and nothing else changes."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest

from engine.clock import SystemClock
from engine.config import Settings, load_settings
from engine.cqrs.command_side.refusal_counts import RefusalCounts
from engine.cqrs.messages import Command, Event, Outcome, Rejected
from engine.engine import Engine
from engine.errors import (
    AggregateHalted,
    DeadlineExceeded,
    EngineClosed,
    InvalidCommand,
    OutcomeUnknown,
    Overloaded,
    PartitionLost,
    SchemaMismatch,
    StoreLocked,
    StoreUnavailable,
)
from engine.inventory.audit import audit
from engine.inventory.commands import (
    CloseSale,
    CountRefusals,
    PauseSale,
    Reserve,
    ReserveLine,
)
from engine.inventory.events import (
    RefusalsCounted,
    Reserved,
    SaleClosed,
    SaleOpened,
    SalePaused,
)
from engine.inventory.refusals import COUNTED_COMMANDS, COUNTED_REASONS, RefusalRecorder
from engine.inventory.sales_table import SALES, SALES_TABLE
from engine.inventory.stock import STOCK
from engine.queries import SalesRow
from engine.runtime import initialise_store, open_engine, open_queries
from engine.testing.given_when_then import given
from engine.testing.virtual_clock import VirtualClock, settle
from tests.inventory.proving import findings, prove, red
from tests.inventory.sales import Books

SKU = "PHONE"
OPENED = SaleOpened("c0", 1, 1)


# -- the rule and the audit


@pytest.mark.parametrize(
    "before", [(), (SalePaused("c8"),), (SaleClosed("c9"),)], ids=["open", "paused", "closed"]
)
def test_a_count_is_noted_in_every_phase_and_changes_nothing(before: tuple[Event, ...]) -> None:
    scenario = given(STOCK, OPENED, Reserved("c1", "ann", 1), *before)
    state = msgspec.structs.asdict(scenario.state)
    scenario.when(CountRefusals("c2", SKU, 5, 4, 3, 2)).then(RefusalsCounted("c2", 5, 4, 3, 2))
    scenario.then_state(**state)


def test_a_sku_that_was_never_on_sale_gets_no_stream() -> None:
    given(STOCK).when(CountRefusals("c1", SKU, 5)).then("unknown_sku")


@pytest.mark.parametrize("counts", [(0, 0, 0, 0), (-1, 2, 0, 0), (10**13, 0, 0, 0)])
def test_counts_of_nothing_or_too_much_are_malformed(counts: tuple[int, ...]) -> None:
    with pytest.raises(InvalidCommand):
        CountRefusals("c1", SKU, *counts).check()


def test_the_audit_knows_the_event_and_where_it_may_stand() -> None:
    books = Books()
    books.write(SKU, OPENED, RefusalsCounted("c1", sold_out=5), SaleClosed("c2"))
    books.write(SKU, RefusalsCounted("c3", closed=1))
    assert red(prove(books)) == set()
    books.write(SKU, RefusalsCounted("c3", closed=1))
    report = prove(books)
    assert red(report) == {"once"}
    early = Books()
    early.write(SKU, OPENED)
    early.write("NEW", RefusalsCounted("c1", closed=1), SaleOpened("c2", 1, 0))
    assert "refused while the sale was new" in findings(prove(early))


# -- the recorder


class Answers:
    """Executes lists of commands, each with the next answer of a script; then all is well."""

    def __init__(self, *script: Outcome | Exception) -> None:
        self.script = list(script)
        self.sent: list[list[CountRefusals]] = []

    async def __call__(self, commands: Sequence[Command]) -> list[Outcome]:
        assert all(isinstance(each, CountRefusals) for each in commands)
        self.sent.append([each for each in commands if isinstance(each, CountRefusals)])
        outcomes: list[Outcome] = []
        for each in commands:
            answer = self.script.pop(0) if self.script else (RefusalsCounted(each.id),)
            if isinstance(answer, Overloaded | EngineClosed | StoreLocked):
                raise answer
            outcomes.append(answer)  # type: ignore[arg-type]
        return outcomes


def refuse(counts: RefusalCounts, sku: str, reason: str = "sold_out") -> None:
    counts.add((STOCK.name, sku), {"c": (Reserve("c", sku, "ann"), Rejected(reason))})


def recorder(
    answers: Answers, at_once: int = 100, own: Sequence[str] = ()
) -> tuple[RefusalCounts, RefusalRecorder]:
    counts = RefusalCounts(COUNTED_COMMANDS, COUNTED_REASONS, 100)
    return counts, RefusalRecorder(counts, answers, 1.0, VirtualClock(), at_once, own.__contains__)


@pytest.mark.parametrize(
    "doubt",
    [
        OutcomeUnknown("x"),
        DeadlineExceeded("late"),
        StoreUnavailable("gone"),
        Overloaded(9, 9, 0.1),
    ],
    ids=lambda each: type(each).__name__,
)
async def test_what_is_in_doubt_is_sent_again_with_its_id_and_newer_counts_wait(
    doubt: Exception,
) -> None:
    answers = Answers(doubt)
    counts, recording = recorder(answers)
    refuse(counts, SKU)
    assert not await recording.record()
    refuse(counts, SKU)
    assert await recording.record()
    assert await recording.record()
    first, again, newer = (each for (each,) in answers.sent)
    assert first == again
    assert (again.sold_out, newer.sold_out) == (1, 1)
    assert newer.id != again.id
    assert await recording.record()
    assert len(answers.sent) == 3


async def test_a_definite_answer_is_the_end_of_a_count_whatever_it_is() -> None:
    answers = Answers(Rejected("unknown_sku"), AggregateHalted((STOCK.name, "B"), "broken"))
    counts, recording = recorder(answers)
    refuse(counts, "A")
    refuse(counts, "B")
    assert await recording.record()
    assert await recording.record()
    assert len(answers.sent) == 1


async def test_many_skus_go_in_lists_that_fit_the_queue() -> None:
    answers = Answers()
    counts, recording = recorder(answers, at_once=2)
    for n in range(5):
        refuse(counts, f"SKU-{n}")
    assert await recording.record()
    assert [len(each) for each in answers.sent] == [2, 2, 1]


async def test_a_partition_that_is_lost_keeps_no_other_from_being_recorded() -> None:
    answers = Answers(PartitionLost("another owner"))
    counts, recording = recorder(answers, at_once=1)
    refuse(counts, "LOST")
    refuse(counts, SKU)
    assert await recording.record()
    assert [each.aggregate_id for (each,) in answers.sent] == ["LOST", SKU]
    refuse(counts, SKU)
    await recording.close()
    assert len(answers.sent) == 3


async def test_what_is_not_reached_while_it_is_owned_here_is_recorded_once_it_is() -> None:
    answers = Answers(*[PartitionLost("nobody owns it now")] * 2)
    counts, recording = recorder(answers, own=[SKU])
    refuse(counts, SKU)
    refuse(counts, "LOST")
    assert not await recording.record()
    refuse(counts, SKU)
    assert await recording.record()
    assert await recording.record()
    assert [[each.aggregate_id for each in sent] for sent in answers.sent] == [
        [SKU, "LOST"],
        [SKU],
        [SKU],
    ]
    assert answers.sent[1][0] == answers.sent[0][0]


async def test_nothing_ends_it_while_the_engine_is_open() -> None:
    answers = Answers(StoreLocked("whatever it is"))
    counts, recording = recorder(answers)
    refuse(counts, SKU)
    clock = recording._clock
    assert isinstance(clock, VirtualClock)
    running = asyncio.create_task(recording.run())
    for _ in range(3):
        await settle()
        clock.advance(1)
    await settle()
    assert not running.done()
    assert answers.sent[0] == answers.sent[1]
    running.cancel()


async def test_it_ends_when_the_engine_closes() -> None:
    counts, recording = recorder(Answers(EngineClosed()))
    refuse(counts, SKU)
    clock = recording._clock
    assert isinstance(clock, VirtualClock)
    await clock.run(recording.run())
    refuse(counts, SKU)
    await recording.close()


async def test_closing_writes_what_waits_and_what_came_since() -> None:
    answers = Answers(OutcomeUnknown("x"), OutcomeUnknown("x"))
    counts, recording = recorder(answers)
    refuse(counts, SKU)
    assert not await recording.record()
    refuse(counts, SKU, "paused")
    await recording.close()
    assert [each[0].sold_out for each in answers.sent] == [1, 1, 1, 0]
    assert answers.sent[-1][0].paused == 1


# -- a whole engine


@pytest.fixture(params=["sqlite", "mysql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:{tmp_path / 'sale.db'}"
    return str(request.getfixturevalue("mariadb_url"))


def settings_for(url: str, **more: object) -> Settings:
    named = {f"query_side.{name}": value for name, value in more.items()}
    return load_settings(None, {"store.url": url, **named}, {})


async def refuse_orders(engine: Engine) -> None:
    """Sold out 3 times, over the limit twice, paused and closed once, one of a bogus SKU."""
    await engine.open_sale(SKU, stock=2, limit_per_buyer=1, hold_seconds=60)
    await engine.reserve(SKU, buyer="ann")
    for n in range(2):
        await engine.reserve(SKU, buyer="ann", command_id=f"over-{n}")
    await engine.reserve(SKU, buyer="bob")
    await engine.reserve_many([Reserve(f"out-{n}", SKU, f"b{n}") for n in range(2)])
    await engine.execute(ReserveLine("out-2", SKU, "eve", order_id="o-1"))
    # A repeated request is the same refusal.
    await engine.reserve(SKU, buyer="b0", command_id="out-0")
    await engine.reserve("BOGUS", buyer="ann")
    await engine.execute(PauseSale("p-1", SKU))
    await engine.execute(PauseSale("p-2", SKU))
    await engine.reserve(SKU, buyer="late")
    await engine.execute(CloseSale("cl-1", SKU))
    await engine.execute(CloseSale("cl-2", SKU))
    await engine.reserve(SKU, buyer="later")


def refused(rows: Sequence[SalesRow]) -> tuple[int, ...]:
    columns = [
        (r.refused_sold_out, r.refused_over_limit, r.refused_paused, r.refused_closed) for r in rows
    ]
    return tuple(map(sum, zip(*columns, strict=True)))


@pytest.mark.parametrize("mode", ["async", "inline"])
async def test_refusals_are_found_by_reason_after_closing_and_after_an_interval(
    url: str, mode: str
) -> None:
    settings = settings_for(url, sales=mode, refusals_every_seconds=3_600)
    await initialise_store(settings)
    async with open_engine(settings) as engine:
        await refuse_orders(engine)
    async with open_engine(settings) as engine:
        await engine.queries.caught_up()
        rows = await engine.queries.sales_of(SKU)
        assert refused(rows) == (3, 2, 1, 1)
        assert sum(row.sold for row in rows) == 2
        assert {each.aggregate_id for each in await engine.reader.read_streams()} == {SKU}
        report = await audit(engine.reader)
        assert report.ok, report.checks


class ImpatientClock(SystemClock):
    """An interval is over at once."""

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(0)


async def test_refusals_are_written_while_the_engine_runs() -> None:
    async with open_engine(settings_for("memory:"), clock=ImpatientClock()) as engine:
        await refuse_orders(engine)
        while refused(await engine.queries.sales_of(SKU)) != (3, 2, 1, 1):  # noqa: ASYNC110
            await asyncio.sleep(0)


@pytest.mark.parametrize(
    "off", [{"refusals_every_seconds": 0}, {"sales": "off"}], ids=["no interval", "no read model"]
)
async def test_nothing_is_counted_that_nobody_asked_for(
    tmp_path: Path, off: dict[str, object]
) -> None:
    settings = settings_for(f"sqlite:{tmp_path / 'sale.db'}", **off)
    async with open_engine(settings) as engine:
        await refuse_orders(engine)
    async with open_engine(settings) as engine:
        events = [
            each.events for each in await engine.reader.read_stream((STOCK.name, SKU), 0, 100)
        ]
        assert b"refusals-counted" not in b"".join(events)


@pytest.mark.parametrize("mode", ["async", "inline"])
async def test_an_older_read_model_says_how_to_build_it_anew_and_that_works(
    url: str, mode: str
) -> None:
    settings = settings_for(url, sales=mode, refusals_every_seconds=3_600)
    await initialise_store(settings)
    async with open_engine(settings) as engine:
        await refuse_orders(engine)
    async with open_queries(settings) as queries:
        views = queries._place("sales")
        old = msgspec.structs.replace(SALES_TABLE, numbers=SALES_TABLE.numbers[:-4])
        await views.promote("sales", await views.draft("sales", [old], settings.store.partitions))
    with pytest.raises(SchemaMismatch, match="seckill project rebuild sales"):
        async with open_engine(settings):
            pass
    async with open_queries(settings) as queries:
        await queries.rebuild(SALES.name)
    async with open_engine(settings) as engine:
        await engine.queries.caught_up()
        assert refused(await engine.queries.sales_of(SKU)) == (3, 2, 1, 1)
