"""A cluster of a bank in one process: a broker and a store in memory, and a clock that a test moves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from engine.cluster.gateway import Gateway
from engine.cluster.join import own_partitions
from engine.cluster.membership import Members, best_of
from engine.cluster.node import Node
from engine.cluster.owner import Owner
from engine.cluster.wire import Wire
from engine.config import load_settings
from engine.cqrs.command_side.live_rows import LiveRows
from engine.cqrs.command_side.partition_maker import no_inline
from engine.cqrs.command_side.refusal_counts import RefusalCounts
from engine.cqrs.event_store import EventStore
from engine.cqrs.messages import Command
from engine.cqrs.partitioning import partition_of
from engine.cqrs.query_side.subscription import Feed
from engine.stores.memory import MemoryStore
from engine.testing.scripted_broker import ScriptedBroker, ScriptedServer
from engine.testing.virtual_clock import VirtualClock
from tests.cqrs.bank_account import bank_registry

T = TypeVar("T")

PARTITIONS = 2
HEARTBEAT_SECONDS = 0.5
DEAD_AFTER_SECONDS = 3.0


def account_in(partition: int) -> str:
    """An account whose commands go there."""
    return next(f"a{n}" for n in range(99) if partition_of(f"a{n}", PARTITIONS) == partition)


def engines() -> tuple[str, str]:
    """Names of two engines of which the first is best for partition 0, the other one for 1."""
    names = [f"engine-{n}" for n in range(9)]
    return next(
        (one, two)
        for one in names
        for two in names
        if one != two and [best_of((one, two), number) for number in (0, 1)] == [one, two]
    )


class Shop:
    """`start` nodes, send to a node's gateway, `kill` and `cut` what shall fail."""

    def __init__(self) -> None:
        self.clock = VirtualClock()
        self.server = ScriptedServer(self.clock)
        self.store = MemoryStore(PARTITIONS, clock=self.clock)
        self.registry = bank_registry()
        self.wire = Wire(self.registry, self.store.info.identity)
        self.nodes: dict[str, Node] = {}

    async def start(
        self, name: str, role: str = "all", store: EventStore | None = None, **overrides: object
    ) -> Node:
        """Overrides use `__` for the dot of a setting."""
        settings = load_settings(
            environ={},
            overrides={
                "cluster.servers": ("nats://of.the.test:1",),
                "cluster.role": role,
                "store.url": "sqlite:of-the-test",
                "queue.deadline_ms": 20_000,
                **{key.replace("__", "."): value for key, value in overrides.items()},
            },
        )
        broker = self.server.connect(settings.cluster)
        await broker.ensure_commands()
        members = Members(DEAD_AFTER_SECONDS, self.clock)
        node = self.nodes[name] = Node(name, settings.cluster, broker, members, self.clock)
        await self.run(node.hear())
        node.gateway = Gateway(
            *(broker, self.wire, self.registry, settings, PARTITIONS, members, LiveRows()),
            self.clock,
        )
        await node.gateway.start()
        if role != "gateway":
            await own_partitions(
                *(node, settings, self.registry, store or self.store, Feed(), no_inline),
                RefusalCounts([], [], 9),
                *(lambda _: None, _leave, self.clock),
            )
        await self.run(node.start())
        return node

    def broker(self, name: str) -> ScriptedBroker:
        found = self.nodes[name].broker
        assert isinstance(found, ScriptedBroker)
        return found

    def owned(self, name: str) -> dict[int, Owner]:
        owners = self.nodes[name].owners
        assert owners is not None
        return owners.owned

    async def run(self, work: Coroutine[Any, Any, T]) -> T:
        return await self.clock.run(work)

    async def go_on(self, seconds: float) -> None:
        await self.run(self.clock.sleep(seconds))

    async def until(self, is_so: Any) -> None:
        """Let time pass until it is so, a minute at most."""
        for _ in range(600):
            if is_so():
                return
            await self.go_on(0.1)
        raise AssertionError("it did not come about")

    async def serve(self, name: str) -> None:
        """Until every partition is served, as the gateway of `name` sees it."""
        gateway = self.gateway(name)
        await self.until(lambda: not gateway.stopped())

    def gateway(self, name: str) -> Gateway:
        found = self.nodes[name].gateway
        assert found is not None
        return found

    def send(self, name: str, command: Command, timeout_ms: int | None = None) -> asyncio.Task[Any]:
        bus = self.gateway(name).bus
        return asyncio.create_task(_execute(bus.execute(command, timeout_ms=timeout_ms)))

    async def ask(self, name: str, command: Command, timeout_ms: int | None = None) -> Any:
        """Its outcome, also when that is an error."""

        async def outcome() -> Any:
            return await self.send(name, command, timeout_ms)

        return await self.run(outcome())

    async def kill(self, name: str) -> None:
        """It ends as by kill -9: what it had in memory is lost, and nobody is told."""
        self.broker(name).is_cut = True
        node = self.nodes.pop(name)
        tasks = [*node._tasks]
        for owner in node.owners.owned.values() if node.owners is not None else ():
            assert owner._loop_task is not None
            tasks += [owner._loop_task, *owner._tasks]
        if node.owners is not None:
            tasks += node.owners._busy.values()
            # Nothing of it is begun again.
            node.owners._begin = lambda _, work: work.close()  # type: ignore[assignment,method-assign,return-value]
        for each in tasks:
            each.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert node.gateway is not None
        await node.gateway.close()
        await node.broker.close()

    async def events(self) -> list[str]:
        """The ids of the commands whose events are stored, in order of their partition."""
        found = []
        for number in range(PARTITIONS):
            for commit in await self.store.read_partition(number, 0, 1_000):
                name, _ = commit.stream
                codec = self.registry.types[name]
                assert codec is not None
                found += [
                    part.split('"')[0]
                    for part in commit.events.decode().split('"command_id":"')[1:]
                ]
        return found

    async def close(self) -> None:
        for node in list(self.nodes.values()):
            await self.run(node.close())
            await node.broker.close()


async def _execute(call: Coroutine[Any, Any, Any]) -> Any:
    try:
        return await call
    except Exception as error:
        return error


async def _leave(_: int) -> None:
    pass


@asynccontextmanager
async def shop() -> AsyncIterator[Shop]:
    found = Shop()
    try:
        yield found
    finally:
        await found.close()
