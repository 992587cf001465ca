"""Who owns what just now, for somebody who only looks."""

from __future__ import annotations

import os
import uuid

import msgspec
from nats.aio.msg import Msg

from engine.clock import Clock
from engine.cluster.broker import Broker
from engine.cluster.membership import (
    Heartbeat,
    Holding,
    Members,
    decode_heartbeat,
    encode_heartbeat,
)
from engine.cluster_settings import ClusterSettings

HEARTBEATS: int = 2
"""So many are waited for: everybody shows itself at once for who has just come."""


async def live_owners(settings: ClusterSettings, clock: Clock) -> dict[int, tuple[str, Holding]]:
    """The node that owns each partition now, by what the nodes show.

    Raises BrokerUnavailable, and ConfigError for brokers that refuse the login.
    """
    name = f"look-{os.getpid()}"
    # Who only looks asks no promises of the brokers.
    relaxed = msgspec.structs.replace(settings, durability="relaxed")
    broker = await Broker.connect(relaxed, name)
    try:
        members = Members(settings.dead_after_ms / 1_000, clock)

        async def heard(message: Msg) -> None:
            heartbeat = decode_heartbeat(message.data)
            if heartbeat is not None:
                members.heard(heartbeat)

        await broker.listen(broker.subject("nodes", "*"), heard)
        # Who leaves gets no partition, and who says hello is answered.
        hello = Heartbeat(name, uuid.uuid4().hex, "gateway", leaving=True, hello=True)
        await broker.send(broker.subject("nodes", name), encode_heartbeat(hello))
        await clock.sleep(HEARTBEATS * settings.heartbeat_ms / 1_000)
        return members.holdings()
    finally:
        await broker.close()
