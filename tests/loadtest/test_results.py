"""run.json is written whole, read back the same, and refused with a reason when it is not one."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import ConfigError
from loadtest.latency import Percentiles
from loadtest.machine import Machine
from loadtest.reading import read_result
from loadtest.reconcile import Deltas
from loadtest.results import (
    AuditResult,
    Batches,
    Orders,
    Run,
    Throughput,
    summarise_batches,
    write_run,
)
from tests.runs import read_run

RUN = Run(
    kind="simulate",
    started_at="2026-04-01T20:00:00+00:00",
    commit="unknown",
    seed=7,
    machine=Machine("cpu", 2, 7.5, "Linux 6", "CPython 3.11", "sqlite", "3.54", "full"),
    config={"concurrency": 1},
    strategy="group-commit",
    orders=Orders(10, 4, 3, 1, 0, 0, 2, 0, 0, 1),
    throughput=Throughput(10.0, 4.0, 1.0),
    latency_ms=Percentiles(1, 2, 3, 4, 5),
    batches=Batches(2, 5.0, 5, 6, {"idle": 2}, 1),
    audit=AuditResult(True, 0, 0, 0, 0, 5),
    stopped_early=False,
)


def test_a_run_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = write_run(tmp_path, RUN)
    assert read_result(path) == read_result(tmp_path) == RUN
    assert [each.name for each in tmp_path.iterdir()] == ["run.json"]


def test_the_file_has_the_documented_keys(tmp_path: Path) -> None:
    run = json.loads(write_run(tmp_path, RUN).read_text())
    assert list(run) == [
        "schema", "kind", "started_at", "commit", "seed", "machine", "config", "strategy",
        "orders", "throughput", "latency_ms", "batches", "audit", "stopped_early",
        "payments", "timeline", "repeats",
    ]  # fmt: skip
    assert run["schema"] == 1
    assert {"p50", "p95", "p99", "p999", "max"} == set(run["latency_ms"])
    assert set(run["batches"]) == {
        "count", "size_mean", "size_p50", "size_max", "closed_by", "transactions",
        "waited_p50", "waited_p99", "waited_max", "by_size",
    }  # fmt: skip


def test_a_later_run_replaces_the_file(tmp_path: Path) -> None:
    write_run(tmp_path, RUN)
    other = msgspec.structs.replace(RUN, seed=8)
    write_run(tmp_path, other)
    assert read_run(tmp_path).seed == 8


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"cannot write .*run\.json: Not a directory"):
        write_run(tmp_path / "file" / "folder", RUN)


def test_a_page_stands_beside_the_run(tmp_path: Path) -> None:
    write_run(tmp_path / "new", RUN, ["# Title", "", "| a |"])
    assert (tmp_path / "new" / "README.md").read_text() == "# Title\n\n| a |\n"
    assert read_result(tmp_path / "new") == RUN


@given(st.dictionaries(st.integers(1, 50), st.integers(1, 20), max_size=20))
def test_batches_are_summarised_like_the_list_they_come_from(sizes: dict[int, int]) -> None:
    every = sorted(size for size, times in sizes.items() for _ in range(times))
    found = summarise_batches(Deltas(0, 0, 0, sizes, {"size": 1}, sizes, 1))
    assert found.count == len(every)
    assert found.size_max == (every[-1] if every else 0)
    assert found.size_p50 == (every[(len(every) - 1) // 2] if every else 0)
    assert found.size_mean == pytest.approx(sum(every) / len(every) if every else 0, abs=0.01)
    assert (found.waited_p50, found.waited_max) == (found.size_p50, found.size_max)
    assert found.waited_p99 == (every[-(-99 * len(every) // 100) - 1] if every else 0)
