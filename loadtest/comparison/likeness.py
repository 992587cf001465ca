"""What makes a comparison unfair: everything that differs between entries besides their figures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec

from loadtest.comparison.entries import Entry, Origin
from loadtest.machine import UNKNOWN, short_commit
from loadtest.settings import flatten_config

IGNORED: Final = frozenset({"repeats", "connections_tried", "store.url"})
"""Of a run's settings: how often something was tried, which is no property of what was tried, and
the kind of store, which the machine's part names with its version."""


def warnings_of(entries: Sequence[Entry]) -> list[str]:
    """One sentence for everything that differs, with all values and who has others than the base."""
    origins = [origin for entry in entries for origin in entry.origins]
    found = list(_of_the_runs(origins))
    if len({each.file for each in origins}) == 1:
        return found  # One experiment: what differs in it is what it is about.
    found += _differing("the kind of measurement", {each: each.kind for each in origins})
    found += _of_commits(origins)
    for field in origins[0].machine.__struct_fields__:
        values = {each: str(getattr(each.machine, field)) for each in origins}
        found += _differing(f"the machine's {field}", values)
    found += _of_settings("workload", {each: _flat(each.workload) for each in origins})
    found += _of_settings("setting", {each: _flat(each.settings) for each in origins})
    return found


def _of_the_runs(origins: Sequence[Origin]) -> Iterator[str]:
    for each in origins:
        if each.stopped_early:
            yield f"{each.name} was stopped before all its orders were sent"
        if each.orders_failed:
            yield f"{each.name}: {each.orders_failed:,} orders were answered with an error"
        if each.orders_unknown:
            yield f"{each.name}: {each.orders_unknown:,} orders got no definite answer"


def _of_commits(origins: Sequence[Origin]) -> Iterator[str]:
    yield from _differing("the commit", {each: short_commit(each.commit) for each in origins})
    for vague, why in (("+dirty", "files differed from the commit"), (UNKNOWN, "unknown commit")):
        if names := [each.name for each in origins if each.commit.endswith(vague)]:
            yield f"{why}: what was measured cannot be told apart ({', '.join(names)})"


def _of_settings(what: str, settings: Mapping[Origin, Mapping[str, str]]) -> Iterator[str]:
    """What some did not record is named in one line: older files, or another strategy's settings."""
    partly: dict[tuple[str, ...], list[str]] = {}
    for key in dict.fromkeys(key for each in settings.values() for key in each):
        known = {origin: each[key] for origin, each in settings.items() if key in each}
        yield from _differing(f"{what} {key}", known)
        if len(known) < len(settings):
            partly.setdefault(tuple(each.name for each in known), []).append(key)
    for names, keys in partly.items():
        if len({origin.strategy for origin in settings}) == 1:
            yield f"{what} {', '.join(keys)}: recorded only by {', '.join(names)}"


def _differing(what: str, values: Mapping[Origin, str]) -> Iterator[str]:
    """Names stand behind the values that are not the base's, which all the others have."""
    base = next(iter(values.values()), "")
    who: dict[str, list[str]] = {}
    for origin, value in values.items():
        if value != base:
            who.setdefault(value, []).append(origin.name)
    if who:
        told = "".join(f"{value} ({', '.join(names)}), " for value, names in who.items())
        yield f"{what} differs: {told}else {base}"


def _flat(settings: Mapping[str, Any]) -> dict[str, str]:
    return {
        key: _text(value) for key, value in flatten_config(settings).items() if key not in IGNORED
    }


def _text(value: object) -> str:
    """0 and 0.0 are one value, as settings are read."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()
