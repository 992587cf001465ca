"""The tree names no machine, no package registry and no work left undone."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from tests.architecture.source_tree import ROOT, text_files

# Folders that differ from machine to machine; /usr/bin/env and /dev/null are everywhere.
MACHINE_PATH = re.compile(
    r"(?<![\w.~$})])/(?:Users|builds|home|mnt|opt|root|srv|tmp|var/folders|workspaces?)/[\w.-]+"
)
REGISTRY_HOST = re.compile(
    r"\b(?:[\w-]+\.)*(?:artifactory|codeartifact|devpi|jfrog|nexus|pypi|pythonhosted)"
    r"(?:\.[\w-]+)*\.(?:cloud|com|dev|internal|io|lan|local|net|org)\b",
    re.IGNORECASE,
)
# The brackets keep the pattern from matching this file.
UNDONE = re.compile(r"\b(?:FIXM[E]|HAC[K]|TOD[O]|XX[X])\b")


def mentions(pattern: re.Pattern[str]) -> list[str]:
    """Every match in the tree, as path:line text."""
    return [
        f"{path}:{number} {match.group()}"
        for path, text in text_files()
        for number, line in enumerate(text.splitlines(), start=1)
        for match in pattern.finditer(line)
    ]


def test_the_whole_tree_is_read() -> None:
    paths = {path for path, _ in text_files()}
    assert {"Makefile", "engine/__init__.py", "pyproject.toml", "requirements.lock"} <= paths


def test_no_file_holds_an_absolute_path_of_a_machine() -> None:
    assert mentions(MACHINE_PATH) == []


def test_no_file_holds_a_path_of_this_machine() -> None:
    # A path of one part, such as a container's /app, is too short to tell from ordinary text.
    here = {path for path in (ROOT, Path.home(), Path(sys.base_prefix)) if len(path.parts) > 2}
    own = [path for path in here if not path.is_relative_to("/usr")]
    assert [each for path in own for each in mentions(re.compile(re.escape(str(path))))] == []


def test_no_file_names_a_package_registry() -> None:
    assert mentions(REGISTRY_HOST) == []


def test_the_lock_holds_pinned_requirements_with_hashes_and_nothing_else() -> None:
    lines = (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
    pin = re.compile(r"[a-z0-9-]+==[\w.]+(?: ; [\w\s.'!<>=()]+)? \\")
    digest = re.compile(r"    --hash=sha256:[0-9a-f]{64}(?: \\)?")
    assert any(pin.fullmatch(line) for line in lines)
    assert [line for line in lines if not pin.fullmatch(line) and not digest.fullmatch(line)] == []


def test_no_work_is_marked_as_left_undone() -> None:
    assert mentions(UNDONE) == []


# Put together from pieces, so that this file holds no mention itself.
@pytest.mark.parametrize(
    ("pattern", "pieces"),
    [
        (MACHINE_PATH, ("sqlite:", "/tmp", "/sale.db")),
        (MACHINE_PATH, ('open("', "/home", '/someone/x")')),
        (REGISTRY_HOST, ("https://files.python", "hosted.org/packages")),
        (REGISTRY_HOST, ("https://py", "pi.corp.example", ".com/sim", "ple")),
        (UNDONE, ("# TO", "DO: later")),
    ],
)
def test_a_planted_mention_is_found(pattern: re.Pattern[str], pieces: tuple[str, ...]) -> None:
    assert pattern.search("".join(pieces))


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        (MACHINE_PATH, "#!/usr/bin/env bash"),
        (MACHINE_PATH, "POST /v1/skus/{sku}/reservations"),
        (MACHINE_PATH, "$(ROOT)/tmp/x"),
        (REGISTRY_HOST, "https://example.com/pypi"),
        (UNDONE, "unhackable"),
    ],
)
def test_ordinary_text_is_not(pattern: re.Pattern[str], text: str) -> None:
    assert not pattern.search(text)
