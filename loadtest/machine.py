"""On what a figure was measured: written beside every figure. No host names, no paths."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
from pathlib import Path

import msgspec

from engine.cqrs.event_store import StoreInfo

UNKNOWN = "unknown"

_GIT_SECONDS_MAX = 5
"""A commit id is a label; a slow file system must not hold a run up for it."""


class Machine(msgspec.Struct, frozen=True):
    """The machine and the store on it. `memory_gib` is what the system sees, in GiB."""

    cpu: str
    cores: int
    memory_gib: float
    kernel: str
    python: str
    store: str
    store_version: str
    durability: str

    @property
    def line(self) -> str:
        """All of it in one line, for reports."""
        return (
            f"{self.cores} x {self.cpu}, {self.memory_gib:g} GiB, {self.kernel}, {self.python}; "
            f"{self.store} {self.store_version}, {self.durability}."
        )


def describe_machine(store: StoreInfo) -> Machine:
    """Read the machine's own description."""
    return Machine(
        cpu=_cpu_model(Path("/proc/cpuinfo")),
        cores=_usable_cores(),
        memory_gib=_memory_gib(),
        kernel=f"{platform.system()} {platform.release()}",
        python=f"{platform.python_implementation()} {platform.python_version()}",
        store=store.kind,
        store_version=store.version,
        durability=store.durability,
    )


def load_average() -> float:
    """Of the last minute: what else the cores had to do. 0 where the system does not tell."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else 0.0


def source_commit() -> str:
    """The git commit of this source, `+dirty` when files differ, or "unknown".

    Installed as a package it is unknown, also when some other project's checkout is around it.
    """
    root = Path(__file__).resolve().parent.parent
    top = _git(root, "rev-parse", "--show-toplevel")
    if top is None or Path(top) != root:
        return UNKNOWN
    commit = _git(root, "rev-parse", "--verify", "HEAD")
    if commit is None:
        return UNKNOWN
    changes = _git(root, "status", "--porcelain", "--untracked-files=no")
    return commit if changes == "" else f"{commit}+dirty"


def source_state() -> str:
    """The commit, and a digest of how tracked files differ from it: two trees are not taken for one."""
    commit = source_commit()
    if not commit.endswith("+dirty"):
        return commit
    changes = _git(Path(__file__).resolve().parent.parent, "diff", "HEAD") or ""
    return f"{commit}-{hashlib.sha256(changes.encode()).hexdigest()[:12]}"


def short_commit(commit: str) -> str:
    """Twelve digits of a commit, and that files differed from it."""
    name, dirty, _ = commit.partition("+")
    return name[:12] + ("+dirty" if dirty else "")


def _git(root: Path, *arguments: str) -> str | None:
    command = ["git", "--no-optional-locks", "-C", str(root), *arguments]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_GIT_SECONDS_MAX, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _cpu_model(cpuinfo: Path) -> str:
    try:
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    for line in lines:
        key, _, value = line.partition(":")
        if key.strip() in ("model name", "Model", "cpu model"):
            return value.strip()
    return platform.processor() or platform.machine() or UNKNOWN


def _usable_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _memory_gib() -> float:
    try:
        size = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return 0.0
    return round(size / 2**30, 1)
