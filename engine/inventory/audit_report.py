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


class AuditReport(msgspec.Struct, frozen=True, kw_only=True):
    """What an audit proved. `ok` is false when any check found anything.

    oversold        units sold that were not there to be sold
    lost            acknowledged orders that are not stored as they were asked
    phantom         refused or failed orders that are stored all the same
    duplicated      events that repeat a command which already had its event
    over_limit      orders that took a buyer above the limit
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
    notes: tuple[str, ...] = ()
