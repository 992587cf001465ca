"""The project's own files, for the tests that read them."""

from __future__ import annotations

import ast
import subprocess
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("engine", "loadtest", "tests")
# Without git (an unpacked archive), these are not the project's own.
FOREIGN_FOLDERS = frozenset({"__pycache__", "build", "dist", "runs"})


@cache
def project_files() -> tuple[Path, ...]:
    """Every file that is or could be committed, sorted."""
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=False,
    )
    if listing.returncode == 0:
        paths = [ROOT / name for name in listing.stdout.decode().split("\0") if name]
    else:
        paths = [path for path in ROOT.rglob("*") if not _is_foreign(path)]
    return tuple(sorted(path for path in paths if path.is_file()))


@cache
def text_files() -> tuple[tuple[str, str], ...]:
    """(path from the root, text) of every project file that is UTF-8."""
    found = []
    for path in project_files():
        try:
            found.append((path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8")))
        except UnicodeDecodeError:
            continue
    return tuple(found)


@cache
def modules() -> tuple[tuple[str, ast.Module], ...]:
    """(path from the root, syntax tree) of every Python file of ours."""
    return tuple(
        (path, ast.parse(text, path))
        for path, text in text_files()
        if path.endswith(".py") and path.split("/")[0] in PACKAGES
    )


def _is_foreign(path: Path) -> bool:
    folders = path.relative_to(ROOT).parts[:-1]
    return any(part.startswith(".") and part != ".ci" for part in folders) or bool(
        FOREIGN_FOLDERS.intersection(folders)
    )
