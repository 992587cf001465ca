"""The detector of tests/conftest.py sees what would stop the event loop, and only that."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import apsw
import pytest
from blockbuster import BlockingError

import engine.clock
from engine.config import load_settings

BLOCKING = [
    "import os; os.listdir('.')",
    "import apsw; apsw.Connection(':memory:').execute('SELECT 1').fetchall()",
]


@pytest.mark.parametrize("code", BLOCKING)
async def test_a_blocking_call_of_the_engine_raises(code: str) -> None:
    with pytest.raises(BlockingError):
        as_engine_code(code)()


@pytest.mark.parametrize("code", BLOCKING)
async def test_the_same_call_in_a_thread_passes(code: str) -> None:
    await asyncio.to_thread(as_engine_code(code))


@pytest.mark.parametrize("code", BLOCKING)
def test_the_same_call_without_a_loop_passes(code: str) -> None:
    as_engine_code(code)()


async def test_a_test_may_look_into_a_database_itself() -> None:
    assert apsw.Connection(":memory:").execute("SELECT 1").fetchall() == [(1,)]


async def test_settings_may_be_read_on_the_loop(tmp_path: Path) -> None:
    path = tmp_path / "settings.toml"
    path.write_text("[batch]\nsize_max = 5\n")
    assert load_settings(path, environ={}).batch.size_max == 5


def as_engine_code(code: str) -> Callable[[], None]:
    """Compile `code` as if it stood in a module of the engine, which is how it is recognised."""
    body = compile(code, engine.clock.__file__, "exec")
    return lambda: exec(body, {})
