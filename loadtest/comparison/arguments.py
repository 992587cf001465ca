"""What is named on the command line, as entries.

An argument names one entry: a folder or its run.json, `FOLDER:NAME` where a folder holds several
(the strategies of a comparison, the settings of an experiment), or several of these separated by
commas, which are repeats of one. A folder of several alone stands for all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from engine.errors import ConfigError
from loadtest.comparison.entries import Entry, entries_of, joined
from loadtest.reading import read_result
from loadtest.results import RUN_FILE
from loadtest.wrong import NotProven


def read_entries(arguments: Sequence[str]) -> list[Entry]:
    """Read what is to be compared, the base first: at least two entries, none of them twice.

    Raises ConfigError naming what is wrong, and NotProven when an audit found something.
    """
    entries = _all_of(arguments[0]) if len(arguments) == 1 else []
    if not entries:
        parts = [_parts(each) for each in arguments]
        found = iter(_named_apart([(part, _one(part)) for each in parts for part in each]))
        entries = [joined([next(found) for _ in each]) for each in parts]
    if len(entries) < 2:
        raise ConfigError(
            "a comparison takes two results or more, or one folder that holds several"
            + (f"; {entries[0].name} is one" if entries else "")
        )
    _check(entries)
    return entries


def _all_of(text: str) -> list[Entry]:
    """Every entry of a folder by its short name; none when there are not several."""
    path = Path(text)
    if not _exists(path):
        return []
    found = entries_of(read_result(path), _file(path))
    if len(found) < 2:
        return []
    return [msgspec.structs.replace(each, name=key) for key, each in found.items()]


def _parts(text: str) -> list[str]:
    return [text] if _exists(Path(text)) else text.split(",")


def _one(text: str) -> Entry:
    if not text.strip():
        raise ConfigError("the name of a result is missing; repeats are joined as a,b,c")
    path, name = Path(text), ""
    if not _exists(path) and ":" in text:
        folder, _, name = text.rpartition(":")
        path = Path(folder)
    found = entries_of(read_result(path), _file(path))
    if not found:
        raise ConfigError(f"{path} holds no runs")
    if name and list(found) == [""]:
        raise ConfigError(f"{path} holds one run, which has no name: leave :{name} out")
    if not name and len(found) == 1:
        return next(iter(found.values()))
    names = ", ".join(found)
    if not name:
        raise ConfigError(f"{path} holds several entries; take one as {path}:NAME, of {names}")
    entry = found.get(name)
    if entry is None:
        raise ConfigError(f"{path} has no entry {name!r}; it has {names}")
    return entry


def _exists(path: Path) -> bool:
    """Several folders in one argument may be longer than any file name."""
    try:
        return path.exists()
    except OSError:
        return False


def _file(path: Path) -> Path:
    return (path / RUN_FILE if path.is_dir() else path).resolve()


def _named_apart(entries: Sequence[tuple[str, Entry]]) -> list[Entry]:
    """Folders of one name in different places are called as they were typed."""
    names = [each.name for _, each in entries]
    return [
        msgspec.structs.replace(
            each,
            name=typed,
            origins=tuple(msgspec.structs.replace(one, typed=typed) for one in each.origins),
        )
        if names.count(each.name) > 1
        else each
        for typed, each in entries
    ]


def _check(entries: Sequence[Entry]) -> None:
    seen: set[tuple[Path, str]] = set()
    for entry in entries:
        for origin in entry.origins:
            if (origin.file, origin.key) in seen:
                raise ConfigError(
                    f"{origin.name} is named twice; counted twice it would look surer than it is"
                )
            seen.add((origin.file, origin.key))
        if entry.wrong:
            raise NotProven(
                f"{entry.name} is not compared, its figures mean nothing: {entry.wrong}"
            )
        if not all(each.durable_per_s > 0 for each in entry.samples):
            raise ConfigError(
                f"{entry.name} has a repeat without any durable order: no throughput to compare"
            )
