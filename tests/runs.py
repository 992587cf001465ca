"""The single run that a folder holds, for tests that look at its figures."""

from __future__ import annotations

from pathlib import Path

from loadtest.reading import read_result
from loadtest.results import Run


def read_run(path: Path) -> Run:
    result = read_result(path)
    assert isinstance(result, Run)
    return result
