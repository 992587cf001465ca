"""How often each aggregate refused, by reason, since somebody last looked. Memory only."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from typing import Final

from engine.cqrs.command_side.decide import Refused
from engine.cqrs.messages import Command
from engine.errors import StreamKey

STREAMS_MAX: Final = 65_536
"""Aggregates counted between two looks; refusals of further ones are not counted."""


class RefusalCounts:
    """First refusals of some commands for some reasons; a repeated command counts once.

    Reasons that are not asked for take no room, so names that nobody knows cannot fill it.
    """

    def __init__(
        self, commands: Collection[type[Command]], reasons: Collection[str], streams_max: int
    ) -> None:
        self._commands = frozenset(commands)
        self._reasons = frozenset(reasons)
        self._streams_max = streams_max
        self._counts: dict[StreamKey, Counter[str]] = {}
        self._totals: dict[StreamKey, Counter[str]] = {}
        self._changed: set[StreamKey] | None = None

    def add(self, stream: StreamKey, refused: Mapping[str, Refused]) -> None:
        """Count what one published batch refused, by command id."""
        commands, reasons = self._commands, self._reasons
        found = Counter(
            rejected.reason
            for command, rejected in refused.values()
            if type(command) in commands and rejected.reason in reasons
        )
        if not found:
            return
        if self._changed is not None:
            self._changed.add(stream)
        for counts in (self._counts, self._totals):
            if (own := counts.get(stream)) is not None:
                own.update(found)
            elif len(counts) < self._streams_max:
                counts[stream] = Counter(found)

    def totals(self, stream: StreamKey) -> Mapping[str, int]:
        """What one aggregate refused since the counting began, whoever drained it."""
        return self._totals.get(stream, {})

    def streams(self) -> Collection[StreamKey]:
        """Every aggregate that has totals."""
        return self._totals.keys()

    def watch(self) -> set[StreamKey]:
        """A set that every aggregate is put into whose totals change; the one who watches empties it."""
        self._changed = set()
        return self._changed

    def drain(self) -> dict[StreamKey, Counter[str]]:
        """Return the counts and begin anew."""
        counts, self._counts = self._counts, {}
        return counts
