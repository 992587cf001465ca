"""Modules and functions stay small enough to read in one go."""

from __future__ import annotations

import ast

from tests.architecture.source_tree import modules, text_files

MODULE_LINES_MAX = 400
FUNCTION_LINES_MAX = 70


def long_functions(path: str, tree: ast.Module) -> list[str]:
    """Name every function whose body has more than FUNCTION_LINES_MAX lines, with its length.

    The signature does not count: that of a typer command is the table of its options.
    """
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.body[0].lineno + 1
            if lines > FUNCTION_LINES_MAX:
                found.append(f"{path}:{node.lineno} {node.name} has {lines} lines")
    return found


def test_no_module_is_longer_than_the_limit() -> None:
    lengths = {path: text.count("\n") for path, text in text_files() if path.endswith(".py")}
    assert {path: n for path, n in lengths.items() if n > MODULE_LINES_MAX} == {}


def test_no_function_is_longer_than_the_limit() -> None:
    assert [each for path, tree in modules() for each in long_functions(path, tree)] == []


def test_a_function_one_line_too_long_is_found_and_one_at_the_limit_is_not() -> None:
    body = "    pass\n" * FUNCTION_LINES_MAX
    assert long_functions("m.py", ast.parse(f"async def fits():\n{body}")) == []
    found = long_functions("m.py", ast.parse(f"class C:\n  async def f():\n{body}    pass"))
    assert found == [f"m.py:2 f has {FUNCTION_LINES_MAX + 1} lines"]
