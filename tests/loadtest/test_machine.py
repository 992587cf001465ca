"""A machine is described without naming it."""

from __future__ import annotations

import platform
import subprocess
from pathlib import Path

import msgspec
import pytest

from engine.cqrs.event_store import StoreInfo
from loadtest import machine
from loadtest.machine import describe_machine, source_commit

STORE = StoreInfo("sqlite", "3.54.1", "full", "sqlite:secret/folder/sale.db")


def test_the_machine_and_its_store_are_described_without_host_and_path() -> None:
    found = describe_machine(STORE)
    text = msgspec.json.encode(found).decode()
    assert (found.store, found.store_version, found.durability) == ("sqlite", "3.54.1", "full")
    assert found.cores >= 1
    assert found.memory_gib > 0
    assert platform.python_version() in found.python
    assert "secret" not in text
    assert f'"{platform.node()}"' not in text


def test_without_cpuinfo_the_processor_is_still_named(tmp_path: Path) -> None:
    assert machine._cpu_model(tmp_path / "none")


def test_the_commit_of_a_checkout_is_told_with_its_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "project" / "loadtest" / "machine.py"
    source.parent.mkdir(parents=True)
    source.write_text("one\n")
    monkeypatch.setattr(machine, "__file__", str(source))
    root = source.parent.parent

    def git(*arguments: str) -> None:
        who = ["-c", "user.name=a", "-c", "user.email=a@example.com"]
        subprocess.run(["git", *who, *arguments], cwd=root, check=True, capture_output=True)

    assert source_commit() == "unknown"
    git("init")
    assert source_commit() == "unknown"
    git("add", ".")
    git("commit", "-m", "one", "--no-verify", "--no-gpg-sign")
    commit = source_commit()
    assert len(commit) == 40
    source.write_text("two\n")
    assert source_commit() == f"{commit}+dirty"


def test_a_checkout_around_an_installed_package_is_not_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    subprocess.run(["git", "init"], cwd=tmp_path, check=True, capture_output=True)
    source = tmp_path / "site-packages" / "loadtest" / "machine.py"
    source.parent.mkdir(parents=True)
    monkeypatch.setattr(machine, "__file__", str(source))
    assert source_commit() == "unknown"


def test_without_git_the_commit_is_unknown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert source_commit() == "unknown"


def test_two_trees_that_differ_from_one_commit_are_told_apart(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def state(changes: str) -> str:
        answers = {"rev-parse": "abc", "status": " M file", "diff": changes}
        monkeypatch.setattr(machine, "source_commit", lambda: "abc+dirty")
        monkeypatch.setattr(machine, "_git", lambda _root, command, *_: answers[command])
        return machine.source_state()

    assert state("one") == state("one") != state("two")
    assert state("one").startswith("abc+dirty-")
