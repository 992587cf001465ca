"""For load balancers: /healthz says that the process answers, /readyz whether to send it buyers."""

from __future__ import annotations

import asyncio
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
    that take commands; those of a cluster name their owner.
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
        now = engine.statistics()
        stopped, cluster = engine.stopped(), engine.settings.cluster
        try:
            # Also where no read model is kept, which `lag` would ask for its place. Of several
            # databases one has to answer.
            await engine.reader.read_places()
            reachable = await self._look_at_lag()
        except SeckillError:
            reachable = False
        reason = "" if reachable else "the store cannot be reached"
        if stopped:
            reason = f"{len(stopped)} of {engine.reader.partitions} partitions are stopped"
        ready = not reason
        if cluster.servers:
            # Its buyers of other partitions are to be sent here all the same.
            ready = len(stopped) < engine.reader.partitions
        if self.draining:
            ready, reason = False, "it is closing"
        gate = self._tally.gate
        return Readiness(
            *(ready, reason, f"{info.kind} {info.version}", info.durability),
            *(engine.reader.partitions, len(stopped), now.halted, now.queue_depth, self._lag),
            "off" if gate is None else "trusted" if gate.statistics().trusted else "open",
            cluster.role if cluster.servers else "embedded",
            engine.served(),
        )

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
