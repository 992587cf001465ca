"""Log lines: for a terminal or as JSON, with tokens and secrets taken out in one place.

Everything logs through the standard library; structlog gives the lines their form.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Mapping, MutableMapping
from typing import Any, Final

import structlog
from structlog.typing import Processor

from engine.config import ServiceSettings
from engine.service.log_writer import LogWriter

HIDDEN: Final = "..."

SECRET_NAMES: Final = re.compile(r"secret|token|password|authorization|cookie|_key$", re.IGNORECASE)

SECRET_TEXTS: Final = (
    (re.compile(r"\bv1\.[\w-]{8,}(\.[\w-]*)?"), "v1." + HIDDEN),
    (re.compile(r"(?i)\b(bearer|basic)\s+\S+"), r"\1 " + HIDDEN),
    (re.compile(r"(?<=//)[^@/\s]*@"), HIDDEN + "@"),
)
"""Purchase tokens, Authorization headers, and user and password in a URL, wherever they stand."""


def redact(_: object, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Take out what nobody may read in a log. Names are checked, then every text."""
    for name, value in event.items():
        # What begins with an underscore is structlog's own, and not shown.
        if not name.startswith("_"):
            event[name] = _harmless(name, value)
    return event


def _harmless(name: str, value: object) -> object:
    if name != "event" and SECRET_NAMES.search(name):
        return HIDDEN
    if isinstance(value, str):
        return _without_secrets(value)
    if isinstance(value, int | float | None):
        return value
    if isinstance(value, Mapping):
        return {each: _harmless(str(each), inner) for each, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_harmless("", each) for each in value]
    shown = repr(value)
    harmless = _without_secrets(shown)
    return value if harmless == shown else harmless


def _without_secrets(text: str) -> str:
    for pattern, instead in SECRET_TEXTS:
        text = pattern.sub(instead, text)
    return text


def set_up_logging(settings: ServiceSettings) -> LogWriter:
    """Send every log line of the process to stderr. Called once, by the program."""
    as_json = settings.log_format == "json" or (
        settings.log_format == "auto" and not sys.stderr.isatty()
    )
    shared: list[Processor] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        redact,
    ]
    renderer: Processor = (
        structlog.processors.JSONRenderer()
        if as_json
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    root = logging.getLogger()
    writer = LogWriter(handler)
    root.handlers[:] = [writer]
    root.setLevel(settings.log_level.upper())
    # Its start and stop lines say what ours say; a malformed request is counted, not told.
    logging.getLogger("uvicorn").setLevel(logging.CRITICAL)
    logging.getLogger("asyncio").setLevel(logging.WARNING)
    return writer
