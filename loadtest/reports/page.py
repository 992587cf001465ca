"""What a report consists of, whatever was measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from engine.config import Settings
from loadtest.results import AuditResult
from loadtest.settings import WorkloadSettings, flatten_config

NARROW_COLUMNS_MAX: Final = 3
FINDINGS_SHOWN_MAX: Final = 5


class Plot(msgspec.Struct, frozen=True):
    """An SVG, its file beside the page, and what is to be seen on it."""

    file: str
    caption: str
    svg: bytes


class Table(msgspec.Struct, frozen=True):
    """Rows of text, in which a line may end; those numbered in `chosen` stand out."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    chosen: Sequence[int] = ()

    @property
    def narrow(self) -> bool:
        """Names and a figure each: another table has room beside it."""
        return len(self.columns) <= NARROW_COLUMNS_MAX


class Section(msgspec.Struct, frozen=True):
    """A heading with text, tables and plots, in this order."""

    title: str
    text: Sequence[str] = ()
    tables: Sequence[Table] = ()
    plots: Sequence[Plot] = ()


class Report(msgspec.Struct, frozen=True):
    """Everything but the machine and the settings. `failures` and `warnings` stand on top, in colour."""

    title: str
    headline: str
    sections: Sequence[Section]
    audit: str
    failures: Sequence[str] = ()
    warnings: Sequence[str] = ()


def changed_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the engine and of the sale that differ from their defaults, and those without one."""
    sale = msgspec.to_builtins(WorkloadSettings())
    defaults = flatten_config({**msgspec.to_builtins(Settings()), "workload": sale})
    return {
        name: value
        for name, value in settings.items()
        if not (name in defaults and value == defaults[name])
        and not name.endswith((".url", ".urls"))
    }


def audit_sentence(audit: AuditResult) -> str:
    """The proof in one sentence."""
    if audit.ok:
        return f"passed: {audit.checked_events:,} events replayed, nothing wrong"
    count = len(audit.findings)
    shown = "; ".join(audit.findings[:FINDINGS_SHOWN_MAX])
    more = f"; and {count - FINDINGS_SHOWN_MAX:,} more" if count > FINDINGS_SHOWN_MAX else ""
    return f"FAILED over {audit.checked_events:,} events: {shown or 'see the figures'}{more}"


def text_of(value: object) -> str:
    """A setting as it is read."""
    if value is None:
        return "(none)"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.10g}"
    if isinstance(value, list | tuple):
        return ", ".join(map(text_of, value))
    return str(value) if value != "" else "(empty)"
