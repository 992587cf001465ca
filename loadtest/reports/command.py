"""`seckill report`: one self-contained HTML page of a result, with its plots as SVG files beside it."""

from __future__ import annotations

from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from engine.errors import ConfigError
from loadtest.machine import Machine, short_commit
from loadtest.reading import Result, read_result
from loadtest.reports.page import Report, changed_settings, text_of
from loadtest.reports.run import report_run
from loadtest.reports.strategies import report_strategies
from loadtest.reports.tune import report_tune
from loadtest.results import RUN_FILE, write_whole
from loadtest.settings import flatten_config

REPORT_FILE: Final = "report.html"
BUILDERS: Final[dict[str, Callable[[Any], Report]]] = {
    "simulate": report_run,
    "locust": report_run,
    "tune": report_tune,
    "strategies": report_strategies,
}
"""Of the content of a report, by the kind of the result."""

CAVEAT: Final = (
    "Load generator, engine and store shared this machine's cores, so the figures are of all three "
    "together; on other hardware, or with a client elsewhere, they differ. Ratios within one run say "
    "more than single figures."
)

CAVEAT_ELSEWHERE: Final = (
    "The server was running before and has settings of its own, which this result does not hold. The "
    "machine named here is the load generator's; where the server ran is not known. The figures hold "
    "the way between them too."
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
    try:
        report = build_report(run)
        page = render(report, run)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        # The settings of a result are a free mapping, and its lists may be empty: a file that was
        # not written by this program can be of the right type and still lack what is shown.
        what = f"{type(error).__name__}: {error}"
        raise ConfigError(f"{place} lacks what a report of it needs ({what})") from error
    path = out or directory / REPORT_FILE
    # The page first: it holds the plots, and where it cannot be written nothing else is.
    write_whole(path, page.encode(errors="replace"))
    for section in report.sections:
        for plot in section.plots:
            write_whole(directory / plot.file, plot.svg)
    return path


def build_report(run: Result) -> Report:
    """The content of a report, by the kind of result."""
    return BUILDERS[run.kind](run)


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
        "caveat": CAVEAT_ELSEWHERE if _was_elsewhere(run) else CAVEAT,
        "changed": [(name, text_of(value)) for name, value in changed_settings(settings).items()],
        "settings": [(name, text_of(value)) for name, value in settings.items()],
    }
    text = files("loadtest").joinpath("templates/report.html").read_text(encoding="utf-8")
    environment = Environment(autoescape=True, undefined=StrictUndefined)
    return environment.from_string(text).render(page=page)


def _was_elsewhere(run: Result) -> bool:
    """Whether the load went to a server that others had started: its settings are not in the result."""
    return run.kind == "locust" and "store" not in run.config


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
