"""The finished runs of an experiment, one line each in tune.jsonl, so that it can go on.

The first line says which experiment it is. Every line is synced before the next run begins: what
was measured survives kill -9, and at most the line that was being written is torn.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import msgspec

from engine.errors import ConfigError
from loadtest.settings import flatten_config
from loadtest.tuning.experiment import Noted, Stage

JOURNAL_FILE: Final = "tune.jsonl"
SCHEMA: Final = 1
DIFFERENCES_SHOWN_MAX: Final = 4


class Header(msgspec.Struct, frozen=True):
    """`experiment` holds all that must be the same for runs to stand in one table."""

    experiment: dict[str, Any]
    started_at: str
    kind: str = "tune"
    schema: int = SCHEMA


class Journal:
    """Made by `open_journal`. `runs` are those that were there already and those added since."""

    def __init__(self, path: Path, file: int, header: Header, runs: list[Noted]) -> None:
        self._path, self._file = path, file
        self.started_at = header.started_at
        self.runs = runs
        self.kept = len(runs)

    def find(self, stage: Stage) -> dict[tuple[Any, ...], Noted]:
        """The runs of a stage by their keys."""
        return {each.key: each for each in self.runs if each.stage == stage}

    def append(self, run: Noted) -> None:
        """Write a finished run down, synced. Raises ConfigError when it was made elsewhere."""
        if self.runs and run.machine != self.runs[0].machine:
            raise ConfigError(
                f"{self._path}: the runs so far were made on {self.runs[0].machine.line} Now it is "
                f"{run.machine.line} Choose another --out"
            )
        self._write(msgspec.json.encode(run))
        self.runs.append(run)

    def _write(self, line: bytes) -> None:
        try:
            whole = line + b"\n"
            if os.write(self._file, whole) < len(whole):
                # The half line is cut off when the journal is opened again.
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(self._file)
        except OSError as error:
            raise ConfigError(f"cannot write {self._path}: {error.strerror}") from None


@contextmanager
def open_journal(
    directory: Path, experiment: Mapping[str, Any], started_at: str
) -> Iterator[Journal]:
    """The journal in `directory` for the block: found there, or begun.

    One without a finished run is removed again. Raises ConfigError when it is of another experiment,
    in use, or cannot be read.
    """
    path = directory / JOURNAL_FILE
    # As it comes back from the file: tuples are lists there.
    wanted = Header(msgspec.json.decode(msgspec.json.encode(experiment)), started_at)
    try:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
    except OSError as error:
        raise ConfigError(f"cannot open {path}: {error.strerror}") from None
    try:
        _lock(file, path)
        found = read_journal(path, _drop_torn_line(file))
        if found is None:
            header, runs = wanted, list[Noted]()
        else:
            header, runs = found
            check_same(path, header.experiment, wanted.experiment)
        journal = Journal(path, file, header, runs)
        if found is None:
            journal._write(msgspec.json.encode(wanted))
            _sync_folder(directory)
        try:
            yield journal
        finally:
            if not journal.runs:
                path.unlink(missing_ok=True)
    finally:
        os.close(file)


def read_journal(path: Path, data: bytes) -> tuple[Header, list[Noted]] | None:
    """What whole lines say; None when there are none. Raises ConfigError naming a bad line."""
    lines = data.splitlines()
    if not lines:
        return None
    number = 1
    try:
        header = msgspec.json.decode(lines[0], type=Header)
        if (header.kind, header.schema) != ("tune", SCHEMA):
            raise ConfigError(
                f"{path} is a journal of kind {header.kind}, schema {header.schema}; this program "
                f"reads kind tune, schema {SCHEMA}"
            )
        runs: dict[tuple[Any, ...], Noted] = {}
        for number, line in enumerate(lines[1:], 2):
            run = msgspec.json.decode(line, type=Noted)
            if run.key in runs:
                raise ConfigError(f"{path}, line {number}: this run is there already")
            runs[run.key] = run
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(
            f"{path}, line {number}, cannot be read: {error}. Choose another --out, or remove the "
            "file to begin anew"
        ) from None
    return header, list(runs.values())


def check_same(path: Path, found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Raise ConfigError naming what differs between two experiments."""
    there, here = flatten_config(found), flatten_config(wanted)
    differing = [
        f"{key} {_show(there.get(key))} there, {_show(here.get(key))} now"
        for key in dict.fromkeys([*there, *here])
        if there.get(key) != here.get(key)
    ]
    if differing:
        more = len(differing) - DIFFERENCES_SHOWN_MAX
        raise ConfigError(
            f"{path} is of another experiment: {'; '.join(differing[:DIFFERENCES_SHOWN_MAX])}"
            f"{f'; and {more} more' if more > 0 else ''}. Give the same flags to go on with it, or "
            "another --out"
        )


def _show(value: Any) -> str:
    text = msgspec.json.encode(value).decode()
    text = "nothing" if value is None else text
    return text if len(text) <= 80 else f"{text[:77]}..."


def _lock(file: int, path: Path) -> None:
    """The lock ends with the process, however that ends."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise ConfigError(
            f"{path} is in use: the experiment is running in another process"
        ) from None


def _drop_torn_line(file: int) -> bytes:
    """The whole lines. Half a one at the end, whose write was cut off, is cut off the file too."""
    size = os.fstat(file).st_size
    data = os.pread(file, size, 0)
    whole = data[: data.rfind(b"\n") + 1]
    if len(whole) < len(data):
        os.ftruncate(file, len(whole))
    return whole


def _sync_folder(directory: Path) -> None:
    folder = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
