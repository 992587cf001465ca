"""One node of a cluster: its heartbeat, its gateway and, on an engine, its partitions."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Callable, Coroutine
from typing import Any, Final

from nats.aio.msg import Msg

from engine.clock import Clock
from engine.cluster.broker import Broker
from engine.cluster.gateway import Gateway
from engine.cluster.membership import (
    Heartbeat,
    Members,
    decode_heartbeat,
    encode_heartbeat,
)
from engine.cluster.owners import Owners
from engine.cluster.replies import Replies
from engine.cluster_settings import ClusterSettings
from engine.cqrs.command_side.statistics import Statistics
from engine.cqrs.long_task import say_why
from engine.errors import BrokerUnavailable, ConfigError

logger = logging.getLogger(__name__)

HELLO_HEARTBEATS: Final = 2
"""Heartbeats that a node that has just come listens for before it takes anything."""


class Node:
    """Made with its parts; `hear`, `start`, then `close`. `members` is who it hears.

    `failed` gets the reason when it can go on no more: only a new start helps then.
    """

    def __init__(
        self,
        name: str,
        settings: ClusterSettings,
        broker: Broker,
        members: Members,
        clock: Clock,
    ) -> None:
        self.name = name
        self.boot = uuid.uuid4().hex
        self.started_at_ms = clock.wall_us() // 1_000
        self.failed: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.members = members
        self.broker = broker
        self.replies = Replies(broker)
        self.store = ""
        self.gateway: Gateway | None = None
        self.owners: Owners | None = None
        self.statistics: Callable[[], Statistics] | None = None
        self._role = settings.role
        self._heartbeat_seconds = settings.heartbeat_ms / 1_000
        self._clock = clock
        self._leaving = False
        self._news = asyncio.Event()
        self._has_namesake = False
        self._foreign = ""
        self._has_joined = False
        self._is_replaced = False
        self._is_to_show = False
        self._tasks: list[asyncio.Task[None]] = []
        self._giving_back: asyncio.Task[None] | None = None
        broker.when_ended = self._fail

    def run(self, work: Coroutine[Any, Any, None], name: str) -> None:
        """Run something until `close`."""
        task = asyncio.create_task(work, name=name)
        task.add_done_callback(say_why)
        self._tasks.append(task)

    async def hear(self) -> None:
        """Hear the others, before anything is changed that is theirs.

        Raises ConfigError when its name is taken or its store is another one, BrokerUnavailable.
        """
        await self.broker.listen(self.broker.subject("nodes", "*"), self._heard)
        await self._show(hello=True)
        await self._clock.sleep(HELLO_HEARTBEATS * self._heartbeat_seconds)
        if self._foreign:
            raise ConfigError(
                f"node {self._foreign!r} sells from another store over the same brokers: check "
                "store.url, or give each sale its own cluster.prefix"
            )
        if self._has_namesake:
            raise ConfigError(
                f"another node that runs is called {self.name!r}; give each its own cluster.node"
            )

    async def start(self) -> None:
        """Take part, once it was heard who is there."""
        self._has_joined = True
        self.run(self.replies.run(), "replies")
        self.run(self._beat(), "heartbeat")
        if self.owners is not None:
            self.run(self._act(), "owners")

    def changed(self) -> None:
        """Tell the others at once what has changed here, and look again."""
        self._is_to_show = True
        self._news.set()

    async def close(self) -> None:
        """Give back what is owned, say so, and leave. Idempotent."""
        if not self._leaving:
            self._leaving = True
            if self.gateway is not None and not self.broker.ended:
                # While the partitions of this node still answer: they may be all there are.
                await self.gateway.drain()
            if self.owners is not None:
                # Whoever is best without this node takes over while it finishes what it has.
                await self._say_leaving()
                await (self._giving_back or self.owners.give_back_all())
            await self._say_leaving()
        for each in self._tasks:
            each.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []
        await self.replies.flush()
        if self.gateway is not None:
            await self.gateway.close()

    async def _say_leaving(self) -> None:
        # Not in the name of the node that has it.
        if self._has_joined:
            await self._try_to_show()

    def _fail(self, reason: str) -> None:
        if self._leaving or self.failed.done():
            return
        logger.critical("node %s goes on no more: %s", self.name, reason)
        self.failed.set_result(reason)

    async def _heard(self, message: Msg) -> None:
        self.members.hears()
        heartbeat = decode_heartbeat(message.data)
        if heartbeat is None:
            logger.warning("a heartbeat of another version on %s", message.subject)
            return
        if heartbeat.store and heartbeat.store != self.store:
            # Its partitions are others, whatever their numbers.
            if heartbeat.node != self._foreign:
                logger.error("node %s sells from another store over these brokers", heartbeat.node)
            self._foreign = heartbeat.node
            return
        if heartbeat.node == self.name and not self._is_replaced:
            if heartbeat.boot != self.boot and not heartbeat.leaving:
                await self._heard_namesake(heartbeat)
            return
        is_coming = heartbeat.hello or heartbeat.joining
        if not (is_coming and self._knows_another(heartbeat)):
            self.members.show(heartbeat)
        if self.gateway is not None:
            self.gateway.look()
        if heartbeat.hello:
            await self._try_to_show()
        self._news.set()

    async def _heard_namesake(self, heartbeat: Heartbeat) -> None:
        self._has_namesake = True
        logger.error(
            "another process calls itself %s too: give each its own cluster.node", self.name
        )
        if heartbeat.hello:
            await self._try_to_show()
        is_newer = (heartbeat.started_at_ms, heartbeat.boot) > (self.started_at_ms, self.boot)
        if self._has_joined and not self._leaving and not heartbeat.joining and is_newer:
            # It came while this one was not heard, and has taken its place.
            self._is_replaced = True
            if self.owners is not None:
                self._giving_back = asyncio.create_task(self.owners.give_back_all())
            self._fail(
                f"another process called {self.name!r} started after it and has its place; if both "
                "are to run, give each its own cluster.node"
            )

    def _knows_another(self, heartbeat: Heartbeat) -> bool:
        """Whether somebody else has that name: who has just come will hear so, and go."""
        return any(
            each.node == heartbeat.node and each.boot != heartbeat.boot
            for each in self.members.live()
        )

    async def _beat(self) -> None:
        while True:
            await self._try_to_show()
            if self.gateway is not None:
                self.gateway.look()
            await self._clock.sleep(self._heartbeat_seconds)

    async def _act(self) -> None:
        """Look what is to be taken or given back, after each news and now and then."""
        assert self.owners is not None
        while True:
            self._news.clear()
            if self.broker.is_connected and not self._leaving and not self._is_replaced:
                self.owners.look()
            timer = self._clock.call_later(self._heartbeat_seconds, self._news.set)
            try:
                await self._news.wait()
            finally:
                timer.cancel()
            # Not for every heartbeat of another node, which would show itself for this one again.
            if self._is_to_show:
                self._is_to_show = False
                await self._try_to_show()

    async def _try_to_show(self) -> None:
        if self._is_replaced:
            # It would speak in the name of the other one.
            return
        try:
            await self._show()
        except BrokerUnavailable as error:
            logger.debug("no heartbeat: %s", error)

    async def _show(self, *, hello: bool = False) -> None:
        heartbeat = Heartbeat(
            *(self.name, self.boot, self._role),
            holds=self.owners.holds() if self.owners is not None else (),
            leaving=self._leaving,
            hello=hello,
            store=self.store,
            statistics=self.statistics() if self.statistics is not None else None,
            cannot=self.owners.cannot() if self.owners is not None else (),
            joining=not self._has_joined,
            started_at_ms=self.started_at_ms,
        )
        # Known without the broker: it is alive all the same.
        self.members.show(heartbeat)
        subject = self.broker.subject("nodes", self.name)
        await self.broker.send(subject, encode_heartbeat(heartbeat))
