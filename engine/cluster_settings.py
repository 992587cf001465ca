"""Settings of a cluster: the brokers, this node, and how commands travel."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

import msgspec
from msgspec import Meta

from engine.errors import ConfigError

Role: TypeAlias = Literal["all", "gateway", "engine"]


class ClusterSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Partitions over nodes, whose commands travel over NATS JetStream.

    `servers`: nats:// URLs of the brokers; without any, this process owns every partition and needs no
    broker. `role`: a `gateway` takes orders, an `engine` owns partitions, `all` does both. `node`: the
    name of this one, made up when empty; no two may have the same. `prefix`: of subjects and streams.
    `credentials`: a file of the client's, as `nsc` makes it. `replicas`: of the streams, 3 in
    production. `stream_bytes_max`: of commands that wait; beyond it they are refused. `durability`:
    `strict` refuses brokers that do not sync each message to disk, which they are asked for at
    `monitor_urls` (http://host:8222 of each).
    A gateway merges up to `message_commands_max` commands for one partition into a message, and waits
    `message_delay_ms_max` for company, 0 for none. A message is what costs: at 4,000 a queue of lists
    needs a fifth less processor time than at 1,000, and it is 0.25 MB; beyond the broker's max_payload
    it is split. Nodes show every `heartbeat_ms` that they live, and one that is silent for
    `dead_after_ms` loses its partitions: twice that is best below `queue.deadline_ms`, so that who
    ordered at a dead one is answered by the next. `events`: whether what was committed
    is published for other systems; older messages of theirs than
    `events_seconds_max` are removed, and beyond `events_bytes_max` the oldest, 0 is no limit.
    """

    servers: tuple[str, ...] = ()
    role: Role = "all"
    node: Annotated[str, Meta(max_length=64, pattern=r"^[A-Za-z0-9_-]*$")] = ""
    prefix: Annotated[str, Meta(min_length=1, max_length=32, pattern=r"^[A-Za-z0-9_-]+$")] = (
        "seckill"
    )
    credentials: str = ""
    replicas: Annotated[int, Meta(ge=1, le=5)] = 1
    stream_bytes_max: Annotated[int, Meta(ge=1_000_000)] = 1_000_000_000
    durability: Literal["strict", "relaxed"] = "strict"
    monitor_urls: tuple[str, ...] = ()
    message_commands_max: Annotated[int, Meta(ge=1, le=10_000)] = 4_000
    message_delay_ms_max: Annotated[float, Meta(ge=0, le=1_000)] = 0
    heartbeat_ms: Annotated[int, Meta(ge=50, le=10_000)] = 500
    dead_after_ms: Annotated[int, Meta(ge=200, le=60_000)] = 3_000
    events: bool = True
    events_seconds_max: Annotated[int, Meta(ge=0)] = 604_800
    events_bytes_max: Annotated[int, Meta(ge=0)] = 10_000_000_000


def check_cluster(cluster: ClusterSettings, deadline_ms: int) -> None:
    """`deadline_ms` is queue.deadline_ms. Raises ConfigError naming the key and what is allowed."""
    if not cluster.servers:
        if cluster.role != "all":
            raise ConfigError(
                f"cluster.role {cluster.role} needs cluster.servers: the brokers that its commands "
                "travel over, such as nats://127.0.0.1:4222"
            )
        return
    for url in cluster.servers:
        if not re.fullmatch(r"(nats|tls)://\S+", url):
            raise ConfigError("cluster.servers must be URLs such as nats://127.0.0.1:4222")
    for url in cluster.monitor_urls:
        if not re.fullmatch(r"https?://\S+", url):
            raise ConfigError(
                f"cluster.monitor_urls must be URLs such as http://127.0.0.1:8222; got {url!r}"
            )
    if cluster.dead_after_ms < 3 * cluster.heartbeat_ms:
        raise ConfigError(
            "cluster.dead_after_ms must be at least three times cluster.heartbeat_ms: a node would "
            "lose its partitions for one or two late heartbeats "
            f"({cluster.dead_after_ms:,} < 3 x {cluster.heartbeat_ms:,})"
        )
    if cluster.message_delay_ms_max >= deadline_ms:
        raise ConfigError(
            "cluster.message_delay_ms_max must be below queue.deadline_ms: a lonely command would "
            f"always miss its deadline ({cluster.message_delay_ms_max:g} >= {deadline_ms:,})"
        )
    if cluster.credentials:
        _check_credentials(Path(cluster.credentials))


def _check_credentials(path: Path) -> None:
    # The client would say of it no more than that no broker answers.
    try:
        path.read_bytes()
    except OSError as error:
        raise ConfigError(
            "cluster.credentials must be a file that this process may read, as nsc makes it: "
            f"{error.strerror}: {path.absolute()}"
        ) from None
