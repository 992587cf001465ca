"""Which life of a stream was made first.

A partition is fed by one stream after another, each made later than the one before: whatever an older one
holds was decided already, or its sender was told that nothing is known of it. Read from its begin again it
would execute refusals that were told.
"""

from __future__ import annotations

from datetime import datetime

from engine.errors import SeckillError


class OlderStream(SeckillError):
    """The stream is older than the one that fed the partition last. Nothing of it was read."""

    def __init__(self, life: str, newer: str) -> None:
        """`life` is of the stream that is there, `newer` of the one that fed the partition."""
        stream, _, made = life.partition(" ")
        other, _, later = newer.partition(" ")
        super().__init__(
            f"it was last fed by the stream {other} made at {later}; the stream {stream} made at "
            f"{made} is older: every node needs the same cluster.prefix and the same brokers. To go "
            f"back to {stream}, remove it first (nats stream rm {stream}): it is made anew"
        )
        self.life = life
        self.newer = newer


def check_not_older(life: str, before: str) -> None:
    """Raises OlderStream when `life` was made before the one that fed the partition `before`.

    Names that do not say when they were made tell nothing.
    """
    made, made_before = _made_at(life), _made_at(before)
    if made is not None and made_before is not None and made < made_before:
        raise OlderStream(life, before)


def _made_at(life: str) -> datetime | None:
    """None when it cannot be told."""
    try:
        made = datetime.fromisoformat(life.partition(" ")[2])
    except ValueError:
        return None
    return made if made.tzinfo is not None else None
