"""The counters of all engines together, for a gateway's figures."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec

from engine.cluster.membership import Members
from engine.cqrs.command_side.batch import BatchLimits
from engine.cqrs.command_side.statistics import Counters, Statistics

TOLD_HERE: Final = ("overloaded", "expired", "unknown", "unserved")


class Totals:
    """Sums what the engines show. What an engine counted stays in the sum when it is gone.

    One that was silent for an hour and comes back is counted twice: `Members` has forgotten it.
    """

    def __init__(self, members: Members) -> None:
        self._members = members
        self._of_boot: dict[tuple[str, str], Statistics] = {}
        self._gone = Counters().snapshot(0, 0, 0)

    def sum(self, queue_depth: int, told: Counters) -> Statistics:
        """Everything; `queue_depth` commands wait here.

        What was `told` here counts for what it says: an engine counts the same commands when they
        expire in its own queue, and who is told nothing by it is told here.
        """
        seen = self._members.all_seen()
        for each in seen:
            if each.statistics is not None:
                self._of_boot[each.node, each.boot] = each.statistics
        for boot in self._of_boot.keys() - {(each.node, each.boot) for each in seen}:
            self._gone = _sum([self._gone, _only_counts(self._of_boot.pop(boot))])
        live = {(each.node, each.boot) for each in self._members.live()}
        shown = (
            each if boot in live else _only_counts(each) for boot, each in self._of_boot.items()
        )
        return msgspec.structs.replace(
            _sum([Counters().snapshot(queue_depth, 0, 0), self._gone, *shown]),
            **{name: getattr(told, name) for name in TOLD_HERE},
        )


def _only_counts(statistics: Statistics) -> Statistics:
    return msgspec.structs.replace(
        statistics, queue_depth=0, residents=0, halted=0, batch_limits={}
    )


def _sum(many: Iterable[Statistics]) -> Statistics:
    total: dict[str, Any] = {}
    for each in many:
        for name, value in msgspec.structs.asdict(each).items():
            total[name] = _add(total[name], value) if name in total else value
    return Statistics(**total)


def _add(one: Any, other: Any) -> Any:
    if isinstance(one, Mapping):
        # Limits of a partition that is shown twice, as it goes from one to the other, do not add up.
        return {**one, **other, **{key: _add(one[key], other[key]) for key in _counts(one, other)}}
    return one + other


def _counts(one: Mapping[Any, Any], other: Mapping[Any, Any]) -> list[Any]:
    return [key for key in one.keys() & other.keys() if not isinstance(one[key], BatchLimits)]
