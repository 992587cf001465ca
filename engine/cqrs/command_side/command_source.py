"""The port to where a partition's commands come from, when that is a broker.

How far they are worked off is stored in the transaction that works them off, so that whoever owns the
partition next goes on from there, whatever the broker remembers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from engine.cqrs.command_side.batch import Batch
from engine.cqrs.event_store import Source


class CommandSource(Protocol):
    """Of one partition; used by its loop alone."""

    @property
    def is_due(self) -> bool:
        """Whether a mark is wanted although no batch is: somebody waits to be told."""

    def mark(self, batches: Sequence[Batch]) -> Source | None:
        """What is worked off once `batches` are; None when that is what was stored last."""

    def stored(self, source: Source) -> None:
        """`source`, the newest mark, is durable: what it covers may be told."""
