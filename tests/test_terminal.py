"""Results are read in a terminal, and in what a pipe is led to."""

from __future__ import annotations

import sys

import pytest
from rich.table import Table

from engine.terminal import PIPE_COLUMNS, printing


def printed_table() -> str:
    figures = [f"{number:,}" for number in range(10_000_000, 10_000_010)]
    with printing() as console:
        table = Table(box=None)
        for _ in figures:
            table.add_column("durable/s")
        table.add_row(*figures)
        console.print(table)
    return " ".join(figures)


def test_a_pipe_gets_every_figure_of_a_table_that_80_columns_do_not_hold(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    expected = printed_table()
    assert expected in " ".join(capsys.readouterr().out.split())
    with printing() as console:
        assert console.width == PIPE_COLUMNS


def test_who_names_the_columns_gets_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "90")
    with printing() as console:
        assert console.width == 90


def test_a_terminal_has_its_own_width(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    with printing() as console:
        assert console.width < PIPE_COLUMNS
