"""What an audit says: its checks, its figures, and both as plain lines of text."""

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


def report_lines(report: AuditReport, findings_max: int = 5) -> list[str]:
    """Render a report as lines of plain text; at most `findings_max` findings a check."""
    lines: list[str] = []
    width = max((len(check.name) for check in report.checks), default=0)
    for check in report.checks:
        verdict = "ok    " if check.ok else "FAILED"
        lines.append(f"{verdict}  {check.name:<{width}}  {check.checked:,} {check.unit}")
        lines += [f"          {finding}" for finding in check.findings[:findings_max]]
        more = check.found - min(findings_max, len(check.findings))
        if more:
            lines.append(f"          and {more:,} more")
    lines += [f"note    {note}" for note in report.notes]
    size = f"{report.checked_events:,} events, {report.streams:,} streams"
    if report.ok:
        lines.append(f"Audit passed: {size}.")
    else:
        lines.append(
            f"Audit FAILED: {size}; {report.oversold:,} units oversold, {report.lost:,} orders "
            f"lost, {report.phantom:,} phantom, {report.duplicated:,} duplicated, "
            f"{report.over_limit:,} over the limit."
        )
    return lines
