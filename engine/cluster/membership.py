"""Who is alive, and whose partition is whose.

Every node shows a heartbeat over the broker. For each partition all live engines are ranked by a hash of
both names (rendezvous hashing, Thaler and Ravishankar 1996), and the best of them is to own it: who comes or
goes moves only the partitions that it is best for. Two nodes that see different members may both want a
partition for a while; the database lets one of them write.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
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

    `store` is the identity of what it sells from. Partitions that it `cannot` own now, because it does
    not reach their database, others may take. With `hello` a node that has just come asks the others
    to show themselves at once; it is `joining`, and gets no partition, until it is ready for one.
    `started_at_ms` since 1970 UTC tells of two that have one name which is the newer one.
    """

    node: str
    boot: str
    role: Role
    holds: tuple[Holding, ...] = ()
    leaving: bool = False
    hello: bool = False
    store: str = ""
    statistics: Statistics | None = None
    cannot: tuple[int, ...] = ()
    joining: bool = False
    started_at_ms: int = 0


_ENCODER: Final = msgspec.json.Encoder()
_DECODER: Final = msgspec.json.Decoder(Heartbeat)


def encode_heartbeat(heartbeat: Heartbeat) -> bytes:
    return _ENCODER.encode(heartbeat)


def decode_heartbeat(data: bytes) -> Heartbeat | None:
    """None for what is none, such as that of another version."""
    try:
        return _DECODER.decode(data)
    except (ValueError, RecursionError):
        return None


FORGET_SECONDS: Final = 3_600.0
"""A node that is silent for so long is forgotten: names are made up, and each would stay for ever."""


def score(node: str, partition: int) -> int:
    return int.from_bytes(blake2b(f"{partition} {node}".encode(), digest_size=8).digest())


def best_of(nodes: Iterable[str], partition: int) -> str | None:
    """Who is to own a partition; None when there is nobody."""
    return max(nodes, key=lambda node: (score(node, partition), node), default=None)


def best_able(cannot: Mapping[str, Collection[int]], partition: int) -> str | None:
    """`best_of` the nodes that can own it, by what each `cannot`; of all when nobody can."""
    able = [node for node, numbers in cannot.items() if partition not in numbers]
    return best_of(able or cannot, partition)


class Members:
    """The nodes as one of them sees them.

    Who is silent for `dead_after_seconds` is dead. Only time in which something is heard counts, if only
    the own heartbeat as the broker passes it on: while the broker is away, or this process stands still,
    nobody can be heard, and whoever is not heard then is no deader than before.
    """

    def __init__(self, dead_after_seconds: float, clock: Clock) -> None:
        self._dead_after = dead_after_seconds
        # Several heartbeats fit in, by the rules of the settings at least one.
        self._gap_max = dead_after_seconds / 3
        self._clock = clock
        self._seen: dict[str, tuple[Heartbeat, float]] = {}
        self._heard_at = clock.monotonic()
        self._seconds = 0.0

    @property
    def silent_seconds(self) -> float:
        """How long nothing at all was heard."""
        return self._clock.monotonic() - self._heard_at

    def hears(self) -> None:
        """Something came over the broker: whoever shows itself now is heard."""
        now = self._clock.monotonic()
        self._seconds += min(now - self._heard_at, self._gap_max)
        self._heard_at = now

    def heard(self, heartbeat: Heartbeat) -> None:
        """A heartbeat came over the broker."""
        self.hears()
        self.show(heartbeat)

    def show(self, heartbeat: Heartbeat) -> None:
        """A node is alive, by whatever way that is known."""
        if heartbeat.node not in self._seen:
            self._forget(self._seconds - FORGET_SECONDS)
        self._seen[heartbeat.node] = (heartbeat, self._seconds)

    def live(self) -> list[Heartbeat]:
        """Whoever was heard of late."""
        since = self._seconds - self._dead_after
        return [each for each, at in self._seen.values() if at >= since]

    def engines(self) -> list[Heartbeat]:
        """Who may own partitions."""
        return [
            each
            for each in self.live()
            if each.role != "gateway" and not each.leaving and not each.joining
        ]

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
        """The last of everybody, dead or alive, who was heard within FORGET_SECONDS."""
        return [each for each, _ in self._seen.values()]

    def _forget(self, before: float) -> None:
        for node in [node for node, (_, at) in self._seen.items() if at < before]:
            del self._seen[node]
