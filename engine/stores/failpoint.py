"""Named places inside a store's `append` where a test makes it fail or die.

Every store calls its failpoint just after the step of that name, and at "before-commit" and
"after-commit" on either side of COMMIT. "insert" comes at least once in a transaction with
commits, "change" for every row change. A store with threads calls it on the thread that writes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

Failpoint: TypeAlias = Callable[[str], None]

STEPS_BEFORE_COMMIT = ("begin", "fence", "insert", "change", "before-commit")
"""A failure at one of these means that nothing was written."""

AFTER_COMMIT = "after-commit"
"""A failure here leaves the outcome unknown to the caller, although everything was written."""


def no_failpoint(step: str) -> None:
    """Do nothing: the failpoint of every store that is not under test."""
