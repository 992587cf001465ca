"""Who is alive, and whose partition is whose.

Every node shows a heartbeat over the broker. For each partition all live engines are ranked by a hash of
both names (rendezvous hashing, Thaler and Ravishankar 1996), and the best of them is to own it: who comes or
goes moves only the partitions that it is best for. Two nodes that see different members may both want a
partition for a while; the database lets one of them write.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b
from typing import Final

import msgspec

from engine.clock import Clock
from engine.cluster_settings import Role
from engine.cqrs.command_side.statistics import Statistics
from engine.cqrs.event_store import Source


class Holding(msgspec.Struct, frozen=True):
    """A partition as its owner shows it. `queue_depth` commands wait in it."""

    partition: int
    epoch: int
    position: int
    source: Source
    queue_depth: int


class Heartbeat(msgspec.Struct, frozen=True):
    """`boot` is another one each time the node starts. Who is `leaving` gets no partition any more.

    With `hello` a node that has just come asks the others to show themselves at once.
    """

    node: str
    boot: str
    role: Role
    holds: tuple[Holding, ...] = ()
    leaving: bool = False
    hello: bool = False
    statistics: Statistics | None = None


_ENCODER: Final = msgspec.json.Encoder()
_DECODER: Final = msgspec.json.Decoder(Heartbeat)


def encode_heartbeat(heartbeat: Heartbeat) -> bytes:
    return _ENCODER.encode(heartbeat)


def decode_heartbeat(data: bytes) -> Heartbeat | None:
    """None for what is none, such as that of another version."""
    try:
        return _DECODER.decode(data)
    except msgspec.DecodeError:
        return None


def score(node: str, partition: int) -> int:
    return int.from_bytes(blake2b(f"{partition} {node}".encode(), digest_size=8).digest())


def best_of(nodes: Iterable[str], partition: int) -> str | None:
    """Who is to own a partition; None when there is nobody."""
    return max(nodes, key=lambda node: (score(node, partition), node), default=None)


class Members:
    """The nodes as one of them sees them. Times are seconds of the monotonic clock."""

    def __init__(self, dead_after_seconds: float, clock: Clock) -> None:
        self._dead_after = dead_after_seconds
        self._clock = clock
        self._seen: dict[str, tuple[Heartbeat, float]] = {}
        self._hearing_since = clock.monotonic()

    def heard(self, heartbeat: Heartbeat) -> None:
        self._seen[heartbeat.node] = (heartbeat, self._clock.monotonic())

    def hear_again(self) -> None:
        """The broker is reached again: nobody could be heard meanwhile, so nobody is taken for dead."""
        self._hearing_since = self._clock.monotonic()

    def stood_still(self, seconds: float) -> None:
        """Nobody was heard for so long because this process did nothing: let that time not count."""
        self._seen = {name: (each, at + seconds) for name, (each, at) in self._seen.items()}
        self._hearing_since += seconds

    def live(self) -> list[Heartbeat]:
        """Whoever was heard of late."""
        since = self._clock.monotonic() - self._dead_after
        return [each for each, at in self._seen.values() if max(at, self._hearing_since) >= since]

    def engines(self) -> list[Heartbeat]:
        """Who may own partitions."""
        return [each for each in self.live() if each.role != "gateway" and not each.leaving]

    def best(self, partition: int) -> str | None:
        return best_of((each.node for each in self.engines()), partition)

    def holder(self, partition: int) -> tuple[str, Holding] | None:
        """The live node that shows the partition as its own; the newest epoch when two do."""
        found = [
            (each.node, holding)
            for each in self.live()
            for holding in each.holds
            if holding.partition == partition
        ]
        return max(found, key=lambda each: each[1].epoch, default=None)

    def holdings(self) -> dict[int, tuple[str, Holding]]:
        """Every partition that a live node shows as its own."""
        found: dict[int, tuple[str, Holding]] = {}
        for each in self.live():
            for holding in each.holds:
                known = found.get(holding.partition)
                if known is None or known[1].epoch < holding.epoch:
                    found[holding.partition] = (each.node, holding)
        return found

    def all_seen(self) -> list[Heartbeat]:
        """The last of everybody, dead or alive."""
        return [each for each, _ in self._seen.values()]
