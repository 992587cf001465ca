"""Every command in README.md runs as it stands there and prints what README says it prints.

Blocks run from top to bottom in one folder, as a reader would type them:

    console   `$ command` lines, continued by a backslash; the other lines are sample output
    sh        a script
    python    a program, run as a file; a `text` block after it is its sample output

Sample output is compared line by line, in order, apart from numbers and spacing; a line `...`
stands for any lines, and `'...'` for any text.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from engine.testing.nats_server import NatsServer
from engine.testing.ports import HeldPort
from tests.architecture.source_tree import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")

# They would run these tests within themselves, or for minutes; continuous integration runs them.
NOT_RUN_HERE = ["make demo", "make cluster-demo", "make test", "make bench"]

COMMAND_SECONDS_MAX = 240
START_SECONDS_MAX = 60

SERVICE = "seckill serve"
READERS_PORTS = ("8080", "8081")
"""`seckill serve` runs in a terminal of its own, on ports that the tests choose."""

CLUSTER = "--config configs/cluster.toml"
"""Commands of a cluster are run together: three of its processes are up at a time."""

READERS_DATABASE = "10.0.0.20:3306/seckill"
READERS_ENGINE = "engine-1"

READERS_SERVER = "mysql://seckill:secret@127.0.0.1:3306/seckill"
"""Where README finds a server; the tests have one of their own."""

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
NUMBER = re.compile(r"\d[\d,.]*")
LINK = re.compile(r"\]\(([^)#:]+)\)")
TEST_ID = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")
CODE_PATH = re.compile(r"`((?:engine|configs|docs|loadtest|tests)/[\w./]+)`")


class Step(NamedTuple):
    """One thing a reader runs, and the output README shows for it (empty: none is shown)."""

    kind: str
    code: str
    sample: str


def steps(markdown: str) -> list[Step]:
    """Every command, script and program of the blocks, in order."""
    found: list[Step] = []
    for kind, body in FENCE.findall(markdown):
        if kind == "console":
            found += console_steps(body)
        elif kind in ("sh", "python"):
            found.append(Step(kind, body, ""))
        elif kind == "text":
            found[-1] = found[-1]._replace(sample=body)
    return found


def console_steps(body: str) -> list[Step]:
    found: list[Step] = []
    continued = False
    for line in body.splitlines():
        if line.startswith("$ "):
            found.append(Step("console", line[2:], ""))
        elif continued:
            found[-1] = found[-1]._replace(code=f"{found[-1].code}\n{line}")
        else:
            found[-1] = found[-1]._replace(sample=f"{found[-1].sample}{line}\n")
        continued = line.endswith("\\")
    return found


def shape(line: str) -> str:
    """A line without what differs from run to run: numbers, widths, generated ids, a mark of the best."""
    words = NUMBER.sub("0", re.sub(r"'[0-9a-f]{32}'", "'...'", line)).split()
    return " ".join(word for word in words if word != "*")


def missing_line(sample: str, output: str) -> str | None:
    """The first line of `sample` that `output` does not hold, in order; None when it has all."""
    printed = iter([shape(line) for line in output.splitlines()])
    for line in sample.splitlines():
        if line != "..." and shape(line) not in printed:
            return line
    return None


def environment() -> dict[str, str]:
    # The folder's own .venv is what README puts on the path; here the tests' interpreter has it.
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", "")))
    return {**os.environ, "PATH": path, "COLUMNS": "100", "PYTHONIOENCODING": "utf-8"}


def run(
    step: Step, folder: Path, settings: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    command = ["sh", "-e", "-c", step.code]
    if step.kind == "python":
        program = folder / "example.py"
        program.write_text(step.code, encoding="utf-8")
        command = [sys.executable, program.name]
    return subprocess.run(
        command,
        cwd=folder,
        env=environment() | dict(settings or {}),
        capture_output=True,
        encoding="utf-8",
        timeout=COMMAND_SECONDS_MAX,
        check=False,
    )


@contextmanager
def serving(
    step: Step,
    folder: Path,
    ports: tuple[str, ...],
    settings: Mapping[str, str] | None = None,
    path: str = "/healthz",
) -> Iterator[None]:
    """Run `seckill serve` for the block, as in a terminal of its own, and end it by Ctrl-C.

    `path` of the operator's listener answers 200 once it is up.
    """
    names = ("SECKILL_SERVICE__PORT", "SECKILL_SERVICE__ADMIN_PORT")
    with (folder / f"serve-{ports[0]}.log").open("w+", encoding="utf-8") as log:
        process = subprocess.Popen(
            ["sh", "-c", f"exec {step.code}"],
            cwd=folder,
            env=environment() | dict(zip(names, ports, strict=True)) | dict(settings or {}),
            stdout=log,
            stderr=subprocess.DEVNULL,
        )
        try:
            asked = ["curl", "-sf", "--retry", str(START_SECONDS_MAX), "--retry-all-errors"]
            asked += ["--retry-delay", "1", f"http://127.0.0.1:{ports[1]}{path}"]
            subprocess.run(asked, check=True, capture_output=True)
            yield
            process.send_signal(signal.SIGINT)
            assert process.wait(START_SECONDS_MAX) == 0
            log.seek(0)
            assert missing_line(step.sample, log.read()) is None
        finally:
            process.kill()
            process.wait()


@pytest.fixture
def ports() -> Iterator[tuple[str, str]]:
    """Of buyers and of the operator, for `seckill serve`."""
    with two_ports() as found:
        yield found


@contextmanager
def two_ports() -> Iterator[tuple[str, str]]:
    held = (HeldPort(), HeldPort())
    yield str(held[0].number), str(held[1].number)
    for each in held:
        each.release()


# Every command has a limit of its own.
@pytest.mark.timeout(0)
def test_every_command_of_the_readme_runs_and_prints_what_it_shows(
    tmp_path: Path, mariadb_url: str, ports: tuple[str, str]
) -> None:
    for name in ("configs", "loadtest"):
        (tmp_path / name).symlink_to(ROOT / name)
    readme = README.replace(READERS_SERVER, mariadb_url)
    for readers, own in zip(READERS_PORTS, ports, strict=True):
        readme = readme.replace(f"127.0.0.1:{readers}", f"127.0.0.1:{own}")
    found = [step for step in steps(readme) if CLUSTER not in step.code]
    served = next(number for number, step in enumerate(found) if step.code == SERVICE)
    asking = [
        number for number, step in enumerate(found) if any(each in step.code for each in ports)
    ]
    for step in found[:served]:
        check(step, tmp_path)
    with serving(found[served], tmp_path, ports):
        for step in found[served + 1 : asking[-1] + 1]:
            check(step, tmp_path)
    for step in found[asking[-1] + 1 :]:
        check(step, tmp_path)


def test_the_commands_of_a_cluster_run_and_print_what_they_show(
    tmp_path: Path, mariadb_url: str, nats: NatsServer
) -> None:
    """The file as it is, with the brokers and the database of the tests in the environment."""
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    settings = {
        "SECKILL_STORE__URL": mariadb_url,
        "SECKILL_CLUSTER__SERVERS": json.dumps(nats.urls),
        "SECKILL_CLUSTER__MONITOR_URLS": json.dumps(nats.monitor_urls),
        "SECKILL_CLUSTER__REPLICAS": "1",
    }
    readme = README.replace(READERS_DATABASE, mariadb_url.rpartition("@")[2])
    found = [step for step in steps(readme) if CLUSTER in step.code]
    prepare, engine, gateway, look = found
    assert ("--role engine" in engine.code, "--role gateway" in gateway.code) == (True, True)
    check(prepare, tmp_path, settings)
    engine_settings = settings | {"SECKILL_CLUSTER__NODE": READERS_ENGINE}
    with (
        two_ports() as first,
        two_ports() as second,
        serving(engine, tmp_path, first, engine_settings, "/readyz"),
        serving(gateway, tmp_path, second, settings, "/readyz"),
    ):
        check(look, tmp_path, settings)


def check(step: Step, folder: Path, settings: Mapping[str, str] | None = None) -> None:
    """Run one step and compare what it prints."""
    if step.code in NOT_RUN_HERE:
        return
    done = run(step, folder, settings)
    assert done.returncode == 0, f"{step.code}\n{done.stdout}\n{done.stderr}"
    line = missing_line(step.sample, done.stdout)
    assert line is None, f"{step.code}\ndoes not print\n{line}\nbut\n{done.stdout}"


def test_only_the_listed_commands_are_left_out() -> None:
    assert [step.code for step in steps(README) if step.code.startswith("make")] == NOT_RUN_HERE
    targets = re.findall(
        r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert [each for each in NOT_RUN_HERE if each.removeprefix("make ") not in targets] == []


def test_every_kind_of_block_is_found() -> None:
    kinds = [step.kind for step in steps(README)]
    assert len(kinds) >= 12
    assert set(kinds) == {"console", "sh", "python"}
    # A block of another kind would be shown to the reader and never run.
    assert {kind for kind, _ in FENCE.findall(README)} == {
        "",
        "console",
        "sh",
        "python",
        "text",
        "sql",
    }


@pytest.mark.parametrize(
    ("sample", "output", "missing"),
    [
        ("sold 3\n", "sold   1,204.5  \n", None),
        ("a\n...\nc\n", "a\nb\nc\n", None),
        ("a\nb\n", "b\na\n", "b"),
        ("audit passed\n", "audit failed\n", "audit passed"),
        ("id '...'\n", f"id '{'0f' * 16}'\n", None),
    ],
)
def test_sample_output_is_compared(sample: str, output: str, missing: str | None) -> None:
    assert missing_line(sample, output) == missing


def test_every_file_the_documentation_names_exists() -> None:
    documents = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    missing = []
    for document in documents:
        text = document.read_text(encoding="utf-8")
        places = [document.parent / name for name in LINK.findall(text)]
        places += [ROOT / name for name in CODE_PATH.findall(text)]
        missing += [f"{document.name}: {place}" for place in places if not place.exists()]
    assert len(documents) >= 10
    assert missing == []


def test_every_test_that_guards_a_promise_exists() -> None:
    named = TEST_ID.findall((ROOT / "docs" / "guarantees.md").read_text(encoding="utf-8"))
    files = {path: (ROOT / path).read_text(encoding="utf-8") for path, _ in named}
    assert len(named) >= 7
    assert [
        f"{path}::{name}"
        for path, name in named
        if re.search(rf"^(?:async )?def {name}\(", files[path], re.MULTILINE) is None
    ] == []
