"""For load balancers: /healthz says that the process answers, /readyz whether to send it buyers."""

from __future__ import annotations

import asyncio
import math
from typing import Final, Literal

import msgspec

from engine.cqrs.command_side.port import ServedPartition
from engine.engine import Engine
from engine.errors import SeckillError
from engine.service.calls import Call, Operation
from engine.service.replies import Reply, json_reply
from engine.service.tally import Tally

LAG_SECONDS_MAX: Final = 1.0
"""It is asked of every read model and partition, behind whatever is being fed to them: no balancer waits
for that, nor asks for it twice at a time."""


class Alive(msgspec.Struct, frozen=True):
    status: Literal["ok"] = "ok"


class Readiness(msgspec.Struct, frozen=True):
    """`lag_commits` is that of the read model furthest behind, as far as it is known.

    `reason` says why it is not ready or, in a cluster, what is not served. `served` are the partitions
    that take commands; those of a cluster name their owner. One that is neither served nor stopped
    goes from one owner to the next: its orders wait. `brokers_silent_seconds` is 0 while the brokers
    of a cluster are heard.
    """

    ready: bool
    reason: str
    store: str
    durability: str
    partitions: int
    stopped_partitions: int
    halted_skus: int
    queue_depth: int
    lag_commits: int
    gate: Literal["off", "trusted", "open"]
    role: str
    served: list[ServedPartition]
    brokers_silent_seconds: int


class Health:
    def __init__(self, engine: Engine, tally: Tally) -> None:
        self._engine = engine
        self._tally = tally
        self._lag = 0
        self._is_lag_known = True
        self._asking: asyncio.Task[None] | None = None
        self.draining = False

    def operations(self) -> list[Operation]:
        return [
            Operation(
                *("GET", "/healthz", "The process answers", {200: Alive}, self._alive),
                who="everybody",
            ),
            Operation(
                *("GET", "/readyz", "Whether buyers should be sent here"),
                *({200: Readiness, 503: Readiness}, self._ready),
                who="everybody",
            ),
        ]

    async def _alive(self, _: Call) -> Reply:
        return json_reply(Alive())

    async def _ready(self, _: Call) -> Reply:
        found = await self.readiness()
        return json_reply(found, 200 if found.ready else 503)

    async def readiness(self) -> Readiness:
        """Never raises: a store that cannot be reached is a reason."""
        engine, info = self._engine, self._engine.info
        partitions, cluster = engine.reader.partitions, engine.settings.cluster
        # All of one moment: the store may take its time to answer.
        now, stopped, served = engine.statistics(), len(engine.stopped()), engine.served()
        silent = self._silent_seconds()
        try:
            # Also where no read model is kept, which `lag` would ask for its place. Of several
            # databases one has to answer.
            await engine.reader.read_places()
            reachable = await self._look_at_lag()
        except SeckillError:
            reachable = False
        reason = "" if reachable else "the store cannot be reached"
        if not cluster.servers and stopped:
            reason = f"{stopped} of {_counted(partitions)} {_are(stopped)} stopped"
        ready = not reason
        if cluster.servers:
            reason = _unowned(stopped, partitions - len(served), partitions, silent) or reason
            # Its buyers of other partitions are to be sent here all the same.
            ready = stopped < partitions
        if self.draining:
            ready, reason = False, "it is closing"
        gate = self._tally.gate
        return Readiness(
            *(ready, reason, f"{info.kind} {info.version}", info.durability),
            *(partitions, stopped, now.halted, now.queue_depth, self._lag),
            "off" if gate is None else "trusted" if gate.statistics().trusted else "open",
            cluster.role if cluster.servers else "embedded",
            *(served, silent),
        )

    def _silent_seconds(self) -> int:
        """For how long the brokers have not been heard; 0 while that may be chance."""
        broker = self._engine.broker()
        patience = self._engine.settings.cluster.dead_after_ms / 1_000
        silent = 0.0 if broker is None else broker.silent_seconds
        return math.ceil(silent) if silent > patience else 0

    async def _look_at_lag(self) -> bool:
        """Have the lag of now, or of a while ago when that takes longer; false when it cannot be told."""
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._ask_for_lag(), name="lag")
        await asyncio.wait((self._asking,), timeout=LAG_SECONDS_MAX)
        return self._is_lag_known

    async def _ask_for_lag(self) -> None:
        try:
            found = await self._engine.queries.lag()
        except SeckillError:
            self._is_lag_known = False
        else:
            self._is_lag_known = True
            self._lag = max((each.commits for each in found), default=0)


def _unowned(stopped: int, unserved: int, partitions: int, silent: int) -> str:
    """What nobody owns, as far as a node of a cluster knows; empty when it hears an owner of all."""
    found = []
    if silent:
        found.append(f"the brokers have not been heard for {silent} s")
    if stopped:
        found.append(f"nobody owns {stopped} of {_counted(partitions)}")
    if unserved > stopped:
        waiting = f"{unserved - stopped} of {_counted(partitions)}"
        found.append(f"the next owner of {waiting} is awaited")
    return "; ".join(found)


def _counted(partitions: int) -> str:
    return f"{partitions} partition{'' if partitions == 1 else 's'}"


def _are(count: int) -> str:
    return "is" if count == 1 else "are"
