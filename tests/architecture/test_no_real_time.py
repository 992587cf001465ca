"""Tests wait for events, never for time: a sleeping test is slow on one machine, flaky on another."""

from __future__ import annotations

import ast

import pytest

from tests.architecture.source_tree import modules


def real_sleeps(path: str, tree: ast.Module) -> list[str]:
    """Name every `time.sleep`, and every `asyncio.sleep` of a positive literal.

    A bare `sleep` counts as well; `clock.sleep(5)` on a virtual clock does not.
    """
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == "time":
            if any(name.name == "sleep" for name in node.names):
                found.append(f"{path}:{node.lineno} imports time.sleep")
        elif isinstance(node, ast.Attribute) and _is_attribute(node, "time", "sleep"):
            found.append(f"{path}:{node.lineno} uses time.sleep")
        elif isinstance(node, ast.Call) and _is_sleep(node.func) and _is_positive(node):
            found.append(f"{path}:{node.lineno} sleeps for real")
    return found


def test_no_test_sleeps() -> None:
    tests = [(path, tree) for path, tree in modules() if path.startswith("tests/")]
    assert tests
    assert [each for path, tree in tests for each in real_sleeps(path, tree)] == []


def test_neither_the_engine_nor_the_load_test_blocks_its_thread() -> None:
    shipped = [(path, tree) for path, tree in modules() if not path.startswith("tests/")]
    assert shipped
    blocking = [each for path, tree in shipped for each in real_sleeps(path, tree)]
    assert [each for each in blocking if "time.sleep" in each] == []


@pytest.mark.parametrize(
    "code",
    [
        "import time; time.sleep(0)",
        "import time; pause = time.sleep",
        "from time import sleep",
        "import asyncio; asyncio.sleep(0.01)",
        "import asyncio; asyncio.sleep(delay=1)",
        "from asyncio import sleep; sleep(1)",
    ],
)
def test_a_planted_sleep_is_found(code: str) -> None:
    assert len(real_sleeps("m.py", ast.parse(code))) == 1


@pytest.mark.parametrize("code", ["asyncio.sleep(0)", "asyncio.sleep(delay)", "clock.sleep(5)"])
def test_yielding_and_virtual_time_are_allowed(code: str) -> None:
    assert real_sleeps("m.py", ast.parse(code)) == []


def _is_attribute(node: ast.Attribute, owner: str, name: str) -> bool:
    return node.attr == name and isinstance(node.value, ast.Name) and node.value.id == owner


def _is_sleep(function: ast.expr) -> bool:
    if isinstance(function, ast.Name):
        return function.id == "sleep"
    # time.sleep is reported wherever it is mentioned, called or not.
    return isinstance(function, ast.Attribute) and _is_attribute(function, "asyncio", "sleep")


def _is_positive(call: ast.Call) -> bool:
    values = [*call.args[:1], *(each.value for each in call.keywords)]
    return any(
        isinstance(each, ast.Constant) and isinstance(each.value, int | float) and each.value > 0
        for each in values
    )
