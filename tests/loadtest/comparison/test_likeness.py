"""Everything that differs between what is compared is named, with the values of both."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from loadtest.comparison.arguments import read_entries
from loadtest.comparison.entries import Entry, Origin, Sample, joined
from loadtest.comparison.likeness import warnings_of
from tests.architecture.source_tree import ROOT
from tests.loadtest.published import CONFIG, MACHINE

PUBLISHED = ROOT / "results"


def entry(name: str, **changes: Any) -> Entry:
    settings = {key: value for key, value in CONFIG.items() if key != "workload"}
    origin = Origin(
        file=Path(name) / "run.json",
        key="",
        kind="simulate",
        strategy="group-commit",
        started_at="2026-04-01T20:00:00+00:00",
        commit="0123456789abcdef",
        machine=MACHINE,
        workload={"seed": 1, "buyers": 10},
        settings=settings,
    )
    origin = msgspec.structs.replace(origin, **changes)
    return Entry(name=origin.name, samples=(Sample(1.0, 1.0, 2.0),), origins=(origin,))


def test_what_is_alike_is_not_warned_of() -> None:
    assert warnings_of([entry("a"), entry("b", started_at="2026-05-01T20:00:00+00:00")]) == []


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("cpu", "other"),
        ("cores", 4),
        ("memory_gib", 15.5),
        ("kernel", "Linux 7"),
        ("python", "CPython 3.12"),
        ("store", "mariadb"),
        ("store_version", "11.4"),
        ("durability", "relaxed"),
    ],
)
def test_another_machine_is_warned_of(field: str, value: object) -> None:
    other = entry("b", machine=msgspec.structs.replace(MACHINE, **{field: value}))
    before = getattr(MACHINE, field)
    assert warnings_of([entry("a"), other]) == [
        f"the machine's {field} differs: {value} (b), else {before}"
    ]


def change(group: str, **more: object) -> dict[str, Any]:
    return {**CONFIG, group: {**CONFIG[group], **more}}


@pytest.mark.parametrize(
    ("changes", "warning"),
    [
        ({"commit": "fedcba9876543210"}, "the commit differs: fedcba987654 (b), else 0123456789ab"),
        ({"kind": "locust"}, "the kind of measurement differs: locust (b), else simulate"),
        ({"workload": {"seed": 2, "buyers": 10}}, "workload seed differs: 2 (b), else 1"),
        (
            {"settings": change("batch", size_max=50)},
            "setting batch.size_max differs: 50 (b), else 8190",
        ),
        (
            {"settings": change("store", partitions=4)},
            "setting store.partitions differs: 4 (b), else 1",
        ),
        ({"settings": {**CONFIG, "concurrency": 7}}, "setting concurrency differs: 7 (b), else 50"),
        (
            {"settings": {**CONFIG, "residents": {"max": 7}, "gate": None}},
            "setting residents.max, gate: recorded only by b",
        ),
        ({"stopped_early": True}, "b was stopped before all its orders were sent"),
        ({"orders_failed": 1_000}, "b: 1,000 orders were answered with an error"),
        ({"orders_unknown": 2}, "b: 2 orders got no definite answer"),
    ],
)
def test_what_differs_is_named_with_both_values(changes: dict[str, Any], warning: str) -> None:
    if "settings" in changes:
        changes["settings"] = {k: v for k, v in changes["settings"].items() if k != "workload"}
    assert warnings_of([entry("a"), entry("b", **changes)]) == [warning]


def test_a_commit_with_changed_files_is_warned_of_even_beside_its_like() -> None:
    dirty = "0123456789abcdef+dirty"
    told = "files differed from the commit: what was measured cannot be told apart"
    assert warnings_of([entry("a", commit=dirty), entry("b", commit=dirty)]) == [f"{told} (a, b)"]
    assert warnings_of([entry("a"), entry("b", commit=dirty)]) == [
        "the commit differs: 0123456789ab+dirty (b), else 0123456789ab",
        f"{told} (b)",
    ]
    assert "unknown commit" in warnings_of([entry(each, commit="unknown") for each in "ab"])[0]


def test_a_third_value_is_named_as_well() -> None:
    settings: Callable[[int], dict[str, Any]] = lambda number: {"concurrency": number}  # noqa: E731
    entries = [
        entry(name, settings=settings(number))
        for name, number in zip("abcd", (1, 2, 1, 3), strict=True)
    ]
    assert warnings_of(entries) == ["setting concurrency differs: 2 (b), 3 (d), else 1"]


@pytest.mark.parametrize(
    "changes", [{"repeats": 9}, {"connections_tried": [1]}, {"seconds_max": 2}]
)
def test_how_often_something_was_tried_is_no_difference(changes: dict[str, object]) -> None:
    settings = {key: value for key, value in CONFIG.items() if key != "workload"}
    assert warnings_of([entry("a"), entry("b", settings={**settings, **changes})]) == []


def test_what_differs_inside_one_experiment_is_what_it_is_about() -> None:
    for folder in sorted(PUBLISHED.glob("tune-*")) + sorted(PUBLISHED.glob("strategies-*")):
        assert warnings_of(read_entries([str(folder)])) == []


def test_settings_of_the_engine_are_not_missed_in_a_baseline() -> None:
    baseline = entry("b", strategy="row-lock", settings={"concurrency": 50})
    assert warnings_of([entry("a"), baseline]) == []


def test_repeats_that_are_joined_are_warned_of_when_they_differ() -> None:
    one = joined([entry("a1"), entry("a2", commit="fedcba9876543210")])
    assert warnings_of([one, entry("b")]) == [
        "the commit differs: fedcba987654 (a2), else 0123456789ab"
    ]
