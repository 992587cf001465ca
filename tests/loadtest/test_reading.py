"""Every kind of run.json is read as what it is, and refused with a reason when it is not one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from engine.errors import ConfigError
from loadtest.reading import TYPES, read_result
from loadtest.results import encode_run
from tests.architecture.source_tree import ROOT
from tests.loadtest.test_results import RUN

RESULTS = ROOT / "results"
PUBLISHED = sorted(path for path in RESULTS.iterdir() if path.is_dir())


@pytest.mark.parametrize("folder", PUBLISHED, ids=lambda path: path.name)
def test_every_published_result_is_read_or_refused_by_its_kind(folder: Path) -> None:
    kind = json.loads((folder / "run.json").read_bytes())["kind"]
    if kind in TYPES:
        result = read_result(folder)
        assert (type(result), result.kind) == (TYPES[kind], kind)
        assert read_result(folder / "run.json") == result
    else:
        with pytest.raises(ConfigError, match=f"of kind '{kind}'; these can be read: simulate, "):
            read_result(folder)


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "is not a result of a run"),
        (b"{}", "missing required field `schema`"),
        (encode_run(RUN).replace(b'"schema": 1', b'"schema": 2'), "has schema 2 and this program"),
        (encode_run(RUN).replace(b'"accepted": 4', b'"accepted": "4"'), "at `$.orders.accepted`"),
        (encode_run(RUN)[:-40], "is not a result of a run"),
    ],
)
def test_what_is_no_run_is_refused(tmp_path: Path, content: bytes, what: str) -> None:
    path = tmp_path / "run.json"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        read_result(path)
    assert what in str(caught.value)


def test_a_missing_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read .*run\.json: No such file"):
        read_result(tmp_path)
