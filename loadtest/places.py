"""Where a run lives: its folder and its store. Looks before anything is created."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from engine.config import Settings
from engine.errors import ConfigError
from engine.inventory.history import read_history
from engine.store_settings import StoreSettings
from loadtest.results import RUN_FILE

STORE_FILE = "sale.db"


def default_directory(now: datetime | None = None) -> Path:
    """A folder named by the time in UTC, such as runs/20260401-200000."""
    return Path("runs") / (now or datetime.now(UTC)).strftime("%Y%m%d-%H%M%S")


def check_directory(directory: Path) -> None:
    """Raise ConfigError unless a run may be written to `directory`, which need not exist."""
    if (directory / RUN_FILE).exists():
        raise ConfigError(
            f"{directory} already holds a finished run ({RUN_FILE}); choose another --out, "
            "or remove the folder"
        )
    place = directory
    while not place.exists() and place != place.parent:
        place = place.parent
    if not place.is_dir():
        raise ConfigError(f"--out {directory} cannot be a folder: {place} is a file")
    if not os.access(place, os.W_OK | os.X_OK):
        raise ConfigError(f"--out {directory} cannot be written: no permission in {place}")


def check_history(history: Path, directory: Path, store_url: str) -> None:
    """Raise ConfigError unless this run may note its orders in `history`.

    It is a new file in an existing folder or in `directory`, or the history of earlier runs on the
    same store: against a new store, everything noted in it would be lost.
    """
    if history.is_dir():
        raise ConfigError(f"--history {history} is a folder; name a file")
    if history.parent.resolve() != directory.resolve():
        if not history.parent.is_dir():
            raise ConfigError(f"--history {history}: there is no folder {history.parent}")
        if not os.access(history if history.exists() else history.parent, os.W_OK):
            raise ConfigError(f"--history {history} cannot be written: no permission")
    if not history.exists() or history.stat().st_size == 0:
        return
    noted = read_history(history).orders.values()
    kind, _, path = store_url.partition(":")
    is_new = kind == "memory" or (kind == "sqlite" and not Path(path).exists())
    if is_new and any(order.answer == "ok" for order in noted):
        raise ConfigError(
            f"--history {history} holds orders acknowledged by another store than {store_url}, "
            "which is new; name another file"
        )


def choose_store_url(flag: str | None, config: Path | None, found: Settings, out: Path) -> str:
    """The flag wins, then a url that the config file or the environment names, then the folder.

    `found` are the settings without the flag.
    """
    if flag is not None:
        return flag
    if found.store.urls:
        raise ConfigError("this measures a store of one database: give store.url or --store-url")
    if found.store.url != StoreSettings().url or (config is not None and _names_url(config)):
        return found.store.url
    return f"sqlite:{out / STORE_FILE}"


def _names_url(config: Path) -> bool:
    # The file was read and checked before; only whether the key is there is of interest.
    return "url" in tomllib.loads(config.read_text(encoding="utf-8")).get("store", {})


@contextmanager
def made_directory(directory: Path) -> Iterator[None]:
    """Create `directory` for the block, and leave no empty folder behind when the block fails."""
    created: list[Path] = []
    place = directory
    while not place.exists():
        created.append(place)
        place = place.parent
    try:
        try:
            directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"--out {directory} cannot be created: {error.strerror}") from None
        yield
    except BaseException:
        with suppress(OSError):
            for place in created:
                place.rmdir()
        raise
