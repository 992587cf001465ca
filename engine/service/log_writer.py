"""Log lines are written by a thread of their own, so that nobody waits for whoever reads them.

A pipe that is not emptied, or a disk that is full, would otherwise stop the sale at its next log line. What
cannot be written in time is left out and counted.
"""

from __future__ import annotations

import atexit
import logging
import queue
import threading
from typing import Final

LINES_WAITING_MAX: Final = 10_000
"""Some megabytes."""

FLUSH_SECONDS_MAX: Final = 2.0


class Seldom(logging.Filter):
    """Lets the same warning pass once in a while: a store that is gone is missed ten times a second.

    The same is what comes from the same line of code about the same thing, its first argument.
    """

    SECONDS: Final = 10.0
    KINDS_MAX: Final = 1_000

    def __init__(self) -> None:
        super().__init__()
        self._told: dict[tuple[str, int, object], float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno not in (logging.INFO, logging.WARNING) or not record.args:
            return True
        about = record.args[0] if isinstance(record.args, tuple) else None
        kind = (record.name, record.lineno, str(about))
        if record.created - self._told.get(kind, 0.0) < self.SECONDS:
            return False
        if len(self._told) >= self.KINDS_MAX:
            self._told.clear()
        self._told[kind] = record.created
        return True


class LogWriter(logging.Handler):
    """Hands every record to `target` on its thread."""

    def __init__(self, target: logging.Handler) -> None:
        super().__init__()
        self._target = target
        self._waiting: queue.Queue[logging.LogRecord | threading.Event] = queue.Queue(
            LINES_WAITING_MAX
        )
        self.left_out = 0
        self.addFilter(Seldom())
        threading.Thread(target=self._write, name="log-writer", daemon=True).start()
        atexit.register(self.flush)

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._waiting.put_nowait(record)
        except queue.Full:
            self.left_out += 1

    def flush(self) -> None:
        """Return once everything is written, or not in time."""
        written = threading.Event()
        try:
            self._waiting.put(written, timeout=FLUSH_SECONDS_MAX)
        except queue.Full:
            return
        written.wait(FLUSH_SECONDS_MAX)

    def _write(self) -> None:
        while True:
            record = self._waiting.get()
            if isinstance(record, threading.Event):
                record.set()
            else:
                self._target.handle(record)
