"""Simulate a flash sale on a real engine and prove the result.

Opens the sales, lets the crowd order, compares the books, audits the events, writes run.json.
A run that was killed is simply run again: the sale, the orders and their ids come from the seed,
so what was answered before is answered the same, and what was not is done now.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, TypeAlias

import msgspec

from engine.clock import Clock, SystemClock
from engine.config import Settings
from engine.cqrs.command_side.statistics import Statistics
from engine.cqrs.event_store import StoreInfo
from engine.cqrs.messages import Rejected
from engine.engine import Engine
from engine.errors import CommandIdReused, ConfigError
from engine.event_loop import run_async
from engine.inventory.audit import AuditReport, audit
from engine.inventory.history import History, HistoryWriter, read_history
from engine.runtime import open_engine, open_read_models
from loadtest.machine import describe_machine, source_commit
from loadtest.places import check_directory, check_history, made_directory
from loadtest.reconcile import Check, Deltas, deltas, reconcile
from loadtest.results import (
    AuditResult,
    Orders,
    PaymentCounts,
    Run,
    Throughput,
    summarise_batches,
    write_run,
)
from loadtest.settings import check_limit, describe_settings
from loadtest.simulation.carts import Notebook, Till
from loadtest.simulation.crowd import Crowd, Tally
from loadtest.simulation.payers import Payers
from loadtest.simulation.settle import reconcile_payments, settle
from loadtest.stopping import after, stopping
from loadtest.workload import Workload

OPENED_AT_ONCE: Final = 256
"""Sales opened at a time, so that they share transactions."""

Watch: TypeAlias = Callable[[Tally, Workload], AbstractAsyncContextManager[None]]
"""Shows a sale while it runs: a block around it, given the running counts."""


def unwatched(_tally: Tally, _workload: Workload) -> AbstractAsyncContextManager[None]:
    """Show nothing."""
    return nullcontext()


class Plan(msgspec.Struct, frozen=True):
    """What to run and where to put it. `history` is the file every order is noted in.

    After `seconds_max` no more orders are sent; without it Ctrl-C ends the run in good order. Rates,
    latencies and batches leave out the first `warmup_seconds`; the books and the audit do not.
    """

    workload: Workload
    settings: Settings
    directory: Path
    concurrency: int
    history: Path | None = None
    seconds_max: float | None = None
    warmup_seconds: float = 0.0

    def check(self) -> None:
        """Raise ConfigError for what cannot be run; creates nothing."""
        check_limit("concurrency", self.concurrency)
        if self.workload.hold_seconds and not self.settings.query_side.managers:
            raise ConfigError(
                "--hold-seconds needs query_side.managers = true: nobody else gives back what is "
                "not paid in time"
            )
        check_directory(self.directory)
        if self.history is not None:
            check_history(self.history, self.directory, self.settings.store.url)


class Outcome(msgspec.Struct, frozen=True):
    """A run and its proof. `sold` and `paid` are units by SKU as the buyers know them.

    `resumed` counts units that were sold before it began.
    """

    run: Run
    audit: AuditReport
    checks: tuple[Check, ...]
    sold: dict[str, int]
    paid: dict[str, int]
    errors: tuple[str, ...]
    interrupted: bool
    resumed: int

    @property
    def exit_code(self) -> int:
        """0: proven, and every order has a definite answer. 130: so far, until Ctrl-C. Else 1."""
        orders = self.run.orders
        if not self.run.audit.ok or orders.failed:
            return 1
        if self.interrupted:
            return 130
        return 1 if orders.unknown else 0


class Books(msgspec.Struct, frozen=True):
    """What is known when the sale is over, before it is written down.

    `gained` is what the engine's counters gained in all, `counted` after the warm-up.
    """

    store: StoreInfo
    tally: Tally
    counted: Deltas
    gained: Deltas
    checks: tuple[Check, ...]
    audit: AuditReport
    interrupted: bool
    resumed: int


def simulate(plan: Plan, watch: Watch = unwatched, clock: Clock | None = None) -> Outcome:
    """Run a sale to its end, or until Ctrl-C, and return its result, audited.

    run.json is written unless the run was interrupted. Raises ConfigError when the store holds
    another sale, and what `open_engine` raises.
    """
    plan.check()
    with made_directory(plan.directory):
        outcome = run_sale(plan, watch, clock)
    if not outcome.interrupted:
        write_run(plan.directory, outcome.run)
    return outcome


def run_sale(plan: Plan, watch: Watch = unwatched, clock: Clock | None = None) -> Outcome:
    """`simulate` without the files."""
    started_at = datetime.now(UTC).isoformat(timespec="seconds")
    commit = source_commit()
    books = run_async(_hold_sale(plan, watch, clock or SystemClock()))
    run = _build_run(plan, started_at, commit, books)
    return Outcome(
        run=run,
        audit=books.audit,
        checks=books.checks,
        sold=books.tally.sold,
        paid=books.tally.payments.units,
        errors=tuple(books.tally.samples),
        interrupted=books.interrupted,
        resumed=books.resumed,
    )


async def _hold_sale(plan: Plan, watch: Watch, clock: Clock) -> Books:
    async with open_engine(plan.settings) as engine:
        await open_sales(engine, plan.workload)
        rows_before = await engine.reader.read_rows("stock")
        before = engine.statistics()
        crowd, warm = await _let_them_order(plan, engine, watch, clock)
        gained = deltas(before, engine.statistics())
        rows_after = await engine.reader.read_rows("stock")
        held = bool(plan.workload.hold_seconds)
        # With holds there is more to do than to send the orders, and managers send some as well.
        complete = crowd.tally.sent == plan.workload.rows and not (held and crowd.stopped)
        if held:
            tally = crowd.tally
            checks = await reconcile_payments(engine, plan.workload, tally, complete=complete)
        else:
            rows = (rows_before, rows_after)
            checks = reconcile(crowd.tally, gained, *rows, complete=complete)
        noted = await asyncio.to_thread(read_history, plan.history) if plan.history else None
        ours = set(plan.workload.skus)
        return Books(
            store=engine.info,
            tally=crowd.tally,
            counted=deltas(warm, engine.statistics()) if warm else gained,
            gained=gained,
            checks=tuple(checks),
            audit=await _audit(plan, engine, noted),
            interrupted=crowd.stopped and not complete,
            resumed=sum(
                int(row["reserved"]) + int(row["paid"]) for row in rows_before if row["sku"] in ours
            ),
        )


async def _audit(plan: Plan, engine: Engine, noted: History | None) -> AuditReport:
    url = plan.settings.store.url
    if url == "memory:":
        return await audit(engine.reader, noted)
    async with open_read_models(url) as read_models:
        return await audit(engine.reader, noted, read_models)


async def _let_them_order(
    plan: Plan, engine: Engine, watch: Watch, clock: Clock
) -> tuple[Crowd, Statistics | None]:
    """The crowd when all is over, and the engine's counters at the end of the warm-up.

    Raises ConfigError when it was over before that.
    """
    warm: list[Statistics] = []
    history = HistoryWriter(plan.history) if plan.history is not None else None
    try:
        crowd, payers = _gather(plan, engine, clock, history)

        def stop() -> None:
            crowd.stop()
            payers.stop()

        def begin_counting() -> None:
            crowd.tally.begin_counting(clock.monotonic())
            warm.append(engine.statistics())

        warmup = plan.warmup_seconds
        warming_up = after(warmup, begin_counting, clock) if warmup else nullcontext()
        with warming_up, stopping(stop, plan.seconds_max, clock):
            async with watch(crowd.tally, plan.workload):
                await crowd.run()
                await payers.finish()
                if plan.workload.hold_seconds:
                    await settle(engine, plan.workload, crowd, clock)
    finally:
        if history is not None:
            history.close()
    if warmup and not warm:
        raise ConfigError(
            f"all {crowd.tally.sent:,} orders were answered within the warm-up of "
            f"{plan.warmup_seconds:g} s; nothing is left to measure"
        )
    return crowd, warm[0] if warm else None


def _gather(
    plan: Plan, engine: Engine, clock: Clock, history: HistoryWriter | None
) -> tuple[Crowd, Payers]:
    """The buyers of a plan, and what they do once an order is held."""
    workload, notes = plan.workload, None if history is None else Notebook(history)
    # Carts and payments cost a sale without holds nothing.
    execute = Till(engine).execute if workload.hold_seconds else engine.execute
    crowd = Crowd(workload, execute, clock, plan.concurrency, notes)
    payers = Payers(workload, engine.execute, clock, crowd.tally)
    if workload.hold_seconds:
        crowd.when_accepted = payers.accepted
    return crowd, payers


async def open_sales(engine: Engine, workload: Workload) -> None:
    """Put every SKU on sale, or find it opened by the same workload. Raises ConfigError."""

    async def open_one(number: int, sku: str) -> None:
        try:
            answer = await engine.open_sale(
                sku,
                stock=workload.stock,
                limit_per_buyer=workload.limit_per_buyer,
                hold_seconds=workload.hold_seconds,
                command_id=f"open-{workload.origin}-{number}",
            )
            same = not isinstance(answer, Rejected)
        except CommandIdReused:
            same = False
        if not same:
            row = await engine.stock(sku)
            assert row is not None
            raise ConfigError(
                f"the store already holds {sku}, opened by another run or with other settings "
                f"({row.available + row.reserved + row.paid:,} units, limit per buyer "
                f"{row.limit_per_buyer:,}, held for {row.hold_seconds:,} s); repeat that run's settings to resume it, or choose "
                "another --store-url or --out"
            )

    skus = list(enumerate(workload.skus, 1))
    at_once = min(OPENED_AT_ONCE, engine.settings.queue.depth_max)
    for start in range(0, len(skus), at_once):
        chunk = skus[start : start + at_once]
        outcomes = await asyncio.gather(
            *(open_one(number, sku) for number, sku in chunk), return_exceptions=True
        )
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome


def _build_run(plan: Plan, started_at: str, commit: str, books: Books) -> Run:
    tally, gained = books.tally, books.gained
    rejected = tally.rejected
    sold_out, limit = rejected["sold_out"], rejected["over_limit"]
    seconds = tally.seconds
    before = max(0, tally.accepted - gained.accepted)
    payments = None
    if plan.workload.hold_seconds:
        # The engine's counters hold the commands of payments and managers as well.
        before = tally.payments.accepted_before
        payments = PaymentCounts(tally.payments.paid, tally.payments.too_late, tally.payments.left)
    return Run(
        kind="simulate",
        started_at=started_at,
        commit=commit,
        seed=plan.workload.seed,
        machine=describe_machine(books.store),
        config=describe_plan(plan),
        strategy="group-commit",
        orders=Orders(
            offered=tally.sent,
            accepted=tally.accepted,
            rejected_sold_out=sold_out,
            rejected_limit=limit,
            rejected_other=rejected.total() - sold_out - limit,
            refused_overload=tally.refused_overload,
            duplicate=tally.duplicate,
            unknown=tally.unknown,
            failed=tally.failed,
            accepted_before=before,
        ),
        throughput=Throughput(
            decided_per_s=round((tally.decided - tally.warm_decided) / seconds, 1),
            durable_per_s=round((tally.accepted - tally.warm_accepted - before) / seconds, 1),
            seconds=round(seconds, 6),
        ),
        latency_ms=tally.latency.percentiles(),
        batches=summarise_batches(books.counted),
        audit=summarise_audit(books.audit, books.checks),
        stopped_early=books.interrupted,
        payments=payments,
    )


def describe_plan(plan: Plan) -> dict[str, Any]:
    """Every setting that matters to the figures."""
    return {
        "workload": plan.workload.describe(),
        "concurrency": plan.concurrency,
        "history": plan.history is not None,
        **describe_settings(plan.settings),
    }


def summarise_audit(report: AuditReport, checks: Sequence[Check]) -> AuditResult:
    """The audit of the store and the comparison of the books as one result."""
    findings = [finding for check in report.checks for finding in check.findings]
    findings += [f"{check.name}: {check.detail}" for check in checks if not check.ok]
    return AuditResult(
        ok=report.ok and all(check.ok for check in checks),
        oversold=report.oversold,
        lost=report.lost,
        duplicated=report.duplicated,
        over_limit=report.over_limit,
        checked_events=report.checked_events,
        findings=tuple(findings),
    )
