"""One honest sale that lives through everything, and the audit's verdict by short names."""

from __future__ import annotations

import asyncio

from engine.inventory.audit import AuditReport, audit
from engine.inventory.events import (
    Reserved,
    Restocked,
    SaleClosed,
    SaleOpened,
    SalePaused,
    SaleResumed,
    Withdrawn,
)
from engine.inventory.history import History, HistoryOrder
from tests.inventory.sales import Books

CHECKS = (
    "positions",
    "checksums",
    "readable",
    "versions",
    "once",
    "stock",
    "phases",
    "limits",
    "holds",
    "table",
    "units",
    "carts",
    "acknowledged",
    "refused",
    "failed",
    "doubtful",
    "agree",
)


def prove(books: Books, history: History | None = None) -> AuditReport:
    return asyncio.run(audit(books, history))


def red(report: AuditReport) -> set[str]:
    """The checks that failed, by their short names."""
    failed = {name for name, check in zip(CHECKS, report.checks, strict=False) if check.findings}
    assert failed == {
        name for name, check in zip(CHECKS, report.checks, strict=False) if not check.ok
    }
    assert report.ok == (not failed)
    return failed


def findings(report: AuditReport) -> str:
    return "\n".join(finding for check in report.checks for finding in check.findings)


def honest() -> Books:
    """A SKU with a limit that lives through everything, another one between its commits."""
    books = Books()
    books.write("SHOE", SaleOpened("s1", 20, 2))
    books.write("SHOE", Reserved("s2", "alice", 2), Reserved("s3", "bob", 1))
    books.write("SOCK", SaleOpened("k1", 3, 0), Reserved("k2", "alice", 3))
    books.write("SHOE", Restocked("s4", 5), Withdrawn("s5", 1))
    books.write("SHOE", SalePaused("s6"), SaleResumed("s7"), Reserved("s8", "carol", 1))
    books.write("SHOE", SaleClosed("s9"))
    return books


def orders_of_honest() -> dict[str, HistoryOrder]:
    return {
        "s2": HistoryOrder("SHOE", "alice", 2, "ok"),
        "s3": HistoryOrder("SHOE", "bob", 1, "ok"),
        "s8": HistoryOrder("SHOE", "carol", 1, "ok"),
        "k2": HistoryOrder("SOCK", "alice", 3, "ok"),
        "k3": HistoryOrder("SOCK", "bob", 1, "rejected", "sold_out"),
        "k4": HistoryOrder("SOCK", "bob", 1, "failed"),
        "k5": HistoryOrder("SOCK", "bob", 1, "unknown"),
    }
