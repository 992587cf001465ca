"""One load test: a shop, the crowd of Locust, the audit, the figures."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from engine.clock import SystemClock
from engine.config import Settings
from engine.errors import ConfigError, StoreUnavailable
from engine.event_loop import run_async
from engine.inventory.audit import AuditReport
from engine.runtime import audit_store
from loadtest.latency import Percentiles
from loadtest.machine import describe_machine, source_commit
from loadtest.over_http.files import write_histograms
from loadtest.over_http.process import Load, LocustProcess, Progress, Secrets
from loadtest.over_http.target import (
    ShopBooks,
    Target,
    open_sales,
    own_server,
    reconcile_shop,
    running_server,
)
from loadtest.reconcile import Check
from loadtest.results import (
    Batches,
    Orders,
    PaymentCounts,
    Run,
    Second,
    Throughput,
)
from loadtest.scratch import scratch_store
from loadtest.settings import WorkloadSettings, describe_settings
from loadtest.shop_client import ShopClient, batches_between
from loadtest.simulation.simulate import summarise_audit
from loadtest.stopping import stopping
from loadtest.swarm.books import ORDER, Outcomes, Page, decode_histogram, percentiles_ms


class LoadTest(msgspec.Struct, frozen=True, kw_only=True):
    """What to run: `settings` of a server of its own, or the one that `host` reaches."""

    load: Load
    sale: WorkloadSettings
    settings: Settings
    directory: Path
    keep_store: bool
    host: ShopClient | None = None

    def describe(self) -> dict[str, Any]:
        """Everything that matters to the figures, for run.json."""
        sale = msgspec.to_builtins(self.sale)
        # Of these the crowd of Locust has its own.
        for name in (
            "arrival",
            "seconds",
            "duplicates",
            "cart_size",
            "orders_per_buyer",
            "late_payments",
        ):
            del sale[name]
        settings = {} if self.host is not None else describe_settings(self.settings)
        return {"workload": {**sale, **msgspec.to_builtins(self.load)}, **settings}


class LoadTestOutcome(msgspec.Struct, frozen=True):
    """A run, and its proof."""

    run: Run
    audit: AuditReport
    checks: tuple[Check, ...]
    samples: tuple[str, ...]

    @property
    def exit_code(self) -> int:
        """0: proven, and every order has a definite answer. 130: stopped by Ctrl-C. Else 1."""
        orders = self.run.orders
        if not self.run.audit.ok or orders.failed:
            return 1
        if self.run.stopped_early:
            return 130
        payments = self.run.payments
        in_doubt = orders.unknown or (payments is not None and payments.unknown)
        return 1 if in_doubt or not orders.offered else 0


class _Measured(msgspec.Struct, frozen=True):
    page: Page
    shop: ShopBooks
    batches: Batches
    target: Target
    stopped: bool
    lost: bool


def run_load_test(
    test: LoadTest, progress: Callable[[Progress], None] = lambda _: None
) -> LoadTestOutcome:
    """Run it once; Ctrl-C ends it early and in good order.

    Raises ConfigError for what cannot be run, LocustFailed, and what the store raises.
    """
    started_at = datetime.now(UTC).isoformat(timespec="seconds")
    commit = source_commit()
    if test.host is not None:
        measured = run_async(_against_running(test, test.host, progress))
    elif test.keep_store:
        measured = run_async(_against_own(test, test.settings, progress))
    else:
        with scratch_store(test.settings, test.directory) as settings:
            measured = run_async(_against_own(test, settings, progress))
    write_histograms(measured.page, test.directory)
    return _build(test, measured, started_at, commit)


async def _against_own(
    test: LoadTest, settings: Settings, progress: Callable[[Progress], None]
) -> _Measured:
    secrets = Secrets(settings.auth.admin_secret, settings.auth.shop_secret)
    async with own_server(settings, test.directory) as target:
        page, batches, stopped, lost = await _let_them_come(test, target, secrets, progress)
    # The server has ended: what counts is what it left in the store.
    report = await audit_store(settings.store.url)
    return _Measured(page, target.books(report), batches, target, stopped, lost)


async def _against_running(
    test: LoadTest, client: ShopClient, progress: Callable[[Progress], None]
) -> _Measured:
    auth = test.settings.auth
    target = await running_server(client)
    secrets = Secrets(auth.admin_secret, auth.shop_secret)
    page, batches, stopped, lost = await _let_them_come(test, target, secrets, progress)
    return _Measured(page, await target.audit(), batches, target, stopped, lost)


async def _let_them_come(
    test: LoadTest, target: Target, secrets: Secrets, progress: Callable[[Progress], None]
) -> tuple[Page, Batches, bool, bool]:
    """The books, the batches, whether it was stopped early, and whether the server was lost."""
    await open_sales(target, test.sale, test.load.sku_prefix)
    before = await target.batches()
    # Ids of a store of its own are the same for the same seed.
    prefix = f"{test.sale.seed:x}"
    locust = LocustProcess(test.load, test.sale, test.directory, prefix, secrets)
    with stopping(locust.stop, None, SystemClock()):
        client = target.client
        page = await locust.run(client.url, client.admin_url, progress)
    try:
        after = await target.batches()
    except (ConfigError, StoreUnavailable):
        # It died on the way: what it left in the store is still to be compared with the books.
        return page, batches_between(before, before), locust.stopped or locust.ended_early, True
    return page, batches_between(before, after), locust.stopped or locust.ended_early, False


def _build(test: LoadTest, measured: _Measured, started_at: str, commit: str) -> LoadTestOutcome:
    page, shop = measured.page, measured.shop
    found = page.outcomes
    checks = reconcile_shop(found, shop)
    if measured.lost:
        checks.append(Check("the server was there to the end", "servers", False, 1, "it died"))
    seconds = max((page.last_at or 0.0) - (page.first_at or 0.0), 1e-9)
    run = Run(
        kind="locust",
        started_at=started_at,
        commit=commit,
        seed=test.sale.seed,
        machine=describe_machine(measured.target.info),
        config=test.describe(),
        strategy="group-commit",
        orders=_orders(found),
        throughput=Throughput(
            decided_per_s=round(found.decided / seconds, 1),
            durable_per_s=round(found.accepted / seconds, 1),
            seconds=round(seconds, 6),
        ),
        latency_ms=_percentiles(page),
        batches=measured.batches,
        audit=summarise_audit(shop.report, checks),
        stopped_early=measured.stopped,
        payments=PaymentCounts(found.paid, found.too_late, found.left, found.pay_unknown)
        if test.sale.hold_seconds
        else None,
        timeline=timeline_of(page),
    )
    return LoadTestOutcome(run, shop.report, tuple(checks), tuple(page.samples))


def _orders(found: Outcomes) -> Orders:
    refused = dict(found.refused)
    sold_out, limit = refused.pop("sold_out", 0), refused.pop("over_limit", 0)
    return Orders(
        offered=found.sent,
        accepted=found.accepted,
        rejected_sold_out=sold_out,
        rejected_limit=limit,
        rejected_other=sum(refused.values()),
        refused_overload=found.retried,
        duplicate=found.duplicate,
        unknown=found.unknown,
        failed=found.failed,
        accepted_before=0,
        unsent=found.unsent,
    )


def _percentiles(page: Page) -> Percentiles:
    encoded = page.histograms.get(ORDER)
    if encoded is None:
        return Percentiles(0, 0, 0, 0, 0)
    return Percentiles(*(round(each, 3) for each in percentiles_ms(decode_histogram(encoded))))


def timeline_of(page: Page) -> list[Second]:
    """The run second by second; the first and the last one may be shorter."""
    first, last = page.first_at or 0.0, page.last_at or 0.0
    found: list[Second] = []
    for second in range(int(first), int(last) + 1):
        book = page.seconds.get(second)
        begin, end = max(first, second), min(last, second + 1)
        if end - begin < 1e-3 and (book is None or not book.decided):
            continue
        p50 = p99 = None
        if book is not None and book.decided:
            p50, _, p99, *_ = percentiles_ms(decode_histogram(book.latency))
        found.append(
            Second(
                at_seconds=round(begin - first, 3),
                seconds=round(max(end - begin, 1e-3), 3),
                decided=book.decided if book else 0,
                accepted=book.accepted if book else 0,
                units=book.units if book else 0,
                p50_ms=p50,
                p99_ms=p99,
            )
        )
    return found
