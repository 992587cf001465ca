"""A run's folder and store are looked at before anything is made, and cleaned up after a failure."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from engine.config import load_settings
from engine.errors import ConfigError
from engine.inventory.commands import Reserve
from engine.inventory.events import Reserved
from engine.inventory.history import HistoryWriter
from loadtest.places import (
    check_directory,
    check_history,
    choose_store_url,
    default_directory,
    made_directory,
)


def test_the_default_folder_is_the_time_in_utc() -> None:
    now = datetime(2026, 4, 1, 20, 0, 5, tzinfo=UTC)
    assert default_directory(now) == Path("runs/20260401-200005")


def test_a_new_folder_an_empty_one_and_an_interrupted_run_are_accepted(tmp_path: Path) -> None:
    check_directory(tmp_path / "a" / "b")
    check_directory(tmp_path)
    (tmp_path / "sale.db").touch()
    check_directory(tmp_path)
    assert not (tmp_path / "a").exists()


def test_a_finished_run_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "run.json").touch()
    with pytest.raises(ConfigError, match="already holds a finished run"):
        check_directory(tmp_path)


@pytest.mark.parametrize("name", ["file", "file/deeper/still"])
def test_a_file_in_the_way_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"cannot be a folder: .*file is a file"):
        check_directory(tmp_path / name)


def test_a_folder_without_permission_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Asked of the system, because the superuser may write everywhere.
    monkeypatch.setattr("os.access", lambda path, mode: False)
    with pytest.raises(ConfigError, match="no permission in"):
        check_directory(tmp_path / "new")


@pytest.mark.parametrize(
    ("flag", "config", "environ", "expected"),
    [
        (None, None, {}, "sqlite:out/sale.db"),
        ("memory:", None, {}, "memory:"),
        ("memory:", '[store]\nurl = "sqlite:x.db"', {}, "memory:"),
        (None, "[store]\npartitions = 1", {}, "sqlite:out/sale.db"),
        (None, '[store]\nurl = "sqlite:x.db"', {}, "sqlite:x.db"),
        (None, '[store]\nurl = "sqlite:seckill.db"', {}, "sqlite:seckill.db"),
        (None, None, {"SECKILL_STORE__URL": "sqlite:env.db"}, "sqlite:env.db"),
    ],
)
def test_the_flag_wins_then_a_named_url_then_the_folder(
    tmp_path: Path, flag: str | None, config: str | None, environ: dict[str, str], expected: str
) -> None:
    path = None
    if config is not None:
        path = tmp_path / "config.toml"
        path.write_text(config)
    settings = load_settings(path, environ=environ)
    assert choose_store_url(flag, path, settings, Path("out")) == expected


def test_a_folder_made_for_a_run_stays_when_it_succeeds(tmp_path: Path) -> None:
    with made_directory(tmp_path / "a" / "b"):
        assert (tmp_path / "a" / "b").is_dir()
    assert (tmp_path / "a" / "b").is_dir()


def test_empty_folders_made_for_a_run_go_when_it_fails(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no"), made_directory(tmp_path / "a" / "b"):
        raise ConfigError("no")
    assert list(tmp_path.iterdir()) == []


def test_what_a_failed_run_wrote_stays(tmp_path: Path) -> None:
    def fail_after_writing() -> None:
        with made_directory(tmp_path / "a" / "b"):
            (tmp_path / "a" / "b" / "sale.db").touch()
            raise ConfigError("no")

    with pytest.raises(ConfigError, match="no"):
        fail_after_writing()
    assert (tmp_path / "a" / "b" / "sale.db").exists()


def test_a_folder_that_was_there_stays_when_the_run_fails(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no"), made_directory(tmp_path):
        raise ConfigError("no")
    assert tmp_path.is_dir()


def noted(path: Path) -> Path:
    order = Reserve("c1", "SKU-1", "bob", 1)
    writer = HistoryWriter(path)
    writer.invoke([order])
    writer.answered("c1", Reserved("c1", "bob", 1))
    writer.close()
    return path


def test_a_new_history_may_lie_in_the_new_folder_or_an_existing_one(tmp_path: Path) -> None:
    new = tmp_path / "new"
    check_history(new / "history.jsonl", new, "memory:")
    check_history(tmp_path / "history.jsonl", new, "memory:")
    assert list(tmp_path.iterdir()) == []


def test_the_history_of_earlier_runs_goes_with_their_store_only(tmp_path: Path) -> None:
    history, store = noted(tmp_path / "history.jsonl"), tmp_path / "sale.db"
    with pytest.raises(ConfigError, match="acknowledged by another store"):
        check_history(history, tmp_path, f"sqlite:{store}")
    with pytest.raises(ConfigError, match="acknowledged by another store"):
        check_history(history, tmp_path, "memory:")
    store.touch()
    check_history(history, tmp_path, f"sqlite:{store}")


def test_a_history_that_cannot_be_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is a folder; name a file"):
        check_history(tmp_path, tmp_path, "memory:")
    with pytest.raises(ConfigError, match="there is no folder"):
        check_history(tmp_path / "none" / "h.jsonl", tmp_path, "memory:")
    (tmp_path / "notes.txt").write_text("not a history\n")
    with pytest.raises(ConfigError, match=r"notes\.txt"):
        check_history(tmp_path / "notes.txt", tmp_path, "memory:")
