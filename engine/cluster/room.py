"""What to say when the brokers cannot set aside what a stream may grow to."""

from __future__ import annotations

from typing import Final

from engine.errors import ConfigError

NO_ROOM: Final = "insufficient storage"
"""The brokers' words: one alone refuses with code 10047, a cluster with 10005, which has other reasons."""


def no_room(
    error: BaseException | None, stream: str, bytes_max: int, setting: str
) -> ConfigError | None:
    """The error for an operator, when that is what `error` of the broker says; else None.

    `setting` of `cluster` is where the `bytes_max` of the stream come from.
    """
    if NO_ROOM not in str(error):
        return None
    return ConfigError(
        f"the brokers have no room for the stream {stream}, which sets {bytes_max:,} bytes aside: "
        f"lower cluster.{setting}, or raise max_file_store in the jetstream block of every broker"
    )
