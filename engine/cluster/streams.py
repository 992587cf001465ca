"""What both streams of a cluster have in common: what one that is there must be, what is changed of it,
and what to say when the brokers cannot have it."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from enum import Enum
from typing import Final

from nats.js import JetStreamContext
from nats.js.api import RetentionPolicy, StorageType, StreamConfig
from nats.js.errors import APIError

from engine.errors import BrokerUnavailable, ConfigError

logger = logging.getLogger(__name__)

NO_ROOM: Final = "insufficient storage"
"""The brokers' words: one alone refuses with code 10047, a cluster with 10005, which has other reasons."""

NO_CLUSTER: Final = 10074
"""The broker's code for replicas that one alone cannot have."""

TOO_FEW: Final = 10005
"""The brokers' code for a stream that they have no place for: too few of them are there."""

FIXED: Final[Mapping[str, object]] = {
    "storage": StorageType.FILE.value,
    "retention": RetentionPolicy.LIMITS.value,
    "sources": None,
    "mirror": None,
    "sealed": False,
    "no_ack": False,
}


def check_stream(config: StreamConfig, purpose: str, needed: Mapping[str, object]) -> None:
    """Raise ConfigError for a stream that others made for something else.

    `needed` is what is never changed of one that is there, beside FIXED.
    """
    for name, wanted in {**FIXED, **needed}.items():
        found = getattr(config, name) or None
        if found != (wanted or None):
            raise ConfigError(
                f"the stream {config.name} is not one for {purpose}: its {name} is {found!r}, "
                f"where {wanted!r} is needed; delete it, or choose another cluster.prefix"
            )


async def bring_up_to(
    js: JetStreamContext, config: StreamConfig, wanted: Mapping[str, object]
) -> StreamConfig:
    """Change what is not as `wanted` of a stream that is there, and say what. The rest stays.

    Raises what the client raises.
    """
    changes = {
        name: (found, value)
        for name, value in wanted.items()
        if (found := getattr(config, name)) != value
    }
    if not changes:
        return config
    info = await js.update_stream(
        config.evolve(**{name: new for name, (_, new) in changes.items()})
    )
    for name, (old, new) in changes.items():
        # Other nodes may want it as it was: whoever reads the log of this one shall find out.
        logger.warning(
            "the stream %s: %s was %s and is %s now", config.name, name, *map(_plain, (old, new))
        )
    return info.config


def _plain(value: object) -> object:
    if isinstance(value, Enum):
        return value.value
    return int(value) if isinstance(value, float) and value.is_integer() else value


def refusal(
    error: APIError, stream: str, bytes_max: int, setting: str, replicas: int
) -> ConfigError | BrokerUnavailable | None:
    """What to tell an operator when the brokers cannot have a stream; None for other errors.

    ConfigError is for what does not change by waiting. `setting` of `cluster` is where the
    `bytes_max` of the stream come from.
    """
    if NO_ROOM in str(error):
        return ConfigError(
            f"the brokers have no room for the stream {stream}, which sets {bytes_max:,} bytes aside: "
            f"lower cluster.{setting}, or raise max_file_store in the jetstream block of every broker"
        )
    if error.err_code == NO_CLUSTER:
        return ConfigError(
            f"cluster.replicas is {replicas}, and the broker is one alone: set it to 1, or give "
            "every broker a cluster block"
        )
    if error.err_code == TOO_FEW:
        # Some may still be starting.
        return BrokerUnavailable(
            f"cluster.replicas is {replicas}, and the brokers that are there cannot have the stream "
            f"{stream} so often: start more, or lower it ({error.description})"
        )
    return None
