"""Whoever logs never waits, and the same warning is told once in a while."""

from __future__ import annotations

import logging
import threading

from engine.service.log_writer import LINES_WAITING_MAX, LogWriter, Seldom


class Kept(logging.Handler):
    """Keeps what it is given, once it may."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []
        self.may = threading.Event()

    def emit(self, record: logging.LogRecord) -> None:
        self.may.wait()
        self.lines.append(record.getMessage())


def line(number: int, level: int = logging.ERROR, **more: object) -> logging.LogRecord:
    record = logging.LogRecord("test", level, "file", 1, "line %s: %s", (number, "x"), None)
    record.__dict__.update(more)
    return record


def test_a_reader_that_takes_nothing_holds_nobody_up_and_what_is_too_much_is_left_out() -> None:
    target = Kept()
    writer = LogWriter(target)
    # One of them may be with the thread already.
    for number in range(LINES_WAITING_MAX + 6):
        writer.handle(line(number))
    assert writer.left_out in (5, 6)
    target.may.set()
    writer.flush()
    assert len(target.lines) + writer.left_out == LINES_WAITING_MAX + 6
    assert target.lines[:2] == ["line 0: x", "line 1: x"]


def test_the_same_warning_is_told_once_in_ten_seconds_and_errors_always() -> None:
    seldom = Seldom()
    assert seldom.filter(line(1, logging.WARNING, created=100.0))
    assert not seldom.filter(line(1, logging.WARNING, created=109.0))
    assert seldom.filter(line(2, logging.WARNING, created=109.0))
    assert seldom.filter(line(1, logging.WARNING, created=110.0))
    assert seldom.filter(line(1, logging.ERROR, created=110.0))
    assert seldom.filter(line(1, logging.ERROR, created=110.0))


def test_what_is_remembered_of_warnings_is_bounded() -> None:
    seldom = Seldom()
    for number in range(3 * Seldom.KINDS_MAX):
        assert seldom.filter(line(number, logging.WARNING, created=100.0))
    assert len(seldom._told) <= Seldom.KINDS_MAX
