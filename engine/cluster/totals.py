"""The counters of all engines together, for a gateway's figures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from engine.cluster.membership import Members
from engine.cqrs.command_side.statistics import Counters, Statistics


class Totals:
    """Sums what the engines show. An engine that is gone keeps what it counted."""

    def __init__(self, members: Members) -> None:
        self._members = members
        self._of_boot: dict[tuple[str, str], Statistics] = {}

    def sum(self, queue_depth: int, overloaded: int) -> Statistics:
        """Everything; `queue_depth` commands wait here, and `overloaded` were refused here."""
        for each in self._members.all_seen():
            if each.statistics is not None:
                self._of_boot[each.node, each.boot] = each.statistics
        live = {(each.node, each.boot) for each in self._members.live()}
        own = msgspec.structs.replace(Counters().snapshot(queue_depth, 0, 0), overloaded=overloaded)
        gone = (_only_counts(each) for boot, each in self._of_boot.items() if boot not in live)
        return _sum([own, *(self._of_boot[boot] for boot in live & set(self._of_boot)), *gone])


def _only_counts(statistics: Statistics) -> Statistics:
    return msgspec.structs.replace(
        statistics, queue_depth=0, residents=0, halted=0, batch_limits=()
    )


def _sum(many: Iterable[Statistics]) -> Statistics:
    total: dict[str, Any] = {}
    for each in many:
        for name, value in msgspec.structs.asdict(each).items():
            total[name] = _add(total[name], value) if name in total else value
    return Statistics(**total)


def _add(one: Any, other: Any) -> Any:
    if isinstance(one, Mapping):
        both = Counter(one)
        both.update(other)
        return dict(both)
    return one + other
