"""What an audit says: its checks and its figures."""

from __future__ import annotations

from typing import Final

import msgspec

FINDINGS_MAX: Final = 20
"""Findings a check keeps in words: enough to see a pattern; all of them are counted."""


class AuditCheck(msgspec.Struct):
    """One property: how many `unit` it was checked on, and what was found against it.

    `found` counts every finding, `findings` holds the first FINDINGS_MAX in words.
    """

    name: str
    unit: str
    ok: bool = True
    checked: int = 0
    found: int = 0
    findings: list[str] = []

    def fail(self, finding: str) -> None:
        self.ok = False
        self.found += 1
        if len(self.findings) < FINDINGS_MAX:
            self.findings.append(finding)


class Units(msgspec.Struct, frozen=True, kw_only=True):
    """Where all units of a sale went, over every SKU whose events and row could be followed.

    added       units that came in: opened and restocked
    final       reserved for good, in sales without holds
    paid        held and then paid
    held        held now
    withdrawn   taken out of the sale
    left        for sale, as the `stock` table says
    given_back  held once and for sale again since; they are among the others anew

    added = final + paid + held + withdrawn + left, unless the audit says otherwise.
    """

    added: int = 0
    final: int = 0
    paid: int = 0
    held: int = 0
    withdrawn: int = 0
    left: int = 0
    given_back: int = 0

    def __add__(self, other: Units) -> Units:
        return Units(
            added=self.added + other.added,
            final=self.final + other.final,
            paid=self.paid + other.paid,
            held=self.held + other.held,
            withdrawn=self.withdrawn + other.withdrawn,
            left=self.left + other.left,
            given_back=self.given_back + other.given_back,
        )


class AuditReport(msgspec.Struct, frozen=True, kw_only=True):
    """What an audit proved. `ok` is false when any check found anything.

    oversold        units sold that were not there to be sold
    lost            acknowledged orders that are not stored as they were asked
    phantom         refused or failed orders that are stored all the same
    duplicated      events that repeat a command which already had its event
    over_limit      orders that took a buyer above the limit
    units           where every unit went
    reservations    accepted orders of single SKUs, and lines of orders over several
    checked_events  events replayed, of `checked_commits` commits of `streams` streams

    `notes` tell what is no fault but should be known, such as what could not be checked.
    """

    ok: bool
    oversold: int
    lost: int
    phantom: int
    duplicated: int
    over_limit: int
    checked_events: int
    checked_commits: int
    streams: int
    checks: tuple[AuditCheck, ...]
    reservations: int = 0
    units: Units = Units()
    notes: tuple[str, ...] = ()
