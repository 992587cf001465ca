"""What the service itself counts: replies by status, connections, what the limits closed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from engine.gate.gate import Gate
from engine.service.door import Door


class Tally:
    def __init__(self, gate: Gate | None) -> None:
        self.replies: Counter[int] = Counter()
        self.gate = gate
        self.doors: Sequence[Door] = ()

    def connections(self) -> int:
        return sum(each.connections for each in self.doors)

    def closed_by_limit(self) -> Mapping[str, int]:
        found: Counter[str] = Counter()
        for door in self.doors:
            found.update(door.closed)
        return found
