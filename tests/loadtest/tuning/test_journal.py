"""The journal of an experiment keeps every finished run, whatever ended the program."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest

from engine.errors import ConfigError
from loadtest.tuning.experiment import Noted, Stage
from loadtest.tuning.journal import JOURNAL_FILE, open_journal
from tests.loadtest.tuning.tunings import MACHINE, cell, run_of

EXPERIMENT: Mapping[str, Any] = {"seed": 1, "seconds": 0.5, "batch": {"size_max": 10}, "at": (1, 2)}


def noted(repeat: int, stage: Stage = "look") -> Noted:
    return Noted(stage, run_of(cell(10), repeat), MACHINE)


def write(folder: Path, *runs: Noted) -> Path:
    with open_journal(folder, EXPERIMENT, "now") as journal:
        for each in runs:
            journal.append(each)
    return folder / JOURNAL_FILE


def read(folder: Path, experiment: Mapping[str, Any] = EXPERIMENT) -> list[Noted]:
    with open_journal(folder, experiment, "later") as journal:
        return list(journal.runs)


def test_finished_runs_are_found_again(tmp_path: Path) -> None:
    write(tmp_path, noted(1), noted(2), noted(1, "confirm"))
    with open_journal(tmp_path, EXPERIMENT, "later") as journal:
        assert (journal.kept, journal.started_at) == (3, "now")
        assert set(journal.find("look")) == {noted(1).key, noted(2).key}
        journal.append(noted(3))
    assert len(read(tmp_path)) == 4


def test_a_torn_last_line_is_dropped_and_written_over(tmp_path: Path) -> None:
    path = write(tmp_path, noted(1), noted(2))
    whole = path.read_bytes()
    for cut in range(len(whole) - 1, whole.rindex(b"\n", 0, -1) + 1, -37):
        path.write_bytes(whole[:cut])
        assert read(tmp_path) == [noted(1)]
        write(tmp_path, noted(2))
        assert path.read_bytes() == whole


def test_a_torn_first_line_begins_anew(tmp_path: Path) -> None:
    path = write(tmp_path, noted(1))
    path.write_bytes(path.read_bytes()[:30])
    assert read(tmp_path) == []


def test_a_corrupt_line_elsewhere_is_named(tmp_path: Path) -> None:
    path = write(tmp_path, noted(1), noted(2))
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([lines[0], lines[1][:20] + b"\n", lines[2]]))
    before = path.read_bytes()
    with pytest.raises(ConfigError, match=r"tune\.jsonl, line 2, cannot be read"):
        read(tmp_path)
    assert path.read_bytes() == before


def test_a_run_that_is_there_twice_is_named(tmp_path: Path) -> None:
    path = write(tmp_path, noted(1))
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines, lines[1]]))
    with pytest.raises(ConfigError, match="line 3: this run is there already"):
        read(tmp_path)


def test_another_experiment_is_refused_naming_what_differs(tmp_path: Path) -> None:
    write(tmp_path, noted(1))
    other = {**EXPERIMENT, "seconds": 2.0, "batch": {"size_max": 99}}
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, other)
    text = str(caught.value)
    assert "seconds 0.5 there, 2.0 now; batch.size_max 10 there, 99 now" in text
    assert "seed" not in text


def test_what_is_not_a_journal_is_refused(tmp_path: Path) -> None:
    (tmp_path / JOURNAL_FILE).write_text('{"experiment":{},"started_at":"","kind":"other"}\n')
    with pytest.raises(ConfigError, match="a journal of kind other"):
        read(tmp_path)


def test_runs_of_another_machine_or_server_are_not_mixed_in(tmp_path: Path) -> None:
    other = msgspec.structs.replace(MACHINE, store_version="2")
    with open_journal(tmp_path, EXPERIMENT, "now") as journal:
        journal.append(noted(1))
        with pytest.raises(ConfigError, match=r"were made on .* Now it is .*memory 2"):
            journal.append(Noted("look", run_of(cell(10), 2), other))
    assert read(tmp_path) == [noted(1)]


def test_a_journal_without_a_run_is_not_left_behind(tmp_path: Path) -> None:
    write(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_second_process_may_not_write_it_meanwhile(tmp_path: Path) -> None:
    script = (
        "from pathlib import Path; from loadtest.tuning.journal import open_journal\n"
        "with open_journal(Path('.'), {}, ''): pass"
    )
    with open_journal(tmp_path, EXPERIMENT, "now"):
        other = subprocess.run(
            [sys.executable, "-c", script],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
    assert "is in use: the experiment is running in another process" in other.stderr
