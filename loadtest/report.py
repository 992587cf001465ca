"""`seckill report`: one self-contained HTML page of a result, with its plots as SVG files beside it."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from engine.errors import ConfigError
from loadtest.machine import Machine, short_commit
from loadtest.reading import Result, read_result
from loadtest.report_page import Report, changed_settings, flatten_config, text_of
from loadtest.report_run import report_run
from loadtest.report_strategies import report_strategies
from loadtest.report_tune import report_tune
from loadtest.results import RUN_FILE, Run, write_whole
from loadtest.strategies_report import StrategiesRun

REPORT_FILE: Final = "report.html"
CAVEAT: Final = (
    "Load generator, engine and store shared this machine's cores, so the figures are of all three "
    "together; on other hardware, or with a client elsewhere, they differ. Ratios within one run say "
    "more than single figures."
)


def write_report(place: Path, out: Path | None = None) -> Path:
    """Write the report of a result, a folder or its run.json; return the path of the page.

    The plots go beside the result. Raises ConfigError when it cannot be read or written.
    """
    run = read_result(place)
    directory = place if place.is_dir() else place.parent
    if out is not None and out.is_dir():
        raise ConfigError(
            f"--out {out} is a folder; name a file, or leave it out for {REPORT_FILE}"
        )
    report = build_report(run)
    page = render(report, run)
    for section in report.sections:
        for plot in section.plots:
            write_whole(directory / plot.file, plot.svg)
    path = out or directory / REPORT_FILE
    write_whole(path, page.encode())
    return path


def build_report(run: Result) -> Report:
    """The content of a report, by the kind of result."""
    if isinstance(run, Run):
        return report_run(run)
    if isinstance(run, StrategiesRun):
        return report_strategies(run)
    return report_tune(run)


def render(report: Report, run: Result) -> str:
    """The page. Everything that comes from the result is escaped; the plots are our own."""
    settings = flatten_config(run.config)
    # Plots are inlined without the head of an SVG file, which HTML knows nothing of.
    sections = [
        {
            "title": section.title,
            "text": section.text,
            "tables": section.tables,
            "plots": [
                {"caption": each.caption, "svg": Markup(_inline(each.svg))}  # noqa: S704 -- ours
                for each in section.plots
            ],
        }
        for section in report.sections
    ]
    page = {
        "title": report.title,
        "headline": report.headline,
        "failures": report.failures,
        "warnings": report.warnings,
        "sections": sections,
        "facts": _facts(report, run),
        "caveat": CAVEAT,
        "changed": [(name, text_of(value)) for name, value in changed_settings(settings).items()],
        "settings": [(name, text_of(value)) for name, value in settings.items()],
    }
    text = files("loadtest").joinpath("templates/report.html").read_text(encoding="utf-8")
    environment = Environment(autoescape=True, undefined=StrictUndefined)
    return environment.from_string(text).render(page=page)


def _inline(svg: bytes) -> str:
    text = svg.decode()
    return text[text.index("<svg") :]


def _facts(report: Report, run: Result) -> list[tuple[str, str]]:
    machine: Machine = run.machine
    found: list[tuple[str, Any]] = [
        ("machine", f"{machine.cores} x {machine.cpu}, {machine.memory_gib:g} GiB"),
        ("system", f"{machine.kernel}, {machine.python}"),
        ("store", f"{machine.store} {machine.store_version}, {machine.durability}"),
        ("commit", short_commit(run.commit)),
        ("seed", "none: recorded" if run.seed is None else text_of(run.seed)),
        ("begun", f"{run.started_at} (UTC)"),
        ("audit", report.audit),
        ("file", f"{RUN_FILE}, schema {run.schema}"),
    ]
    return [(name, str(value)) for name, value in found]
