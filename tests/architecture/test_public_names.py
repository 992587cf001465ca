"""What `import engine` offers, and what it costs."""

from __future__ import annotations

import json
import subprocess
import sys
from types import ModuleType

import pytest

import engine


def test_public_names_are_listed_in_order_and_once() -> None:
    assert engine.__all__ == sorted(set(engine.__all__))


def test_every_public_name_is_listed_and_every_listed_name_exists() -> None:
    bound = {
        name
        for name, value in vars(engine).items()
        if not name.startswith("_") and name != "annotations" and not isinstance(value, ModuleType)
    }
    assert bound == set(engine.__all__)


@pytest.mark.parametrize("package", ["apsw", "numpy", "rich", "sqlite3", "typer"])
def test_importing_the_engine_loads_no_driver_and_no_tool(
    package: str, loaded_by_engine: frozenset[str]
) -> None:
    assert package not in loaded_by_engine


@pytest.fixture(scope="module")
def loaded_by_engine() -> frozenset[str]:
    """Top-level modules in a fresh interpreter after `import engine`."""
    script = "import engine, json, sys; sys.stdout.write(json.dumps(list(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    loaded = frozenset(json.loads(done.stdout))
    assert "engine" in loaded
    return loaded
