"""An experiment that is stopped or killed goes on when the same command is given again."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from loadtest.reading import read_result
from loadtest.tuning.journal import JOURNAL_FILE, read_journal
from loadtest.tuning.report import TuneRun
from tests.polling import pause
from tests.shell import Shell

TUNE = [
    *("tune", "--batch-size", "1,10", "--concurrency", "4", "--repeats", "2", "--confirm", "0"),
    *("--warmup-seconds", "0", "--out", "tuned"),
]
RUNS = 6
LOOKS_MAX = 2_000
"""At the processes of the system: some ten seconds."""

DRIVERS = {"inproc": ["--seconds", "0.2"], "http": ["--driver", "http", "--seconds", "0.2"]}


def start(folder: Path, *more: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", "from engine.cli import main; main()", *TUNE, *more],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for_runs(program: subprocess.Popen[str], journal: Path, count: int) -> None:
    """The first line is the header."""
    while not (journal.exists() and journal.read_bytes().count(b"\n") > count):
        assert program.poll() is None, program.communicate()
        pause()


def servers_of(folder: Path) -> list[int]:
    """Processes that were told of a store in the folder, by their environment."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if f"SECKILL_STORE__URL=sqlite:{folder}".encode() in (process / "environ").read_bytes():
                found.append(int(process.name))
        except OSError:
            continue
    return found


@pytest.mark.parametrize(
    ("driver", "number"),
    [
        ("inproc", signal.SIGINT),
        ("inproc", signal.SIGTERM),
        ("inproc", signal.SIGKILL),
        ("http", signal.SIGINT),
        ("http", signal.SIGKILL),
    ],
)
def test_a_stopped_experiment_goes_on_where_it_was(
    shell: Shell, driver: str, number: signal.Signals
) -> None:
    folder = shell.folder
    journal = folder / "tuned" / JOURNAL_FILE
    with start(folder, *DRIVERS[driver]) as program:
        wait_for_runs(program, journal, 2)
        while driver == "http" and not servers_of(folder):
            assert program.poll() is None, program.communicate()
            pause()
        program.send_signal(number)
        _, errors = program.communicate()
    assert program.returncode == {signal.SIGINT: 130, signal.SIGTERM: 143}.get(number, -9), errors
    assert "Traceback" not in errors
    told = "the same command with --out tuned goes on" in " ".join(errors.split())
    assert told == (number != signal.SIGKILL)
    assert not (folder / "tuned" / "run.json").exists()
    # One whose parent was killed may be on its way out.
    assert any(not servers_of(folder) for _ in range(LOOKS_MAX)), "a server was left behind"
    whole = journal.read_bytes()
    whole = whole[: whole.rindex(b"\n") + 1]
    found = read_journal(journal, whole)
    assert found is not None
    kept = found[1]
    assert 2 <= len(kept) < RUNS

    assert shell.run(*TUNE, *DRIVERS[driver]) == 0, shell.err
    assert f"{len(kept)} runs are kept from before" in shell.err
    assert f"{RUNS - len(kept)} run" in shell.err
    result = read_result(folder / "tuned")
    assert isinstance(result, TuneRun)
    runs = [one for each in result.cells for one in each.repeats]
    assert len(runs) == RUNS
    assert all(each.run in runs for each in kept), "what was measured is in the result as it was"
    assert journal.read_bytes().startswith(whole)
    assert not list((folder / "tuned").glob("scratch*"))


def test_a_finished_experiment_is_not_run_again(shell: Shell) -> None:
    assert shell.run(*TUNE, "--seconds", "0.02") == 0, shell.err
    before = shell.files()
    assert shell.run(*TUNE, "--seconds", "0.02") == 2
    assert "already holds a finished run" in " ".join(shell.err.split())
    assert shell.files() == before


@pytest.mark.parametrize(
    ("flags", "differs"),
    [
        (["--seconds", "0.03"], "seconds_max 0.02 there, 0.03 now"),
        (["--seconds", "0.02", "--seed", "2"], "seed 1 there, 2 now"),
        (["--seconds", "0.02", "--skus", "2"], "workload.skus 1 there, 2 now"),
        (["--seconds", "0.02", "--concurrency", "8"], "concurrency 4 there, 8 now"),
    ],
)
def test_another_experiment_in_the_same_folder_is_refused(
    shell: Shell, flags: list[str], differs: str
) -> None:
    assert shell.run(*TUNE, "--seconds", "0.02") == 0, shell.err
    (shell.folder / "tuned" / "run.json").unlink()
    before = shell.files()
    assert shell.run(*TUNE, *flags) == 2
    assert differs in " ".join(shell.err.split())
    assert shell.files() == before


def test_another_commit_is_another_experiment(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert shell.run(*TUNE, "--seconds", "0.02") == 0, shell.err
    (shell.folder / "tuned" / "run.json").unlink()
    monkeypatch.setattr("loadtest.tuning.command.source_state", lambda: "another")
    assert shell.run(*TUNE, "--seconds", "0.02") == 2
    assert 'there, "another" now' in shell.err


def test_the_journal_names_no_place_and_no_password(shell: Shell) -> None:
    assert shell.run(*TUNE, "--seconds", "0.02") == 0, shell.err
    for name in ("tune.jsonl", "run.json", "README.md", "recommended.toml"):
        assert str(shell.folder).encode() not in shell.files()[f"tuned/{name}"]
    header = msgspec.json.decode(shell.files()["tuned/tune.jsonl"].splitlines()[0])
    assert header["experiment"]["store_place"] == "sqlite:"
