"""Read a published result of any kind back: a run.json, or the folder that holds one."""

from __future__ import annotations

from pathlib import Path
from typing import Final, TypeAlias

import msgspec

from engine.errors import ConfigError
from loadtest.results import RUN_FILE, SCHEMA, Run
from loadtest.strategies.report import StrategiesRun
from loadtest.tuning.report import TuneRun

Result: TypeAlias = Run | TuneRun | StrategiesRun

TYPES: Final[dict[str, type[Result]]] = {
    "simulate": Run,
    "locust": Run,
    "tune": TuneRun,
    "strategies": StrategiesRun,
}
"""Of a run.json by its `kind`."""


class _Head(msgspec.Struct):
    schema: int
    kind: str


def read_result(path: Path) -> Result:
    """Read a run.json, or the one in the folder `path`. Raises ConfigError naming what is wrong."""
    try:
        if path.is_dir():
            path = path / RUN_FILE
        data = path.read_bytes()
    except OSError as error:
        if (path.parent / "tune.jsonl").exists():
            raise ConfigError(
                f"{path.parent} holds an experiment that is not finished: give the same `seckill tune` "
                "command again to go on with it"
            ) from None
        raise ConfigError(f"cannot read {path}: {error.strerror}") from None
    try:
        head = msgspec.json.decode(data, type=_Head)
        if head.schema != SCHEMA:
            raise ConfigError(
                f"{path} has schema {head.schema} and this program reads schema {SCHEMA}"
            )
        if head.kind not in TYPES:
            raise ConfigError(
                f"{path} is a result of kind {head.kind[:40]!r}; these can be read: {', '.join(TYPES)}"
            )
        return msgspec.json.decode(data, type=TYPES[head.kind])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"{path} is not a result of a run: {error}") from None
